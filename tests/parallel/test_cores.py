"""Which cores a worker gets, as tables of cases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from fractopt.parallel.cores import listed, share, threads, usable, written

SOCKETS = [*range(16), *range(16, 32)]
LEFT, RIGHT = set(range(16)), set(range(16, 32))


@pytest.mark.parametrize(
    ("nodes", "cores", "expected"),
    [
        pytest.param(["a"] * 4, [range(16)] * 4, [4] * 4, id="a shared node"),
        pytest.param(["a"] * 3, [range(16)] * 3, [5] * 3, id="rounded down"),
        pytest.param(["a"] * 8, [range(2)] * 8, [1] * 8, id="at least one"),
        pytest.param(["a"] * 2, [range(8), range(8, 16)], [8, 8], id="each bound to cores of its own"),
        pytest.param(["a", "b", "b"], [range(8)] * 3, [8, 4, 4], id="nodes are counted apart"),
    ],
)
def test_threads(nodes: list[str], cores: list[range], expected: list[int]) -> None:
    assert threads(nodes, cores) == expected


def spans(*texts: str) -> list[list[int]]:
    return [listed(text) for text in texts]


@pytest.mark.parametrize(
    ("nodes", "cores", "near", "expected"),
    [
        pytest.param(
            "aaaa", [range(16)] * 4, [()] * 4, spans("0-3", "4-7", "8-11", "12-15"), id="nothing known"
        ),
        pytest.param(
            "aa", [SOCKETS] * 2, [RIGHT, LEFT], spans("16-31", "0-15"), id="a device on each socket"
        ),
        pytest.param(
            "aaaa",
            [SOCKETS] * 4,
            [LEFT, LEFT, RIGHT, RIGHT],
            spans("0-7", "8-15", "16-23", "24-31"),
            id="two each",
        ),
        pytest.param(
            "aa",
            [SOCKETS] * 2,
            [LEFT, LEFT],
            spans("0-7,16-23", "8-15,24-31"),
            id="both on one: half of each socket",
        ),
        pytest.param(
            "aaa",
            [SOCKETS] * 3,
            [LEFT, LEFT, ()],
            spans("0-7,16-17", "8-15,18-19", "20-29"),
            id="one without",
        ),
        pytest.param("aa", [range(4)] * 2, [RIGHT, RIGHT], spans("0-1", "2-3"), id="near cores are not ours"),
        pytest.param("aaa", [range(2)] * 3, [()] * 3, [[]] * 3, id="more workers than cores: not bound"),
        pytest.param(
            "aa", [range(8), range(8, 16)], [(), ()], spans("0-7", "8-15"), id="bound by the launcher"
        ),
        pytest.param(
            "ab", [SOCKETS] * 2, [LEFT, LEFT], [SOCKETS, SOCKETS], id="alone on its node: all of it"
        ),
        pytest.param("aaa", [range(16)] * 3, [()] * 3, spans("0-4", "5-9", "10-14"), id="one is left over"),
        pytest.param(
            "aa",
            [[0, 4, 1, 5, 2, 6, 3, 7]] * 2,
            [()] * 2,
            [[0, 4, 1, 5], [2, 6, 3, 7]],
            id="hyperthreads together",
        ),
        pytest.param(
            "aa",
            [range(8)] * 2,
            [set(range(6)), set(range(2, 8))],
            spans("0-3", "4-7"),
            id="domains that overlap",
        ),
        pytest.param("", [], [], [], id="nobody"),
    ],
)
def test_share(
    nodes: str, cores: list[Sequence[int]], near: list[set[int]], expected: list[list[int]]
) -> None:
    found = share([*nodes], cores, near)
    assert found == expected
    if nodes and all(len(own) >= len(nodes) for own in cores):
        assert [len(one) for one in found] == threads([*nodes], cores)


@pytest.mark.parametrize("text", ["0-3,8,10-11", "5", ""])
def test_a_list_of_cpus(text: str) -> None:
    assert written(listed(text)) == text
    assert listed(f"{text}\n") == listed(text)


@pytest.mark.parametrize("text", ["3-1", "a", "-1", "1-", "0-99999999", "1--2"])
def test_what_is_no_list_of_cpus(text: str) -> None:
    with pytest.raises(ValueError):
        listed(text)


def test_hyperthreads_stand_side_by_side(tmp_path: Path) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    assert usable(tmp_path) == allowed  # nothing is known of them
    first, *_, last = allowed
    if first == last:
        pytest.skip("one CPU has no sibling")
    siblings = tmp_path / f"cpu{last}" / "topology" / "thread_siblings_list"
    siblings.parent.mkdir(parents=True)
    siblings.write_text(f"{first},{last}\n")
    assert usable(tmp_path) == [first, last, *allowed[1:-1]]
