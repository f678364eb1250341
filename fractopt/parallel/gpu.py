"""Which accelerators each worker gets: pure functions of what the nodes offer.

Worked out from node names and device lists, not from the launcher's local ranks: under mpirun inside
SLURM every rank of a node has SLURM_LOCALID 0, Open MPI's local ranks are not in the order of the
ranks, and both count the master, which takes no device.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
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
    """How many NVIDIA devices this process may use, without loading a driver library.

    A scheduler that confines a job to its devices by a cgroup (OAR, and SLURM with ConstrainDevices)
    leaves the files of all devices in /dev. access(2) tells them apart: the kernel asks the device
    cgroup in the same place, inode_permission(), for access as for open, and for root too. CUDA numbers
    the devices that it can open from 0, so their count is all that is needed.
    """
    return sum(
        re.fullmatch(r"nvidia\d+", path.name) is not None and os.access(path, os.R_OK | os.W_OK)
        for path in directory.iterdir()
    )


def node_id() -> str:
    """Tells nodes apart, also where several simulated ones share a host, or two share a name."""
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{name}/{boot}"


@dataclass(frozen=True)
class Device:
    """An accelerator as a node knows it: on which bus, and which CPUs are near, as the kernel lists them."""

    uuid: str = ""
    bus: str = ""
    cores: str = ""


def nvidia_devices(
    driver: Path = Path("/proc/driver/nvidia/gpus"),
    pci: Path = Path("/sys/bus/pci/devices"),
    files: Path = Path("/dev"),
) -> list[Device]:
    """The NVIDIA devices that this process may use, in the order of their buses; none without the driver."""
    found = []
    try:
        places = sorted(driver.iterdir())
    except OSError:
        return []
    for place in places:
        try:
            told = dict(re.findall(r"^([^:\n]+):[ \t]*(.*)$", (place / "information").read_text(), re.M))
            cores = (pci / place.name / "local_cpulist").read_text().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if os.access(files / f"nvidia{told.get('Device Minor', '')}", os.R_OK | os.W_OK):
            found.append(Device(told.get("GPU UUID", ""), place.name, cores))
    return found


def located(visible: Sequence[str], devices: Sequence[Device]) -> list[Device]:
    """Which of `devices` each visible one is; an unknown one where that cannot be told.

    An index counts in the order of the buses: CUDA's own, unless the devices of a node are of several
    kinds. The newer names of MIG devices do not say on which they are.
    """
    unknown, found = Device(), []
    for token in visible:
        if token.isdigit():
            index = int(token[:9])
            found.append(devices[index] if index < len(devices) else unknown)
        else:
            uuid = token.removeprefix("MIG-").split("/")[0]
            named = [device for device in devices if device.uuid.startswith(uuid)]
            found.append(named[0] if len(named) == 1 else unknown)
    return found


def assign(
    nodes: Sequence[str],
    visible: Sequence[Sequence[str]],
    each: int = 1,
    buses: Sequence[Sequence[str]] = (),
) -> list[str]:
    """The `each` devices of every worker, joined by commas, "" for none: a CUDA_VISIBLE_DEVICES.

    Worked out from the node (n,) and the visible devices (n,) of each worker, the master not among them,
    and from the `buses` (n,) of these devices where they are known. The workers of a node, in order, take
    its devices in turn, `each` neighbours at a time; where fewer than `each` are left at the end of the
    list, they stay unused, and where the node has fewer, all of them are given. Where the lists differ, a
    scheduler has already given each worker its own, and it keeps the first `each` of its list.
    """
    devices = [""] * len(nodes)
    for workers in alike(nodes):
        shared = len({(tuple(visible[worker]), _at(buses, worker)) for worker in workers}) == 1
        for turn, worker in enumerate(workers):
            tokens = visible[worker]
            groups = max(1, len(tokens) // each)
            first = each * (turn % groups) if shared else 0
            devices[worker] = ",".join(tokens[first : first + each])
    return devices


def sharing(
    nodes: Sequence[str], devices: Sequence[str], buses: Sequence[Sequence[str]] = ()
) -> list[list[int]]:
    """The workers, two or more, that were given the same devices of the same node."""
    given = [
        (node, device, _at(buses, i)) for i, (node, device) in enumerate(zip(nodes, devices, strict=True))
    ]
    return [workers for workers in alike(given) if len(workers) > 1 and devices[workers[0]]]


def crowded(nodes: Sequence[str], devices: Sequence[str], buses: Sequence[Sequence[str]] = ()) -> list[str]:
    """One sentence per device, or group of them, that more than one worker of a node has been given."""
    return [
        f"{len(workers)} workers share device {devices[workers[0]]} of node {_name(nodes[workers[0]])}"
        for workers in sharing(nodes, devices, buses)
    ]


def short(nodes: Sequence[str], devices: Sequence[str], each: int) -> list[str]:
    """One sentence per node whose workers have devices, but fewer than `each`."""
    counts = {node: device.count(",") + 1 for node, device in zip(nodes, devices, strict=True) if device}
    return [
        f"a worker of node {_name(node)} has {count} of the {each} devices that it should have "
        "(workers.gpus_per_worker): there are no more"
        for node, count in counts.items()
        if count < each
    ]


def unused(nodes: Sequence[str], visible: Sequence[Sequence[str]], devices: Sequence[str]) -> list[str]:
    """One sentence per node of which devices are visible to its workers, but given to none of them.

    The classic case is a rank for each device, of which the master is one.
    """
    sentences = []
    for workers in alike(nodes):
        given = {token for worker in workers for token in devices[worker].split(",")}
        seen = dict.fromkeys(token for worker in workers for token in visible[worker])
        if idle := [token for token in seen if token not in given]:
            sentences.append(
                f"no worker uses device {', '.join(idle)} of node {_name(nodes[workers[0]])}, where "
                f"{len(workers)} run: start more (under mpirun a rank more than devices, for the master)"
            )
    return sentences


def starved(nodes: Sequence[str], devices: Sequence[str], threads: Sequence[int]) -> list[str]:
    """One sentence per node whose workers have a device, but a single core beside it."""
    return [
        f"a worker of node {_name(node)} has one core beside its device, which will wait for it: give the "
        "job more (--cpus-per-task of sbatch, more cores of a GPU in OAR)"
        for node in dict.fromkeys(
            node for node, device, cores in zip(nodes, devices, threads, strict=True) if device and cores == 1
        )
    ]


def _at(buses: Sequence[Sequence[str]], worker: int) -> tuple[str, ...]:
    """Where the devices that `worker` sees are: two called 0 may be two, each in a cgroup of its own."""
    return tuple(buses[worker]) if buses else ()


def _name(node: str) -> str:
    """A node as a user knows it, of what `node_id` says."""
    return node.split("/")[0]


def alike(items: Sequence[_Item]) -> list[list[int]]:
    """The indices of equal items, grouped, in order of appearance."""
    groups: dict[_Item, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item, []).append(index)
    return list(groups.values())
