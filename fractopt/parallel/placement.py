"""Where each worker runs: its devices and its cores, worked out from what every node said of itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from fractopt.parallel import cores, gpu
from fractopt.parallel.message import Node, Place, Setup, Unusable


@dataclass(frozen=True)
class Placement:
    """A place for each worker that is not `refused`; `remarks` are sentences for the log."""

    places: list[Place]
    refused: list[Unusable]
    remarks: list[str]


def place(nodes: Sequence[Node], setup: Setup) -> Placement:
    """The places of the workers (n,), the master not among them."""
    names, visible = [node.node for node in nodes], [node.visible for node in nodes]
    buses = [node.buses for node in nodes]
    devices = gpu.assign(names, visible, setup.gpus_per_worker, buses)
    refused: list[Unusable] = []
    if not setup.share_gpus:
        surplus = {worker for _, *others in gpu.sharing(names, devices, buses) for worker in others}
        refused = [
            Unusable(
                nodes[worker].worker,
                f"no device of node {nodes[worker].host} is left for it, and workers.share_gpus is false: "
                f"start {len(surplus)} {'worker' if len(surplus) == 1 else 'workers'} less, or allow it",
            )
            for worker in sorted(surplus)
        ]
        kept = [worker for worker in range(len(nodes)) if worker not in surplus]
        nodes, devices = [nodes[worker] for worker in kept], [devices[worker] for worker in kept]
        names, visible = [node.node for node in nodes], [node.visible for node in nodes]
        buses = [node.buses for node in nodes]
    usable = [node.cores for node in nodes]
    threads = cores.threads(names, usable)
    shares = cores.share(
        names, usable, [_near(node, device) for node, device in zip(nodes, devices, strict=True)]
    )
    places = [
        Place(node.worker, device, count, share)
        for node, device, count, share in zip(nodes, devices, threads, shares, strict=True)
    ]
    remarks = [
        *gpu.crowded(names, devices, buses),
        *gpu.short(names, devices, setup.gpus_per_worker),
        *gpu.unused(names, visible, devices),
        *gpu.starved(names, devices, threads),
    ]
    return Placement(places, refused, remarks)


def here(worker: int) -> Node:
    """What this node says of itself, for a worker that runs on it."""
    visible = gpu.visible_devices(os.environ, gpu.device_count())
    found = gpu.located(visible, gpu.nvidia_devices())
    return Node(
        worker,
        socket.gethostname(),
        gpu.node_id(),
        visible,
        cores.usable(),
        [device.bus for device in found],
        [device.cores for device in found],
    )


def _near(node: Node, device: str) -> set[int]:
    """The CPUs near the devices that a worker was given; none where that is not known."""
    given = device.split(",") if device else []
    near: set[int] = set()
    for token, text in zip(node.visible, node.near, strict=False):
        if token in given:
            try:
                near.update(cores.listed(text))
            except ValueError:  # what another node's kernel wrote is taken for no more than advice
                continue
    return near
