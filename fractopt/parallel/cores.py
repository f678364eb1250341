"""Which CPU cores each worker gets: its share of its node's, near its accelerator where that is known.

On a node of several sockets an accelerator hangs on one of them; data that cross to it from the other are
slower, and so is a process that the kernel moves to and fro.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from fractopt.parallel.gpu import alike

CPUS = Path("/sys/devices/system/cpu")
MOST = 1 << 16  # CPUs of a node


def usable(cpus: Path = CPUS) -> list[int]:
    """The CPUs that this process may run on, hyperthreads of one core side by side."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return list(range(os.cpu_count() or 1))
    return sorted(allowed, key=lambda cpu: (_first_sibling(cpus / f"cpu{cpu}", cpu), cpu))


def _first_sibling(directory: Path, cpu: int) -> int:
    try:
        return min(listed((directory / "topology" / "thread_siblings_list").read_text()), default=cpu)
    except (OSError, ValueError):
        return cpu


def listed(text: str) -> list[int]:
    """The CPUs of a list as the kernel writes it, such as "0-3,8"; raises ValueError where it is none."""
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        begin, end = int(first), int(last) if dash else int(first)
        if not 0 <= begin <= end < MOST:
            raise ValueError(f"expected CPUs such as 0-3,8, got {text[:80]!r}")
        found += range(begin, end + 1)
    return found


def written(cpus: Collection[int]) -> str:
    """The inverse of `listed`."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1][1:] = [cpu]
        else:
            runs.append([cpu])
    return ",".join("-".join(map(str, run)) for run in runs)


def threads(nodes: Sequence[str], cores: Sequence[Sequence[int]]) -> list[int]:
    """How many of its node's cores each worker may compute on, at least one, of the cores (n,) it may use.

    Workers of a node that may use the same cores divide them; one bound to cores of its own has them
    alone.
    """
    counts = [1] * len(nodes)
    for workers in _together(nodes, cores):
        for worker in workers:
            counts[worker] = max(1, len(cores[worker]) // len(workers))
    return counts


def share(
    nodes: Sequence[str], cores: Sequence[Sequence[int]], near: Sequence[Collection[int]]
) -> list[list[int]]:
    """Which cores these are, in the order in which they were given; `near` (n,) those near its device.

    Workers with the same cores near them divide these first; what a worker lacks then, it gets from those
    that are left. Where there are more workers than cores none is bound to any: [].
    """
    shares: list[list[int]] = [[] for _ in nodes]
    for workers in _together(nodes, cores):
        free = list(cores[workers[0]])
        size = len(free) // len(workers)
        if not size:
            continue
        for neighbours in alike([frozenset(near[worker]) for worker in workers]):
            close = [core for core in free if core in near[workers[neighbours[0]]]]
            each = min(size, len(close) // len(neighbours))
            for turn, neighbour in enumerate(neighbours):
                shares[workers[neighbour]] = close[turn * each : (turn + 1) * each]
            given = set(close[: each * len(neighbours)])
            free = [core for core in free if core not in given]
        for worker in workers:
            lacking = size - len(shares[worker])
            shares[worker] += free[:lacking]
            del free[:lacking]
    return shares


def _together(nodes: Sequence[str], cores: Sequence[Sequence[int]]) -> list[list[int]]:
    """The workers (their indices) that may use the same cores of the same node."""
    return alike([(node, tuple(own)) for node, own in zip(nodes, cores, strict=True)])
