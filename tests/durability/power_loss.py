"""A power loss at any moment of a run: what was synced is there, of the rest any part, in any order.

The recorded run of `syscalls` up to a random call, laid out by the model of `disk`; now and then the run
is resumed from there to the end.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from disk import Disk, breach, told_by
from figure import Figure
from syscalls import killed_and_resumed, resumes


def prove(full: bool) -> Iterator[Figure]:
    budget, samples, resumed_every = (60, 1000, 25) if full else (12, 60, 20)
    broken: list[str] = []
    unresumed: list[str] = []
    resumed = 0
    with tempfile.TemporaryDirectory() as name:
        calls = killed_and_resumed(Path(name), budget)
        for sample in range(samples):
            rng = random.Random(sample)
            number = rng.randrange(len(calls) + 1)
            with tempfile.TemporaryDirectory(dir=name) as root:
                Disk(calls[:number]).lose_power(Path(root), rng)
                text = breach(Path(root) / "runs" / "r", told_by(calls, number))
                broken += [f"sample {sample}, before call {number}: {text}"] if text else []
                if sample % resumed_every == 0:
                    resumed += 1
                    text = resumes(Path(root), budget)
                    unresumed += [f"sample {sample}, before call {number}: {text}"] if text else []
    yield Figure(
        "power lost: readable, nothing acknowledged lost",
        samples,
        len(broken),
        "; ".join([f"{budget} evaluations, three masters, {len(calls)} calls", *broken[:1]]),
    )
    yield Figure("and resumed there: to the end", resumed, len(unresumed), "; ".join(unresumed[:1]))
