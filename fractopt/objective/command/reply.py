"""What a program says an evaluation came to: the file outcome.json, of which nothing is believed.

{"value": 0.4791, "stderr": 0.005, "metrics": {"train/loss": 1.02}}
{"status": "diverged", "message": "the loss became nan at step 120"}
"""

from __future__ import annotations

import difflib
import errno
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from fractopt.foreign import read_file
from fractopt.text import clipped, printable
from fractopt.trial import Outcome, Status

MAX_BYTES = 256 << 10
KEYS = ("value", "stderr", "status", "metrics", "message")
_LONGEST_NAME = 200  # characters, of a metric
_LONGEST_QUOTE = 80


def read_outcome(path: Path, tests: Sequence[str], asked: bool) -> Outcome:
    """The outcome in the file `path`; raises ValueError with one sentence for anything else.

    The metrics `tests` must be there where they were `asked` for. Where not they are left out: what
    nobody asked for is in no record, whatever the program likes to compute.
    """
    record = _record(path)
    for key in record:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            raise ValueError(
                f"unknown key {_quoted(key)}{f'; did you mean {near[0]!r}?' if near else ''} "
                f"Expected {', '.join(KEYS)}"
            )
    status = _status(record)
    value = _number("value", record["value"]) if "value" in record else math.nan
    stderr = _number("stderr", record["stderr"]) if record.get("stderr") is not None else None
    if stderr is not None and stderr < 0.0:
        raise ValueError(f"stderr: expected a number >= 0, got {stderr!r}")
    metrics = _metrics(record.get("metrics", {}))
    message = record.get("message", "")
    if not isinstance(message, str):
        raise ValueError(f"message: expected text, got {_quoted(message)}")
    if asked and status in (Status.OK, Status.PRUNED) and (missing := [n for n in tests if n not in metrics]):
        raise ValueError(
            f"metrics: lacks {', '.join(missing)}, which [test] asks for and this evaluation was to compute "
            "(FRACTOPT_TEST was 1)"
        )
    if not asked:
        metrics = {name: number for name, number in metrics.items() if name not in tests}
    return Outcome(status, value, stderr=stderr, metrics=metrics, message=message)


def _record(path: Path) -> dict[str, Any]:
    try:
        data = read_file(path, MAX_BYTES)
        record = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except FileNotFoundError:
        raise ValueError(f"it was not written to {path}") from None
    except OSError as error:
        reason = "a link, which is not followed" if error.errno == errno.ELOOP else error.strerror
        raise ValueError(f"cannot be read: {reason}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None
    except RecursionError:
        raise ValueError("is nested too deep") from None
    if not isinstance(record, dict):
        raise ValueError(f'expected an object such as {{"value": 0.5}}, got {_quoted(record)}')
    return record


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {_quoted(next(n for n in names if names.count(n) > 1))} is there twice")
    return record


def _no_number(text: str) -> NoReturn:
    raise ValueError(f'{text} is no number; a run without a value says "status": "diverged" or "failed"')


def _status(record: dict[str, Any]) -> Status:
    known = [status.value for status in Status]
    said = record.get("status", "ok")
    if said not in known:
        raise ValueError(f"status: expected one of {', '.join(known)}, got {_quoted(said)}")
    status = Status(said)
    has_value = status in (Status.OK, Status.PRUNED)
    if has_value and "value" not in record:
        raise ValueError('value: is missing; where there is none, "status" says why')
    if not has_value and record.get("value") is not None:
        raise ValueError(f"value: the status {said!r} has none, got {_quoted(record['value'])}")
    if not has_value:
        record.pop("value", None)
    return status


def _metrics(record: Any) -> dict[str, float]:
    if not isinstance(record, dict):
        raise ValueError(f"metrics: expected an object of numbers, got {_quoted(record)}")
    for name in record:
        if not name or len(name) > _LONGEST_NAME or not name.isprintable():
            raise ValueError(
                f"metrics: expected names of 1 to {_LONGEST_NAME} characters, got {_quoted(name)}"
            )
    return {name: _number(f"metrics.{name}", number) for name, number in record.items()}


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key}: expected a number, got {_quoted(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{key}: expected a number that a float can hold, got {_quoted(value)}")
    return number


def _quoted(value: Any) -> str:
    try:
        return clipped(printable(json.dumps(value, ensure_ascii=False)), _LONGEST_QUOTE)
    except ValueError:  # a whole number of 5000 digits
        return f"a {type(value).__name__}"
