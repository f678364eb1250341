"""A search that dies anywhere and is read back from its journal proposes the same points, bit for bit.

For every registered optimizer runs of random lengths, seeds and numbers of workers, through a real archive
with a commit wherever a coin says so. The journal is then cut at a random byte within a decision, the search
is folded from what is left, asked again, and compared with what the uninterrupted one did.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from figure import Figure

from fractopt import durable
from fractopt.archive import journal
from fractopt.archive.manifest import Manifest
from fractopt.archive.store import Archive, load
from fractopt.optimizer import registry
from fractopt.optimizer.study import Study
from fractopt.space import Float, Int, Ordinal, Space
from fractopt.trial import Asked, Outcome, Recorded, Status, Trial, event_to_json

SPACE = Space(Float("rate", 1e-5, 1e-1, log=True), Int("rank", 2, 64), Ordinal("batch", (16, 32, 64)))
POINTS_A_RUN = 5


@dataclass(frozen=True)
class Call:
    """An `ask` for `n` trials: the sizes of the segment before and after, and its events as JSON."""

    n: int
    start: int
    end: int
    events: tuple[str, ...]


def prove(full: bool) -> Iterator[Figure]:
    points = 200 if full else 5
    for name in registry.OPTIMIZERS:
        tried, broken, seed = 0, [], 0
        while tried < points:
            seed += 1
            with tempfile.TemporaryDirectory() as folder:
                for text in crash_points(name, random.Random(f"{name} {seed}"), Path(folder)):
                    tried += 1
                    broken += [f"run {seed}: {text}"] if text else []
        claim = f"{name}: after a crash the same next points, bit for bit"
        yield Figure(claim, tried, len(broken), "; ".join(broken[:1]))


def crash_points(name: str, rng: random.Random, folder: Path) -> Iterator[str]:
    """What is wrong at each of up to POINTS_A_RUN random bytes of a random run; "" where nothing is."""
    budget, workers, seed = rng.randrange(4, 40), rng.randrange(1, 9), rng.randrange(10**6)
    # What survives a power loss is proved elsewhere.
    with mock.patch.object(durable.os, "fsync"), mock.patch.object(journal.os, "fdatasync"):
        calls = played(name, rng, folder / "whole", budget, workers, seed)
        for point in range(POINTS_A_RUN):
            call = rng.choice(calls)
            cut = rng.randrange(call.start, call.end)
            text = resumed(name, call, cut, folder / "whole", folder / f"cut{point}", budget, seed)
            if text is not None:
                yield text


def played(
    name: str, rng: random.Random, directory: Path, budget: int, workers: int, seed: int
) -> list[Call]:
    """A run to its end, one trial in ten failing, ended in random order; its calls that decided something."""
    archive = Archive.create(directory, manifest(name, seed), "", {})
    path = directory / "journal" / "0001.wal"
    events: list[Recorded] = []

    def record(event: Recorded) -> None:
        events.append(event)
        archive.record(event)
        if rng.random() < 0.5:
            archive.commit()

    study = Study(SPACE, name, budget, seed=seed, record=record)
    calls = []
    while True:
        archive.commit()
        start, first, n = path.stat().st_size, len(events), workers - len(study.running)
        if n:
            study.ask(n)
            archive.commit()
        if len(events) > first:
            calls.append(Call(n, start, path.stat().st_size, tuple(map(as_json, events[first:]))))
        if study.finished:
            break
        trial = rng.choice(study.running)
        study.tell(trial, Outcome(Status.FAILED) if rng.random() < 0.1 else Outcome.of(loss(trial)))
    archive.close(complete=True, reason="")
    return calls


def resumed(
    name: str, call: Call, cut: int, whole: Path, directory: Path, budget: int, seed: int
) -> str | None:
    """What the search does that is folded from the journal's first `cut` bytes, where it is not the same.

    None where all new points had been proposed: nobody would ask again.
    """
    (directory / "journal").mkdir(parents=True)
    data = (whole / "journal" / "0001.wal").read_bytes()
    (directory / "journal" / "0001.wal").write_bytes(data[:cut])
    before = load(directory).events
    within = [as_json(event) for event in before][-len(call.events) :]
    done = next(
        k for k in range(len(call.events), -1, -1) if tuple(within[len(within) - k :]) == call.events[:k]
    )
    room = call.n - sum(new_trials(text) for text in call.events[:done])
    if room <= 0:
        return None
    archive = Archive.resume(directory, manifest(name, seed), "", {})
    again: list[str] = []

    def record(event: Recorded) -> None:
        again.append(as_json(event))
        archive.record(event)

    study = Study(SPACE, name, budget, seed=seed, record=record)
    study.fold(archive.history.events)
    study.ask(room)
    archive.abandon()
    shutil.rmtree(directory)
    if tuple(again) == call.events[done:]:
        return ""
    return f"cut at byte {cut}, {len(before)} events: {again} instead of {call.events[done:]}"


def loss(trial: Trial) -> float:
    assert trial.unit is not None
    return sum((i + 1) * (u - 0.3) ** 2 for i, u in enumerate(trial.unit))


def as_json(event: Recorded) -> str:
    return json.dumps(event_to_json(event))


def new_trials(text: str) -> int:
    event = json.loads(text)
    return sum(of < 0 for of in event["of"]) if event["event"] == Asked.type else 0


def manifest(name: str, seed: int) -> Manifest:
    return Manifest(
        space=SPACE.as_dict(),
        optimizer=name,
        optimizer_version=registry.find(name).version,
        optimizer_settings={},
        seed=seed,
        direction="minimize",
        anchors=(),
        default=None,
        objective={"kind": "synthetic", "function": "sphere"},
        metric="value",
    )
