"""Which accelerator and how many cores each worker gets: pure functions of what the nodes offer.

Worked out from node names and device lists, not from the launcher's local ranks: under mpirun inside
SLURM every rank of a node has SLURM_LOCALID 0, Open MPI's local ranks are not in the order of the
ranks, and both count the master, which takes no device.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

_Item = TypeVar("_Item", bound=Hashable)


def visible_devices(environ: Mapping[str, str], count: int) -> list[str]:
    """The accelerators to choose from, as CUDA_VISIBLE_DEVICES names them; without it, `count` of them.

    Tokens are handed on verbatim, an index as well as "GPU-..." and "MIG-...". As in CUDA, the first
    empty or invalid entry (such as -1) hides itself and all that follow.
    """
    text = environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return [str(index) for index in range(count)]
    tokens: list[str] = []
    for token in (part.strip() for part in text.split(",")):
        if not (token.isascii() and token.isdigit()) and not token.upper().startswith(("GPU-", "MIG-")):
            break
        tokens.append(token)
    return tokens


def device_count(directory: Path = Path("/dev")) -> int:
    """How many NVIDIA devices this machine has, without loading a driver library."""
    return len(list(directory.glob("nvidia[0-9]*")))


def node_id() -> str:
    """Tells nodes apart, also where several simulated ones share a host, or two share a name."""
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{name}/{boot}"


def usable_cores() -> list[int]:
    """The CPU cores this process may run on."""
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return list(range(os.cpu_count() or 1))


def assign(nodes: Sequence[str], visible: Sequence[Sequence[str]]) -> list[str]:
    """The device of each worker, "" for none, from the node (n,) and the visible devices (n,) of each.

    The workers of a node, in order, take its devices in turn. Where their lists differ, a scheduler
    has already given each its own, and each keeps the first of its list.
    """
    devices = [""] * len(nodes)
    for workers in _alike(nodes):
        shared = len({tuple(visible[worker]) for worker in workers}) == 1
        for turn, worker in enumerate(workers):
            tokens = visible[worker]
            if tokens:
                devices[worker] = tokens[turn % len(tokens) if shared else 0]
    return devices


def threads(nodes: Sequence[str], cores: Sequence[Sequence[int]]) -> list[int]:
    """The share of its node's cores of each worker, at least one, from the cores (n,) it may run on.

    Workers of a node that may use the same cores divide them; one bound to cores of its own has
    them alone.
    """
    shares = [1] * len(nodes)
    for workers in _alike([(node, tuple(own)) for node, own in zip(nodes, cores, strict=True)]):
        for worker in workers:
            shares[worker] = max(1, len(cores[worker]) // len(workers))
    return shares


def crowded(nodes: Sequence[str], devices: Sequence[str]) -> list[str]:
    """One sentence per device that more than one worker of a node has been given."""
    return [
        f"{len(workers)} workers share device {devices[workers[0]]} of node {nodes[workers[0]].split('/')[0]}"
        for workers in _alike(list(zip(nodes, devices, strict=True)))
        if len(workers) > 1 and devices[workers[0]]
    ]


def _alike(items: Sequence[_Item]) -> list[list[int]]:
    """The indices of equal items, grouped, in order of appearance."""
    groups: dict[_Item, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item, []).append(index)
    return list(groups.values())
