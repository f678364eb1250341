"""Which questions a run asks: to its end those that it began with.

A data set that was fetched anew, or another version of lm-eval with other prompts, would give values that
look the same and cannot be compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fractopt.durable import replace_file
from fractopt.foreign import read_file
from fractopt.objective.base import UnusableError

FILE = "questions.json"  # in what the evaluations of a run share: digests by what is asked
MOST = 1 << 16  # bytes of it


def ask_the_same(shared: Path, asked: Mapping[str, str]) -> None:
    """Note the digests `asked`, by what they are of, where nobody did; raises OSError.

    Raises UnusableError where an evaluation of the same run asked something else by one of these names.
    """
    path = shared / FILE
    known = _read(path)
    changed = [name for name, digest in asked.items() if known.get(name, digest) != digest]
    if changed:
        raise UnusableError(
            f"the questions of {' and of '.join(changed)} are not those that this run asked before, so their "
            "scores cannot be compared: the data set or lm-eval has changed. Go on with those of then (the "
            "run's meta.json has the versions), or start a new run with --out"
        )
    if not asked.keys() <= known.keys():
        text = json.dumps({**known, **asked}, indent=1, sort_keys=True)
        replace_file(path, text.encode() + b"\n")


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(read_file(path, MOST))
    except (OSError, ValueError, RecursionError):  # none yet, or nothing that can be used
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: digest for name, digest in found.items() if isinstance(digest, str)}
