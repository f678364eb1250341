"""Devices and cores together, and who gets none."""

from __future__ import annotations

from fractopt.parallel.message import Limits, Node, Setup
from fractopt.parallel.placement import here, place

FOUR, BUSES = ["0", "1", "2", "3"], ["1a", "3b", "86", "af"]
NEAR = ["0-7", "0-7", "8-15", "8-15"]


def nodes(count: int, name: str = "n1", first: int = 1) -> list[Node]:
    """Workers of a node of two sockets, with two devices on each."""
    return [Node(first + i, name, f"{name}/boot", FOUR, [*range(16)], BUSES, NEAR) for i in range(count)]


def setup(gpus_per_worker: int = 1, share_gpus: bool = True) -> Setup:
    return Setup({}, "", Limits(), gpus_per_worker=gpus_per_worker, share_gpus=share_gpus)


def test_each_worker_gets_a_device_and_cores_near_it() -> None:
    placement = place([*nodes(4), *nodes(4, "n2", 5)], setup())
    assert [(p.worker, p.device, p.threads, p.cores) for p in placement.places] == [
        (first + i, str(i), 4, [*range(4 * i, 4 * i + 4)]) for first in (1, 5) for i in range(4)
    ]
    assert (placement.refused, placement.remarks) == ([], [])


def test_two_devices_each() -> None:
    placement = place(nodes(2), setup(gpus_per_worker=2))
    assert [(p.device, p.cores) for p in placement.places] == [("0,1", [*range(8)]), ("2,3", [*range(8, 16)])]
    assert placement.remarks == []
    (remark,) = place(nodes(1), setup(gpus_per_worker=8)).remarks
    assert "has 4 of the 8 devices" in remark


def test_more_workers_than_devices_share_them_or_are_refused() -> None:
    shared = place(nodes(5), setup())
    assert [p.device for p in shared.places] == ["0", "1", "2", "3", "0"]
    assert "2 workers share device 0 of node n1" in shared.remarks
    assert shared.refused == []
    placement = place([*nodes(5), *nodes(4, "n2", 6)], setup(share_gpus=False))
    assert [(p.worker, p.device) for p in placement.places] == [
        *((i + 1, str(i)) for i in range(4)),
        *((i + 6, str(i)) for i in range(4)),
    ]
    assert [p.threads for p in placement.places] == [4] * 8  # nothing is kept for the one that does nothing
    (refusal,) = placement.refused
    assert (refusal.worker, "start 1 worker less" in refusal.message) == (5, True)
    assert placement.remarks == []


def test_without_devices_nobody_is_refused() -> None:
    bare = [Node(i, "n1", "n1/boot", [], [0, 1], [], []) for i in (1, 2, 3)]
    placement = place(bare, setup(gpus_per_worker=2, share_gpus=False))
    assert [(p.device, p.threads, p.cores) for p in placement.places] == [("", 1, [])] * 3
    assert (placement.refused, placement.remarks) == ([], [])


def test_what_another_node_says_of_its_cores_is_not_trusted() -> None:
    strange = [Node(1, "n1", "n1/boot", ["0"], [0, 1], ["1a"], ["no list of CPUs"])]
    assert place(strange, setup()).places[0].cores == [0, 1]


def test_this_node_speaks_for_itself() -> None:
    node = here(3)
    assert (node.worker, len(node.buses), len(node.near)) == (3, len(node.visible), len(node.visible))
    assert node.cores
