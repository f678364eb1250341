"""Exit codes, logging, and errors turned into one message: what every command shares."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import Any, TypeVar

import click


class Exit(IntEnum):
    """Exit codes that job scripts rely on."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # click's own
    CONFIG = 3
    ARCHIVE = 4
    RESUMABLE = 75  # EX_TEMPFAIL: stopped on request, go on with --resume


F = TypeVar("F", bound=Callable[..., Any])


def fail(code: Exit, text: str) -> None:
    """One message on stderr, and the end."""
    click.echo(f"fractopt: {text}", err=True)
    sys.exit(code)


def reporting(command: F) -> F:
    """Turn a user's mistake into its message and exit code; anything else keeps its traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from fractopt.archive.journal import ArchiveError
        from fractopt.config import ConfigError

        try:
            return command(*args, **kwargs)
        except ConfigError as error:
            fail(Exit.CONFIG, str(error))
        except ArchiveError as error:
            fail(Exit.ARCHIVE, str(error))
        except OSError as error:
            fail(
                Exit.FAILED, f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
            )

    return wrapped  # type: ignore[return-value]


def log_to_stderr(handler: logging.Handler | None = None) -> None:
    """Send fractopt's log to stderr, one line a record, time first."""
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    root = logging.getLogger("fractopt")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False
