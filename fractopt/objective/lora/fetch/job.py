"""What `fractopt fetch` has to do, and what it says of what is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fractopt.durable import replace_file
from fractopt.objective.base import UnusableError
from fractopt.objective.lora.fetch.hub import Hub, Kind
from fractopt.objective.lora.files import COMMIT, REFS, read_json
from fractopt.units import amount


@dataclass(frozen=True)
class Job:
    """Something to be fetched: `what`, in words; the bytes it writes below which directories; and `do`, which
    fetches it and says what is there then."""

    what: str
    writes: tuple[tuple[Path, int], ...]
    do: Callable[[], str]


def there(what: str, where: Path, version: str | None) -> str:
    """What is at the file or directory `where`, in words."""
    files = [where] if where.is_file() else [file for file in where.iterdir() if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    known = "" if version is not None and version in str(where) else f", {version or 'of an unknown commit'}"
    return f"{what} in {where} ({amount(size)}{known})"


def compared(hub: Hub, kind: Kind, name: str, revision: str, version: str | None) -> str:
    """Whether a branch that is here already is another commit on the hub by now, in words; "" if not."""
    if COMMIT.fullmatch(revision):
        return ""
    try:
        now = hub.find(kind, name, revision).commit
    except UnusableError as error:
        return f"; not compared with the hub: {error}"
    if now == version:
        return ""
    return f"; the hub's {revision} is {now} by now, which fractopt fetch --update takes"


def named(revision: str, commit: str) -> str:
    """A revision and what it stands for."""
    return commit if revision == commit else f"{revision} ({commit})"


def remember(place: Path, revision: str, commit: str) -> None:
    """Note in `place` what `revision` stands for from now on."""
    if revision != commit:
        refs = {**read_json(place / REFS), revision: commit}
        replace_file(place / REFS, json.dumps(refs, indent=1).encode() + b"\n")
