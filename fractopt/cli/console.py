"""Exit codes, logging, and errors turned into one message: what every command shares."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import Any, NoReturn, TypeVar

import click

from fractopt.text import shown


class Exit(IntEnum):
    """Exit codes that job scripts rely on."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # click's own
    CONFIG = 3
    ARCHIVE = 4
    RESUMABLE = 75  # EX_TEMPFAIL: stopped on request, go on with --resume
    RESUBMIT = 99  # the same in a job of OAR, which submits an idempotent one again for this code alone


F = TypeVar("F", bound=Callable[..., Any])


def resumable() -> Exit:
    """The code of a run that can go on."""
    return Exit.RESUBMIT if "OAR_JOB_ID" in os.environ else Exit.RESUMABLE


def fail(code: Exit, text: str) -> NoReturn:
    """One message on stderr, and the end."""
    click.echo(shown(f"fractopt: {text}"), err=True)
    sys.exit(code)


def reporting(command: F) -> F:
    """Turn a user's mistake into its message and exit code; anything else keeps its traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:
            raise  # click's: `fractopt export ... | head` ends without a word
        except Exception as error:
            code = say(error)
            if code is None:
                raise
        sys.exit(code)

    return wrapped  # type: ignore[return-value]


def say(error: BaseException) -> Exit | None:
    """The message of a mistake that is not ours, on stderr; its exit code, or None for our own."""
    from fractopt.archive.journal import ArchiveError
    from fractopt.config.mistakes import ConfigError
    from fractopt.parallel.launch import LaunchError

    codes = {
        ConfigError: Exit.CONFIG,
        ArchiveError: Exit.ARCHIVE,
        LaunchError: Exit.FAILED,
    }
    for kind, code in codes.items():
        if isinstance(error, kind):
            click.echo(shown(f"fractopt: {error}"), err=True)
            return code
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        click.echo(shown(f"fractopt: {error.strerror or error}{where}"), err=True)
        return Exit.FAILED
    return None


class _Shown(logging.Formatter):
    """What evaluations said may hold a token, or command a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def log_to_stderr(handler: logging.Handler | None = None) -> None:
    """Send fractopt's log to stderr, one line a record, time first."""
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Shown("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    root = logging.getLogger("fractopt")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False
    # What an optimizer warns of is for the user: one line, without Python's file and line number.
    warnings.showwarning = lambda message, *_, **__: root.warning("warning: %s", message)


def as_json_text(data: Any) -> str:
    """JSON for other programs; it knows neither NaN nor infinities, which become null."""
    return json.dumps(_finite(data), indent=1, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(k): _finite(v) for k, v in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(v) for v in data]
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return None
    return data
