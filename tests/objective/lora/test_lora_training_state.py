"""A fine-tune that is cut off goes on: equal to the uninterrupted one bit for bit, or from the start."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fractopt.archive.result import evaluation_directory
from fractopt.objective.base import CHECKPOINT, Evaluation, silent
from fractopt.objective.lora.curve import read_curve
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Train
from fractopt.trial import Kind, Outcome, Status

pytestmark = pytest.mark.llm

POINT = {
    "learning_rate": 1e-2, "lora_rank": 8, "lora_alpha": 16, "lora_dropout": 0.2, "global_batch": 8,
    "max_steps": 8, "lora_plus_ratio": 2.0,
}  # fmt: skip
STEPS = 8


@pytest.fixture(scope="module", params=["bucketed", "litgpt"])
def tune(request: pytest.FixtureRequest, objective: Any) -> Any:
    """Fine-tunes of eight steps on the objective's model: (losses, adapters, progress) of each."""
    return Tune(objective, request.param)


class Tune:
    def __init__(self, objective: Any, batching: str = "bucketed") -> None:
        from fractopt.objective.lora.train import Trainer
        from fractopt.objective.lora.training_state import TrainingStates

        self.objective = objective
        self.settings = dataclasses.replace(
            objective.settings, train=Train(batching=batching, micro_batch=4, checkpoint_every=1e-6)
        )
        samples = objective._trainer._samples
        self.trainer = Trainer(objective._base, samples, self.settings.train, time.perf_counter)
        self.states = TrainingStates(self.settings, objective._base, samples)
        self.whole = self()

    def state(self, directory: Path, seed: int = 3, trial: int = 1, **params: Any) -> Any:
        from fractopt.objective.lora.meter import Meter

        point = self.settings.train.hyperparameters(POINT | params)
        meter = Meter(self.objective._base.device, time.perf_counter)
        return self.states.of(
            Evaluation(trial, Kind.SEARCH, POINT, seed, directory=directory), point, seed, meter
        )

    def __call__(self, state: Any = None, seed: int = 3, report: Any = silent, **params: Any) -> Any:
        point = self.settings.train.hyperparameters(POINT | params)
        tuned = self.trainer(point, seed, report, state)
        weights = {n: w.detach().clone() for n, w in tuned.model.named_parameters() if w.requires_grad}
        return tuned.progress, weights

    def cut_off(self, step: int, directory: Path, number: int = signal.SIGKILL) -> int:
        """Train in a process that sends itself the signal during `step`; its exit status."""
        child = os.fork()
        if not child:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

            def stop(phase: str, done: int = 0, total: int = 0, loss: float | None = None) -> None:
                if done == step:
                    os.kill(os.getpid(), number)

            try:
                self(self.state(directory), report=stop)
            finally:
                os._exit(99)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def begins_at(self, directory: Path, expected: Any, **state: Any) -> int:
        """The step that a fine-tune begins at, which in the end must equal `expected`."""
        import torch

        steps: list[int] = []

        def note(phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
            if phase == "train":
                steps.append(step)

        params = {name: value for name, value in state.items() if name not in ("trial", "seed")}
        progress, weights = self(self.state(directory, **state), state.get("seed", 3), note, **params)
        assert progress.losses == expected[0].losses
        assert weights.keys() == expected[1].keys()
        assert all(torch.equal(weight, expected[1][name]) for name, weight in weights.items())
        assert (progress.tokens, progress.padding) == (expected[0].tokens, expected[0].padding)
        return steps[0] - 1 if steps else STEPS


def test_a_fine_tune_that_is_killed_goes_on_to_the_bit(tune: Tune, tmp_path: Path) -> None:
    rng = random.Random(tune.settings.train.batching)
    begun = 0
    for step in sorted(rng.sample(range(2, STEPS + 1), 3)):  # killed again and again, ever later
        assert tune.cut_off(step, tmp_path) == -signal.SIGKILL
        assert [entry.name for entry in tmp_path.iterdir()] == [CHECKPOINT]
        begun = step
    assert tune.begins_at(tmp_path, tune.whole) == begun - 1  # saved after the step before
    assert tune.begins_at(tmp_path, tune.whole) == STEPS  # all done: only the scoring is left


def test_one_that_is_asked_to_stop_ends_its_step_and_saves_it(tune: Tune, tmp_path: Path) -> None:
    for step in (3, 6):
        rarely = dataclasses.replace(tune.settings.train, checkpoint_every="1h")
        tune.states._every_s, kept = rarely.checkpoint_every_s, tune.states._every_s
        assert tune.cut_off(step, tmp_path, signal.SIGTERM) == -signal.SIGTERM
        tune.states._every_s = kept
        assert tune.begins_at(tmp_path, tune.whole) == step
        (tmp_path / CHECKPOINT).unlink()


def test_a_handler_of_others_is_there_again_and_called(tune: Tune, tmp_path: Path) -> None:
    class Called(Exception):
        pass

    def handler(*_: Any) -> None:
        raise Called

    def stop(phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(Called):
            tune(tune.state(tmp_path), report=stop)
        assert signal.getsignal(signal.SIGTERM) is handler
        tune(tune.state(tmp_path))
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / CHECKPOINT).exists()


def test_what_was_spent_is_counted_once(tune: Tune, tmp_path: Path) -> None:
    assert tune.cut_off(5, tmp_path) == -signal.SIGKILL
    state = tune.state(tmp_path)
    point = tune.settings.train.hyperparameters(POINT)
    from fractopt.objective.lora.train import _optimizer

    model = tune.objective._base.with_adapters(point, 3)
    progress = state.take_up(model, _optimizer(model, point), STEPS)
    earlier = state._meter._spent["seconds"]
    assert 0.0 < progress.seconds <= earlier
    again = state.take_up(model, _optimizer(model, point), STEPS)  # as after running out of memory
    assert again.seconds == progress.seconds
    assert state._meter._spent["seconds"] == earlier


# --- what is not gone on from


@pytest.fixture(scope="module")
def saved(objective: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tune, bytes]:
    tune = Tune(objective)
    place = tmp_path_factory.mktemp("saved")
    assert tune.cut_off(6, place) == -signal.SIGKILL
    return tune, (place / CHECKPOINT).read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 4}, "it has another seed"),
        ({"trial": 2}, "it has another trial"),
        ({"learning_rate": 2e-2}, "it has another hyperparameters.learning_rate"),
        ({"lora_rank": 4}, "it has another hyperparameters.lora_rank"),
        ({"lora_rank": 64}, "it has another hyperparameters.lora_rank"),
    ],
)
def test_another_fine_tunes_state_is_not(
    saved: tuple[Tune, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, says: str
) -> None:
    tune, data = saved
    (tmp_path / CHECKPOINT).write_bytes(data)
    params = {name: value for name, value in change.items() if name not in ("seed", "trial")}
    fresh = tune(None, change.get("seed", 3), **params)
    assert tune.begins_at(tmp_path, fresh, **change) == 0
    said = capsys.readouterr().err
    assert f"{CHECKPOINT} is not gone on from, the training starts again: {says}" in said


def test_nor_one_of_other_data_settings_or_packages(
    saved: tuple[Tune, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fractopt.objective.lora import training_state

    tune, data = saved
    (tmp_path / CHECKPOINT).write_bytes(data)
    point = tune.settings.train.hyperparameters(POINT)
    model = tune.objective._base.with_adapters(point, 3)

    def refusal() -> str:
        with pytest.raises(ValueError) as error:
            tune.state(tmp_path)._take_up(model, None, STEPS)
        return str(error.value)

    with monkeypatch.context() as patch:
        patch.setattr(training_state, "version", lambda name: "0")
        assert refusal() == "it has another made by.fractopt, made by.torch, made by.litgpt"
    with monkeypatch.context() as patch:
        patch.setattr(tune.states._samples, "digest", "other")
        assert refusal() == "it has another samples"
    with monkeypatch.context() as patch:
        other = dataclasses.replace(tune.settings, data=dataclasses.replace(tune.settings.data, split_seed=1))
        patch.setattr(tune.states._origin, "_settings", other)
        assert refusal() == "it has another data.split_seed"
    with monkeypatch.context() as patch:
        patch.setattr(tune.states._origin, "_base_digest", "other")
        assert refusal() == "it has another base"


def signed(payload: bytes) -> bytes:
    import hashlib

    from fractopt.objective.lora.training_state import MAGIC

    return MAGIC + hashlib.sha256(payload).digest() + payload


def changed(data: bytes, **parts: Any) -> bytes:
    """The state with other parts, rightly signed: what a fault cannot make, but a stranger can."""
    import io

    import torch

    from fractopt.objective.lora.training_state import _decoded

    stream = io.BytesIO()
    torch.save(_decoded(data, len(data)) | parts, stream)
    return signed(stream.getvalue())


def test_a_damaged_or_hostile_file_costs_the_training_and_no_more(
    saved: tuple[Tune, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import io
    import pickle
    import zipfile

    import torch

    tune, data = saved
    rng = random.Random(1)
    flips = []
    for _ in range(20):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        flips.append(bytes(flipped))

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'run'}",)

    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(1 << 26))
    evil = io.BytesIO()
    torch.save({"origin": Evil()}, evil)
    from fractopt.objective.lora.training_state import _decoded

    state = _decoded(data, len(data))
    name = next(iter(state["adapters"]))
    weights = state["adapters"] | {name: torch.zeros(3)}
    huge = state["adapters"] | {name: torch.zeros(1).expand(1 << 40)}
    cases = [
        *(data[:n] for n in (0, 10, 60, len(data) // 2, len(data) - 1)),
        *flips,
        b"\0" * 1000,
        signed(b""),
        signed(pickle.dumps({})),
        signed(evil.getvalue()),
        bombed := signed(bomb.getvalue()),
        changed(data, adapters=weights),
        changed(data, adapters=huge),
        changed(data, adapters=[]),
        changed(data, losses=torch.full((3,), torch.nan)),
        changed(data, losses=torch.zeros(STEPS + 1)),
        changed(data, losses="none"),
        changed(data, origin="[" * 100_000),
        changed(data, numbers="{}"),
        changed(data, moments={name: {}}),
        changed(data, streams={"cpu": torch.zeros(3)}),
        changed(data, streams={"cpu": torch.zeros_like(state["streams"]["cpu"])[:5]}),
        data + bytes(1 << 26),
    ]
    point = tune.settings.train.hyperparameters(POINT)
    from fractopt.objective.lora.train import _optimizer

    fresh = tune.objective._base.with_adapters(point, 3)
    weights_before = {n: w.detach().clone() for n, w in fresh.named_parameters() if w.requires_grad}
    stream = torch.get_rng_state()
    for case in cases:
        (tmp_path / CHECKPOINT).write_bytes(case)
        optimizer = _optimizer(fresh, point)
        assert tune.state(tmp_path).take_up(fresh, optimizer, STEPS) is None
        said = capsys.readouterr().err
        assert "is not gone on from, the training starts again: " in said
        assert case is not bombed or "it holds more than" in said  # not unpacked to be looked at
        assert not optimizer.state
    assert torch.equal(torch.get_rng_state(), stream)
    named = dict(fresh.named_parameters())
    assert all(torch.equal(named[n], w) for n, w in weights_before.items())
    assert not (tmp_path / "run").exists()


def test_a_link_or_a_directory_in_its_place_is_not_followed(
    saved: tuple[Tune, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tune, data = saved
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(data)
    place = tmp_path / "evaluation"
    place.mkdir()
    (place / CHECKPOINT).symlink_to(elsewhere)
    assert tune.begins_at(place, tune.whole) == 0
    assert not (place / CHECKPOINT).is_symlink()  # replaced, not written through
    assert elsewhere.read_bytes() == data
    (place / CHECKPOINT).unlink()
    (place / CHECKPOINT).mkdir()
    assert tune.begins_at(place, tune.whole) == 0
    assert "could not be saved" in capsys.readouterr().err


# --- in an evaluation


@pytest.fixture(scope="module")
def saving(short: Callable[..., LoraSettings]) -> Any:
    from fractopt.objective.lora.objective import LoraObjective

    train = Train(epochs=1, max_steps=8, warmup_steps=2, checkpoint_every="0.001s")
    return LoraObjective(short(train=train, test_metrics=()))


def test_an_evaluation_goes_on_and_says_what_it_took(saving: Any, tmp_path: Path) -> None:
    params = {"learning_rate": 1e-2, "lora_rank": 8, "lora_dropout": 0.1}
    places = [tmp_path / name for name in ("whole", "cut")]
    for place in places:
        place.mkdir()

    class CutOff(Exception):
        pass

    def cut(phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
        if step == 6:
            raise CutOff

    whole = saving(Evaluation(1, Kind.SEARCH, params, 0, directory=places[0]), silent)
    with pytest.raises(CutOff):
        saving(Evaluation(1, Kind.SEARCH, params, 0, directory=places[1]), cut)
    steps: list[int] = []
    outcome: Outcome = saving(
        Evaluation(1, Kind.SEARCH, params, 0, attempt=1, directory=places[1]),
        lambda phase, step=0, total=0, loss=None: steps.append(step) if phase == "train" else None,
    )
    assert steps == [6, 7, 8]
    assert outcome.status is Status.OK
    assert outcome.value == whole.value
    for name in ("train/loss", "train/steps", "train/padding", "train/parameters", "validation/loss"):
        assert outcome.metrics[name] == whole.metrics[name]
    assert read_curve(places[1]) == read_curve(places[0])
    assert (places[0] / "answers.npz").read_bytes() == (places[1] / "answers.npz").read_bytes()
    # Five of the eight steps belong to the first attempt.
    assert outcome.metrics["seconds/train"] > 0.0
    assert 60.0 * outcome.metrics["device/minutes"] > outcome.seconds
    # "never" saves nothing.
    quiet = dataclasses.replace(saving.settings.train, checkpoint_every="never")
    assert quiet.checkpoint_every_s == float("inf")


# --- the real thing, with the interpreters it takes


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_real_evaluation_process_killed_at_random_goes_on_to_the_bit(
    short: Callable[..., LoraSettings],
    tmp_path: Path,
    how: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fractopt.parallel.message import Ended, Finished, Limits, Place, Progress, Setup, Task
    from fractopt.parallel.transport import GRACE_S
    from fractopt.parallel.worker import Supervisor, end

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    every = "1s" if how == signal.SIGKILL else "1h"
    settings = short(train=Train(epochs=2, warmup_steps=4, checkpoint_every=every), test_metrics=())
    spec = {"kind": "lora", **json.loads(json.dumps(dataclasses.asdict(settings)))}
    params = {"learning_rate": 1e-2, "lora_rank": 8, "lora_dropout": 0.1}
    rng = random.Random(int(how))

    def attempt(number: int, run_directory: Path, target: int | None) -> tuple[Outcome | None, int]:
        """One attempt, cut off at step `target`: its outcome, and the first step that it reported."""
        supervisor = Supervisor(Place(1, "", 1), Setup(spec, str(run_directory), Limits()))
        supervisor.start()
        supervisor.send(Task(1, number, "search", dict(params), 7))
        first = 0
        try:
            while True:
                for message in supervisor.poll():
                    if isinstance(message, Finished):
                        return message.outcome, first
                    if isinstance(message, Ended):
                        return None, first
                    if isinstance(message, Progress) and message.phase == "train":
                        first = first or message.step
                        if target is not None and message.step >= target:
                            if how == signal.SIGTERM:
                                return None, first  # the supervisor asks it to stop, below
                            os.kill(message.pid, how)
                            target = None
                time.sleep(0.005)
        finally:
            end([supervisor], GRACE_S)

    def run(run_directory: Path, kills: int) -> tuple[Outcome, list[int]]:
        begun = []
        for number in range(kills + 1):
            target = rng.randrange(10, 60) if number < kills else None
            outcome, first = attempt(number, run_directory, target)
            begun.append(first)
            if outcome is not None:
                return outcome, begun
        raise AssertionError("never finished")

    whole, _ = run(tmp_path / "whole", 0)
    outcome, begun = run(tmp_path / "cut", 3)
    assert begun[-1] > 1
    assert outcome.value == whole.value
    assert outcome.metrics["train/loss"] == whole.metrics["train/loss"]
    places = [evaluation_directory(tmp_path / name, 1) for name in ("whole", "cut")]
    assert read_curve(places[0]) == read_curve(places[1])
    assert (places[0] / "answers.npz").read_bytes() == (places[1] / "answers.npz").read_bytes()
