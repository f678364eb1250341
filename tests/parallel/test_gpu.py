"""Which devices a worker gets, as tables of cases."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fractopt.parallel.gpu import (
    Device,
    assign,
    crowded,
    device_count,
    located,
    nvidia_devices,
    short,
    starved,
    unused,
    visible_devices,
)

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


# The workers only: the master, rank 0, is not asked what it sees, and is given nothing.
@pytest.mark.parametrize(
    ("nodes", "visible", "each", "expected"),
    [
        pytest.param("aaaa", [FOUR] * 4, 1, FOUR, id="one node, a device each"),
        pytest.param("aaaabbbb", [FOUR] * 8, 1, FOUR + FOUR, id="5 + 4 ranks, the master on the first node"),
        pytest.param("bbbb", [FOUR] * 4, 1, FOUR, id="1 + 4 ranks, the master alone on its node"),
        pytest.param("aaaaaaab", [FOUR] * 8, 1, [*FOUR, *"0120"], id="8 + 1 ranks: devices are shared"),
        pytest.param("abab", [FOUR] * 4, 1, [*"0011"], id="ranks dealt out by node"),
        pytest.param("aabbbb", [["0", "1"]] * 2 + [FOUR] * 4, 1, ["0", "1", *FOUR], id="2 + 4 devices"),
        pytest.param("aab", [["0"]] * 2 + [[]], 1, ["0", "0", ""], id="a node without devices"),
        pytest.param("aaa", [["0", "1"]] * 3, 1, ["0", "1", "0"], id="more workers than devices"),
        pytest.param("aa", [FOUR] * 2, 1, ["0", "1"], id="fewer workers than devices"),
        pytest.param("aa", [["2", "3"]] * 2, 1, ["2", "3"], id="CUDA_VISIBLE_DEVICES=2,3 in the job"),
        pytest.param("aaa", [["1"], ["2"], ["3"]], 1, ["1", "2", "3"], id="srun --gpus-per-task=1"),
        pytest.param("aaa", [["0"]] * 3, 1, ["0", "0", "0"], id="the same in a cgroup a task: 0 is its own"),
        pytest.param("aa", [["0", "1"], ["2", "3"]], 1, ["0", "2"], id="--gpus-per-task=2: the first"),
        pytest.param("aa", [["0"], []], 1, ["0", ""], id="one of two sees nothing"),
        pytest.param("aa", [["MIG-x", "GPU-y"]] * 2, 1, ["MIG-x", "GPU-y"], id="UUIDs, verbatim"),
        pytest.param("aa", [["07", "3"]] * 2, 1, ["07", "3"], id="never through int()"),
        pytest.param("aa", [[], []], 1, ["", ""], id="no device"),
        pytest.param("", [], 1, [], id="nobody"),
        pytest.param("aabb", [FOUR] * 4, 2, ["0,1", "2,3"] * 2, id="two devices each"),
        pytest.param(
            "aa", [["GPU-x", "MIG-y"]] * 2, 2, ["GPU-x,MIG-y"] * 2, id="two each, two there: shared"
        ),
        pytest.param("aa", [["0", "1", "2"]] * 2, 2, ["0,1", "0,1"], id="two each of three: never half"),
        pytest.param("a", [FOUR], 8, ["0,1,2,3"], id="fewer than asked for: all of them"),
        pytest.param("aa", [["0", "1"], ["2", "3"]], 2, ["0,1", "2,3"], id="--gpus-per-task=2, two each"),
        pytest.param("aa", [[], []], 2, ["", ""], id="two each of none"),
    ],
)
def test_assign(nodes: str, visible: list[list[str]], each: int, expected: list[str]) -> None:
    assert assign(nodes, visible, each) == expected


def test_devices_of_one_name_on_several_buses_are_several() -> None:
    """srun --gpus-per-task=1 where each task is confined to its own: all of them see a device 0."""
    nodes, visible = ["a/1"] * 3, [["0"]] * 3
    buses = [["0000:3b:00.0"], ["0000:af:00.0"], ["0000:af:00.0"]]
    devices = assign(nodes, visible, 1, buses)
    assert devices == ["0", "0", "0"]
    assert crowded(nodes, devices, buses) == ["2 workers share device 0 of node a"]
    assert crowded(nodes, devices, [["x"], ["y"], ["z"]]) == []
    assert assign(["a/1"] * 2, [["0", "1"]] * 2, 1, [["x", "y"]] * 2) == ["0", "1"]
    assert assign(["a/1"] * 2, [["0", "1"]] * 2, 1, [["x", "y"], ["z", "w"]]) == ["0", "0"]


def test_crowded_devices_are_named() -> None:
    nodes = ["a/1"] * 3 + ["b/2"]
    assert crowded(nodes, ["0", "1", "0", "0"]) == ["2 workers share device 0 of node a"]
    assert crowded(nodes, ["0,1", "2,3", "0,1", "0,1"]) == ["2 workers share device 0,1 of node a"]
    assert crowded(nodes, ["", "", "", ""]) == []


def test_devices_that_nobody_uses_are_named() -> None:
    eight = [str(index) for index in range(8)]
    nodes, visible = ["a/1"] * 7, [eight] * 7  # 8 ranks for 8 devices
    (sentence,) = unused(nodes, visible, assign(nodes, visible))
    assert sentence.startswith("no worker uses device 7 of node a, where 7 run")
    assert unused([*nodes, "a/1"], [eight] * 8, eight) == []
    (sentence,) = unused(["a/1", "b/2"], [["0"], FOUR], ["0", "0,1"])
    assert sentence.startswith("no worker uses device 2, 3 of node b")
    assert unused(["a/1"] * 2, [["0"], ["1"]], ["0", "1"]) == []  # each sees its own
    assert unused(["a/1"], [[]], [""]) == []


def test_a_single_core_beside_a_device_is_named_once_a_node() -> None:
    nodes = ["a/1", "a/1", "b/2", "c/3"]
    (sentence,) = starved(nodes, ["0", "1", "0", ""], [1, 1, 2, 1])
    assert sentence.startswith("a worker of node a has one core beside its device")
    assert starved(nodes, [""] * 4, [1] * 4) == []


def test_fewer_devices_than_a_worker_should_have_are_named() -> None:
    nodes = ["a/1", "a/1", "b/2", "c/3"]
    (sentence,) = short(nodes, ["0,1", "2,3", "0", ""], 2)
    assert sentence.startswith("a worker of node b has 1 of the 2 devices that it should have")
    assert short(nodes, ["0", "1", "0", ""], 1) == []


A, B = Device("GPU-aa11", "0000:3b:00.0", "0-15"), Device("GPU-ab22", "0000:af:00.0", "16-31")
NOWHERE = Device()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (["0", "1"], [A, B]),
        (["1"], [B]),
        (["2", "9" * 5000], [NOWHERE, NOWHERE]),
        (["GPU-ab22", "GPU-aa"], [B, A]),
        (["GPU-a"], [NOWHERE]),  # of two
        (["MIG-GPU-ab22/1/0"], [B]),
        (["MIG-5c7d"], [NOWHERE]),
        ([], []),
    ],
)
def test_located(visible: list[str], expected: list[Device]) -> None:
    assert located(visible, [A, B]) == expected
    assert located(visible, []) == [NOWHERE] * len(visible)


def test_devices_are_found_where_the_driver_says(tmp_path: Path) -> None:
    """As under NVIDIA's driver, of which two devices are to be had; the third one is another job's."""
    for number, (bus, uuid, cores) in enumerate(
        [
            ("0000:3b:00.0", "GPU-b", "0-15"),
            ("0000:1a:00.0", "GPU-a", "16-31"),
            ("0000:af:00.0", "GPU-c", "0"),
        ]
    ):
        place = tmp_path / "gpus" / bus
        place.mkdir(parents=True)
        (place / "information").write_text(
            f"Model: \t\t NVIDIA H100\nIRQ:   \t\t 64\nGPU UUID: \t {uuid}\nDevice Minor: \t {number}\n"
        )
        (tmp_path / "pci" / bus).mkdir(parents=True)
        (tmp_path / "pci" / bus / "local_cpulist").write_text(f"{cores}\n")
        if number < 2:
            (tmp_path / f"nvidia{number}").touch()
    found = nvidia_devices(tmp_path / "gpus", tmp_path / "pci", tmp_path)
    assert found == [Device("GPU-a", "0000:1a:00.0", "16-31"), Device("GPU-b", "0000:3b:00.0", "0-15")]
    assert nvidia_devices(tmp_path / "nothing") == []


def test_devices_are_counted_by_their_files(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm", "nvidia0.old"):
        (tmp_path / name).touch()
    assert device_count(tmp_path) == 3


CGROUPS = Path("/sys/fs/cgroup/devices")  # version 1, whose files a test can write without BPF


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A device cgroup of our own."""
    group = CGROUPS / f"fractopt-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no device cgroup can be made in {CGROUPS}: {error.strerror}")
    yield group
    group.rmdir()


def test_devices_of_other_jobs_are_not_counted(cgroup: Path, tmp_path: Path) -> None:
    try:
        for minor, name in ((3, "nvidia0"), (5, "nvidia1"), (5, "nvidia2")):  # /dev/null, /dev/zero
            os.mknod(tmp_path / name, 0o20666, os.makedev(1, minor))
    except PermissionError:
        pytest.skip("only root makes device files")
    (cgroup / "devices.deny").write_text("c 1:5 rwm")
    counted = (
        "import os, pathlib, sys; from fractopt.parallel.gpu import device_count;"
        "pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()));"
        "print(device_count(pathlib.Path(sys.argv[2])))"
    )
    inside = [sys.executable, "-c", counted, str(cgroup), str(tmp_path)]
    done = subprocess.run(inside, capture_output=True, text=True, check=True)
    assert (device_count(tmp_path), done.stdout.strip()) == (3, "1")
