"""Hostile input by the hundred thousand: every reader takes it or refuses it in words.

The inputs are valid ones damaged, byte by byte or in their structure, and each is a function of its number
(`python tests/fuzz/attack.py TARGET --show NUMBER`). Every target runs in a process of its own: a crash,
a hang, a leak and a file written elsewhere are breaches as much as a wrong exception is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from figure import Figure

sys.path.append(str(Path(__file__).resolve().parents[1] / "fuzz"))

from attack import Found, attack
from targets import TARGETS

FULL, SMALL = 100_000, 300
PROCESSES = 2


def prove(full: bool) -> Iterator[Figure]:
    """One figure a target."""

    def one(name: str) -> Found:
        return attack(name, FULL if full else SMALL)

    with ThreadPoolExecutor(PROCESSES) as pool:
        for name, found in zip(TARGETS, pool.map(one, TARGETS), strict=True):
            kinds = "".join(f"; {kind}, {text[:200]!r}" for kind, text in found.breaches.items())
            yield Figure(TARGETS[name].claim, found.tried, found.broken, found.seen() + kinds)
