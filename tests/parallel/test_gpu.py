"""Which device and how many cores a worker gets, as tables of cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from fractopt.parallel.gpu import assign, crowded, device_count, threads, visible_devices

FOUR = ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        (None, 2, ["0", "1"]),
        (None, 0, []),
        ("", 4, []),
        ("2,3", 4, ["2", "3"]),
        (" 2 , 3", 4, ["2", "3"]),
        ("0,-1,2", 4, ["0"]),  # CUDA's rule: a negative entry hides all that follow
        ("0,,2", 4, ["0"]),
        ("-1", 4, []),
        ("NoDevFiles", 4, []),
        ("GPU-8932f937-d72c,MIG-a1", 4, ["GPU-8932f937-d72c", "MIG-a1"]),
        ("MIG-GPU-8932f937/1/0", 1, ["MIG-GPU-8932f937/1/0"]),
        ("07", 1, ["07"]),  # verbatim, never through int()
    ],
)
def test_visible_devices(text: str | None, count: int, expected: list[str]) -> None:
    environ = {} if text is None else {"CUDA_VISIBLE_DEVICES": text}
    assert visible_devices(environ, count) == expected


@pytest.mark.parametrize(
    ("nodes", "visible", "expected"),
    [
        pytest.param(["a"] * 4, [FOUR] * 4, FOUR, id="one node, a device each"),
        pytest.param(
            ["a"] * 4 + ["b"] * 4, [FOUR] * 8, FOUR + FOUR, id="5 + 4 ranks on two nodes of four devices"
        ),
        pytest.param(
            ["a"] * 7 + ["b"], [FOUR] * 8, ["0", "1", "2", "3", "0", "1", "2", "0"], id="8 + 1 ranks"
        ),
        pytest.param(["a", "b", "a", "b"], [FOUR] * 4, ["0", "0", "1", "1"], id="ranks dealt out by node"),
        pytest.param(["a"] * 3, [["1"], ["2"], ["3"]], ["1", "2", "3"], id="srun --gpus-per-task=1"),
        pytest.param(["a"] * 2, [["0", "1"], ["2", "3"]], ["0", "2"], id="--gpus-per-task=2: the first"),
        pytest.param(["a"] * 2, [["0"], []], ["0", ""], id="one of two sees nothing"),
        pytest.param(["a"] * 2, [["MIG-x", "GPU-y"]] * 2, ["MIG-x", "GPU-y"], id="UUIDs"),
        pytest.param(["a"] * 2, [[], []], ["", ""], id="no device"),
        pytest.param([], [], [], id="nobody"),
    ],
)
def test_assign(nodes: list[str], visible: list[list[str]], expected: list[str]) -> None:
    assert assign(nodes, visible) == expected


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


def test_crowded_devices_are_named() -> None:
    nodes = ["a/1"] * 3 + ["b/2"]
    assert crowded(nodes, ["0", "1", "0", "0"]) == ["2 workers share device 0 of node a"]
    assert crowded(nodes, ["", "", "", ""]) == []


def test_devices_are_counted_by_their_files(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert device_count(tmp_path) == 2
