"""A fine-tune's state on the disk: one that is cut off goes on from there, on whatever worker, bit for bit.

The file holds adapters, moments of Adam, random-number states and what happened so far; schedule and order of
the samples follow from the hyperparameters and the step. It is written aside and renamed, durably, and begins
with the digest of the rest: a torn one is known as such. What it is read with runs nothing of it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from litgpt.lora import GPT

from fractopt.durable import replace_file
from fractopt.foreign import read_file
from fractopt.objective.base import CHECKPOINT, Evaluation
from fractopt.objective.lora.data import Samples
from fractopt.objective.lora.hyperparameters import Hyperparameters
from fractopt.objective.lora.meter import Meter
from fractopt.objective.lora.model import BaseModel
from fractopt.objective.lora.origin import Origin, differences
from fractopt.objective.lora.settings import LoraSettings

MAGIC = b"fractopt fine-tune 1\n"
MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam, as torch names them
SLACK = 1 << 20  # bytes of a file beside its tensors
LAST_SHARE = 0.1  # of the time between two checkpoints: what is not lost to an end during the scoring


@dataclass
class Progress:
    """What a fine-tune went through up to now, in earlier attempts at it too."""

    losses: list[float] = field(default_factory=list)  # of each step
    seconds: float = 0.0  # in training steps alone
    tokens: int = 0  # that went through the model
    padding: int = 0  # and what was put after them


class TrainingState:
    """The state of one fine-tune, in the file `path`, saved every `every_s` seconds.

    `origin` says in JSON's types what the fine-tune is: a file that says another one, or was written by
    other packages or for another device, is not gone on from. `meter` counts what earlier attempts took.
    """

    def __init__(self, path: Path, origin: Mapping[str, Any], every_s: float, meter: Meter) -> None:
        self._path = path
        self._origin = {**origin, "made by": made_by(meter.device)}
        self._every_s = every_s
        self._meter = meter
        self._saved_at = time.monotonic()
        self._counted = False  # what the file says was taken, this attempt at it included
        self._asked = False  # to stop
        self._before: Any = None

    def take_up(self, model: GPT, optimizer: torch.optim.Optimizer, total: int) -> Progress | None:
        """Put `model`, `optimizer` and random streams where the file left them; None for step 0.

        That there is a file of no use is said on stderr.
        """
        try:
            return self._take_up(model, optimizer, total)
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever it holds, it is better to train again than to fail
            print(f"{self._path} is not gone on from, the training starts again: {error}", file=sys.stderr)
            return None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """In here, SIGTERM ends this process after the step that is under way, and a last `save`."""
        if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
            yield
            return
        self._asked, self._before = False, signal.signal(signal.SIGTERM, self._ask)
        try:
            yield
        finally:
            self._leave_if_asked()
            signal.signal(signal.SIGTERM, self._before)

    def after_step(
        self, model: GPT, optimizer: torch.optim.Optimizer, progress: Progress, last: bool
    ) -> None:
        """Save what is due to be, and leave where this process was asked to."""
        unsaved_s = time.monotonic() - self._saved_at
        if self._asked or unsaved_s >= self._every_s * (LAST_SHARE if last else 1.0):
            try:
                replace_file(self._path, self._encoded(model, optimizer, progress))
            except OSError as error:  # the evaluation is worth more than its insurance
                print(f"the training's state could not be saved: {error}", file=sys.stderr)
            self._saved_at, self._counted = time.monotonic(), True
        self._leave_if_asked()

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def _leave_if_asked(self) -> None:
        if self._asked:
            self._asked = False
            signal.signal(signal.SIGTERM, self._before)
            os.kill(os.getpid(), signal.SIGTERM)

    def _encoded(self, model: GPT, optimizer: torch.optim.Optimizer, progress: Progress) -> bytes:
        adapters = _trained(model)
        numbers = {name: value for name, value in vars(progress).items() if name != "losses"}
        state = {
            "origin": json.dumps(self._origin),
            "losses": torch.tensor(progress.losses, dtype=torch.float64),
            "numbers": json.dumps(numbers),
            "spent": json.dumps(self._meter.spent()),
            "adapters": {name: weight.detach() for name, weight in adapters.items()},
            "moments": {
                name: {key: moments[key] for key in ("step", *MOMENTS)}
                for name, weight in adapters.items()
                if (moments := optimizer.state.get(weight))
            },
            "streams": _streams(self._meter.device),
        }
        stream = io.BytesIO()
        torch.save(state, stream)
        payload = stream.getbuffer()
        return b"".join((MAGIC, hashlib.sha256(payload).digest(), payload))

    def _take_up(self, model: GPT, optimizer: torch.optim.Optimizer, total: int) -> Progress:
        adapters = _trained(model)
        size = sum(weight.numel() * max(weight.element_size(), 4) for weight in adapters.values())
        most = (1 + len(MOMENTS)) * size + 8 * total + 4096 * len(adapters) + SLACK
        state = _decoded(read_file(self._path, most), most)
        origin = json.loads(state["origin"])
        if unlike := differences(self._origin, origin):
            raise ValueError(f"it has another {', '.join(unlike)}")

        # All is looked at before anything is taken over.
        losses = [float(loss) for loss in state["losses"].tolist()]
        if not 1 <= len(losses) <= total or not all(map(math.isfinite, losses)):
            raise ValueError(f"it has {len(losses)} losses of {total} steps")
        numbers, said = json.loads(state["numbers"]), json.loads(state["spent"])
        spent = {name: float(said[name]) for name in self._meter.spent() if name in said}
        progress = Progress(
            losses, float(numbers["seconds"]), int(numbers["tokens"]), int(numbers["padding"])
        )
        _alike("adapters", state["adapters"], adapters)
        moments = state["moments"]
        for key in MOMENTS:
            known = {name: adapters[name] for name in moments}
            _alike(f"moments {key}", {name: each[key] for name, each in moments.items()}, known)
        steps = {name: each["step"] for name, each in moments.items()}
        _alike("steps of the optimizer", steps, {name: torch.zeros(()) for name in moments})

        _restore_streams(self._meter.device, state["streams"])
        with torch.no_grad():
            for name, weight in adapters.items():
                weight.copy_(state["adapters"][name])
        for name, each in moments.items():
            weight = adapters[name]
            optimizer.state[weight] = {
                "step": each["step"],
                **{key: each[key].to(weight.device) for key in MOMENTS},
            }
        if not self._counted:
            self._meter.add(spent)
            self._counted = True
        return progress


class TrainingStates:
    """Those of the fine-tunes of `base` on `samples`, each in the directory of its evaluation."""

    def __init__(self, settings: LoraSettings, base: BaseModel, samples: Samples) -> None:
        self._origin = Origin(settings, base)
        self._samples = samples
        self._every_s = settings.train.checkpoint_every_s

    def of(
        self, evaluation: Evaluation, point: Hyperparameters, seed: int, meter: Meter
    ) -> TrainingState | None:
        """None where there is no directory, or nothing is to be saved."""
        if evaluation.directory is None or math.isinf(self._every_s):
            return None
        origin = {**self._origin.of(evaluation, point, seed), "samples": self._samples.digest}
        return TrainingState(evaluation.directory / CHECKPOINT, origin, self._every_s, meter)


def made_by(device: torch.device) -> dict[str, str]:
    """What the bits of a fine-tune depend on beside its origin."""
    packages = {name: version(name) for name in ("fractopt", "torch", "litgpt")}
    return {**packages, "device": device.type}


def _trained(model: GPT) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _decoded(data: bytes, most: int) -> dict[str, Any]:
    """What `_encoded` made; raises for anything else, of more than `most` bytes when unpacked too."""
    start = len(MAGIC) + hashlib.sha256().digest_size
    payload = data[start:]
    if not data.startswith(MAGIC) or hashlib.sha256(payload).digest() != data[len(MAGIC) : start]:
        raise ValueError("it is torn, or no file of fractopt's")
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        if sum(member.file_size for member in archive.infolist()) > most:
            raise ValueError(f"it holds more than the {most} bytes that it may have")
    state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    expected = {"origin", "losses", "numbers", "spent", "adapters", "moments", "streams"}
    if not isinstance(state, dict) or set(state) != expected:
        raise ValueError("it holds something else than the state of a fine-tune")
    return state


def _alike(what: str, found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    def shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}

    if shapes(found) != shapes(expected):
        raise ValueError(f"its {what} have other names, shapes or types than this fine-tune's")


def _streams(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of the random streams that dropout draws from."""
    streams = {"cpu": torch.get_rng_state()}
    return streams if device.type != "cuda" else streams | {"cuda": torch.cuda.get_rng_state(device)}


def _restore_streams(device: torch.device, streams: Mapping[str, torch.Tensor]) -> None:
    _alike("random streams", streams, _streams(device))
    torch.set_rng_state(streams["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(streams["cuda"], device)
