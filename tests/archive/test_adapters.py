"""The adapters of the best evaluations stay, the others go, and nothing is removed or read through a link."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
import runs

from fractopt.archive.adapters import FILE, MARGIN, Adapters, keep_adapter, read_adapter
from fractopt.archive.history import History
from fractopt.archive.result import evaluation_directory, make_evaluation_directory
from fractopt.archive.store import load
from fractopt.trial import Kind

BUDGET = 26  # evaluations: the anchors 0 and 1, and 24 configurations, of which every fifth fails


@pytest.fixture
def run(tmp_path: Path) -> Path:
    archive = runs.create(tmp_path / "r")
    runs.run_out(archive, budget=BUDGET)
    archive.close(complete=True, reason="the budget is met")
    return tmp_path / "r"


@pytest.fixture
def history(run: Path) -> History:
    return load(run)


def keep(run: Path, numbers: Iterable[int]) -> None:
    for number in numbers:
        keep_adapter(make_evaluation_directory(run, number), b"weights of %d" % number)


def kept(run: Path) -> set[int]:
    return {int(path.parent.name) for path in run.glob(f"evals/*/{FILE}")}


def best(history: History, among: Iterable[int], count: int) -> set[int]:
    rows = [history.rows[number] for number in among if history.rows[number].kind is not Kind.BASE]
    return {row.id for row in history.ranked(rows)[:count]}


def test_what_is_kept_is_read_again(run: Path) -> None:
    place = make_evaluation_directory(run, 3)
    assert read_adapter(place) is None
    for data in (b"first", b"second"):
        keep_adapter(place, data)
        assert read_adapter(place) == data
    assert [path.name for path in place.iterdir()] == [FILE]


@pytest.mark.parametrize("count", [1, 3])
def test_in_the_end_the_best_stay(run: Path, history: History, count: int) -> None:
    keep(run, range(BUDGET))
    adapters = Adapters(run, history, count, 0)
    adapters.take_up()
    adapters.prune(over=True)
    assert kept(run) == best(history, range(BUDGET), count)


def test_what_has_no_file_takes_nobodys_place(run: Path, history: History) -> None:
    lost = best(history, range(BUDGET), 2)
    left = set(range(BUDGET)) - lost
    keep(run, left)
    adapters = Adapters(run, history, 3, 0)
    adapters.take_up()
    adapters.prune(over=True)
    assert kept(run) == best(history, left, 3)


def test_the_recommended_one_stays_beside_the_best(run: Path, history: History) -> None:
    worst = history.ranked(row for row in history.evaluations if row.kind is Kind.SEARCH)[-1]
    history.recommended = {"trial": worst.id}
    keep(run, range(BUDGET))
    adapters = Adapters(run, history, 2, 0)
    adapters.take_up()
    adapters.prune(over=True)
    assert kept(run) == best(history, range(BUDGET), 2) | {worst.id}


@pytest.mark.parametrize(("count", "tested"), [(2, 0), (1, 3)])
def test_while_the_search_goes_on_stays_what_may_still_be_wanted(
    run: Path, history: History, count: int, tested: int
) -> None:
    keep(run, range(BUDGET))
    adapters = Adapters(run, history, count, tested)
    adapters.take_up()
    adapters.prune(over=False)
    default = {1} if tested else set()
    assert kept(run) == best(history, range(BUDGET), MARGIN * max(count, tested)) | default
    history.rows[7].outcome = None  # as where it is under way again
    keep(run, [7])
    for number in range(BUDGET):
        adapters.add(number)
    adapters.prune(over=True)
    assert kept(run) == best(history, range(BUDGET), count) | {7}


def test_none_is_none(run: Path, history: History) -> None:
    keep(run, [2, 3])
    adapters = Adapters(run, history, 0, 0)
    adapters.take_up()
    assert not adapters.wanted(Kind.SEARCH)
    adapters.prune(over=True)
    assert kept(run) == set()
    assert Adapters(run, history, 1, 0).wanted(Kind.DEFAULT)
    assert not any(Adapters(run, history, 1, 0).wanted(kind) for kind in (Kind.BASE, Kind.CONFIRM))


def test_a_run_whose_objective_makes_none_touches_nothing(run: Path, history: History) -> None:
    keep(run, [2])
    adapters = Adapters(run, history, None, 0)
    adapters.take_up()
    adapters.add(2)
    adapters.prune(over=True)
    assert kept(run) == {2}


def test_what_a_killed_evaluation_left_half_written_is_removed(run: Path, history: History) -> None:
    place = make_evaluation_directory(run, 2)
    (place / f".{FILE}.0123456789abcdef.tmp").write_bytes(b"wei")
    (place / ".other.tmp").write_bytes(b"not ours to remove")
    Adapters(run, history, 1, 0).take_up()
    assert [path.name for path in place.iterdir()] == [".other.tmp"]


def test_links_lead_nowhere(
    run: Path, history: History, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / FILE).write_bytes(b"precious")
    keep(run, range(BUDGET))
    worst, second = (row.id for row in history.ranked(history.evaluations)[:-3:-1])
    place = evaluation_directory(run, worst)
    place.rename(run / "moved")
    place.symlink_to(outside)
    link = evaluation_directory(run, second) / FILE
    link.unlink()
    link.symlink_to(outside / FILE)
    with pytest.raises(OSError, match="a link, where a run has a directory"):
        read_adapter(place)
    with pytest.raises(OSError, match="symbolic link"):
        read_adapter(link.parent)
    adapters = Adapters(run, history, 1, 0)
    adapters.take_up()
    adapters.add(worst)
    with caplog.at_level(logging.WARNING):
        adapters.prune(over=True)
    assert (outside / FILE).read_bytes() == b"precious"
    assert not os.path.lexists(link)
    assert "an adapter cannot be removed" in caplog.text
    keep_adapter(link.parent, b"new")
    assert (outside / FILE).read_bytes() == b"precious"
