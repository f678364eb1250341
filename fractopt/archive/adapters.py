"""evals/ID/adapter.safetensors: the weights that an evaluation made, kept for the best of them.

The evaluation process writes the file, durably and before its result; the master, which owns the run
directory, removes those of evaluations that are no longer among the best.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from pathlib import Path

from fractopt.archive.history import History, Row
from fractopt.archive.result import evaluation_directory
from fractopt.durable import replace_file, sync_directory
from fractopt.foreign import read_file, remove_from
from fractopt.trial import Kind

log = logging.getLogger(__name__)

FILE = "adapter.safetensors"
MAX_ADAPTER = 1 << 36  # bytes: only an endless file has more
# Times as many stay while the search goes on: the one that it ends with is chosen by its posterior mean,
# and may well not be among the very best observed.
MARGIN = 2
_ASIDE = re.compile(rf"\.{re.escape(FILE)}\.[0-9a-f]+\.tmp")  # what `replace_file` was not let finish


def keep_adapter(directory: Path, data: bytes) -> None:
    """Put `data` into the evaluation's own `directory`, durably; raises OSError."""
    replace_file(directory / FILE, data)  # in the place of a link, not through it
    sync_directory(directory.parent)


def read_adapter(directory: Path) -> bytes | None:
    """What the evaluation with this `directory` kept, None where it kept nothing.

    Raises OSError for what cannot be read, or is no file of a run: a link, in its place or the directory's.
    """
    if directory.is_symlink():
        raise OSError(errno.ENOTDIR, "a link, where a run has a directory", str(directory))
    try:
        return read_file(directory / FILE, MAX_ADAPTER)
    except FileNotFoundError:
        return None


class Adapters:
    """The adapters in the run directory `run`: those of the best `keep` evaluations, and of no others.

    While the search goes on more of them stay: what may still be recommended, and what the test metrics of
    the default and of the best `tested` configurations will need. `keep` is None for an objective that
    makes none.
    """

    def __init__(self, run: Path, history: History, keep: int | None, tested: int) -> None:
        self._run = run
        self._history = history
        self._keep = keep
        self._tested = tested
        self._held: set[int] = set()  # evaluations that may have a file
        self._changed = True
        self._complained = False

    def wanted(self, kind: Kind) -> bool:
        """Whether an evaluation of this kind is to keep its adapter, as far as anyone knows before it."""
        return bool(self._keep) and kind.is_configuration

    def take_up(self) -> None:
        """Find what an earlier master of the run left."""
        for row in self._history.rows.values() if self._keep is not None else ():
            place = evaluation_directory(self._run, row.id)
            if place.is_symlink() or not place.is_dir():
                continue
            names = [entry.name for entry in place.iterdir()]
            if FILE in names:
                self._held.add(row.id)
            self._remove(row.id, [name for name in names if _ASIDE.fullmatch(name)])

    def add(self, number: int) -> None:
        """An attempt at evaluation `number` came to an outcome: it may have left a file."""
        self._held.add(number)
        self._changed = True

    def prune(self, *, over: bool) -> None:
        """Remove the files that are not wanted any more, `over` once nothing of the run is left to do.

        To be called when all that `add` was told of is durable. Only what is on the disk counts as one of
        the best: a better evaluation whose file was lost takes nobody's place.
        """
        if self._keep is None or not (self._changed or over):
            return
        self._changed = False
        present = [
            row
            for row in (self._history.rows[number] for number in sorted(self._held))
            # One without an outcome is under way again: its file is its own until it ends.
            if row.outcome is not None and os.path.lexists(evaluation_directory(self._run, row.id) / FILE)
        ]
        stays = self._stays(self._keep, present, over)
        for row in present:
            if row.id not in stays and self._remove(row.id, [FILE]):
                self._held.discard(row.id)

    def _stays(self, keep: int, present: list[Row], over: bool) -> set[int]:
        if over and not keep:
            return set()
        ranked = self._history.ranked([row for row in present if row.kind.is_configuration])
        recommended = self._history.recommended
        some = {recommended["trial"]} if recommended else set()
        if over:
            return some | {row.id for row in ranked[:keep]}
        some |= {row.of for row in self._history.rows.values() if row.kind.is_replicate}
        if self._tested:
            some |= {row.id for row in present if row.kind is Kind.DEFAULT}
        return some | {row.id for row in ranked[: MARGIN * max(keep, self._tested)]}

    def _remove(self, number: int, names: list[str]) -> bool:
        """Whether the files `names` of evaluation `number` are gone; says once that they are not."""
        try:
            for name in names:
                remove_from(evaluation_directory(self._run, number), name)
        except OSError as error:
            if not self._complained:
                log.warning("warning: an adapter cannot be removed: %s", error)
            self._complained = True
            return False
        return True
