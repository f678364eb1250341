"""The tables below [objective] of a LoRA fine-tune: model, data, train and score.

A value out of range raises ValueError with one sentence that names the field, what was given and what is
expected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fractopt.objective.lora.files import CATALOGUE, MAIN, PACKAGED_DATA, SMOLLM2, TINY
from fractopt.objective.lora.hyperparameters import (
    ALTERNATIVES,
    NAMES,
    Fixed,
    Hyperparameters,
    Schedule,
    Target,
    checked,
)
from fractopt.objective.lora.records import ALPACA, ALPACA_2K
from fractopt.space import Value
from fractopt.units import seconds

Precision = Literal["auto", "32-true", "bf16-true", "bf16-mixed"]
_NAME = re.compile(r"(?!.*\.\.)\w[\w.-]{0,95}")  # of a repository on the hub, or an organisation
_REPOSITORY = re.compile(f"{_NAME.pattern}/{_NAME.pattern}")
LEAST_BLOCK = 16  # questions: fewer tell nothing, and fill no batch


@dataclass(frozen=True)
class Model:
    """The base model: a `name` on the Hugging Face hub, or the `path` of a directory.

    A name is looked up on this machine, where `fractopt fetch` put it; nothing is downloaded during a run.
    A path is a litgpt checkpoint, or Hugging Face files or a GGUF file, which `fractopt fetch` converts.
    "fractopt/tiny" comes with this package, "fractopt/SmolLM2-135M-Instruct" with another. `revision` is a
    branch, a tag or a commit; a run takes, and its archive keeps, the commit that it stood for when it was
    fetched, or a checksum where there is none. `architecture` is litgpt's name of the model that this one is
    built like, for a model that litgpt does not know by its name. precision "auto": bf16-true on a GPU that
    has it, else 32-true.
    """

    name: str | None = None
    path: str | None = None
    revision: str = MAIN
    architecture: str | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        _one_of_two("model", self.name, self.path)
        if self.name is not None and not _REPOSITORY.fullmatch(self.name):
            raise ValueError(
                f"name: expected a model of the hub as ORGANISATION/NAME, or {TINY!r} or {SMOLLM2!r}, "
                f"got {self.name!r}"
            )


@dataclass(frozen=True)
class Data:
    """The fine-tuning data: `name` "alpaca", "alpaca-2k" or one of the hub, or a `path`.

    "fractopt/tiny" and "fractopt/catalogue" are names too: they come with this package.
    `path` is one file of records (json, jsonl or parquet), split by `split_seed` with `val_fraction` set
    aside (default: litgpt's, 0.03865 of alpaca, 0.05 of all others), or a directory with a train and a val
    file. Of a data set of the hub it is the "train" split, of its `subset` where it has several. Each record
    has the keys "instruction", "output" and, if it likes, "input". `split_seed` also orders the batches.
    `revision` is a branch, a tag or a commit of a data set on the hub; of a file a run keeps a checksum
    there, and takes no other one when it goes on.
    """

    name: str | None = None
    path: str | None = None
    revision: str = MAIN
    subset: str | None = None
    split_seed: int = 42
    val_fraction: float | None = None
    prompt_style: str = "alpaca"
    mask_prompt: bool = False

    def __post_init__(self) -> None:
        _one_of_two("data", self.name, self.path)
        if self.name not in (None, ALPACA, ALPACA_2K) and not _REPOSITORY.fullmatch(str(self.name)):
            raise ValueError(
                f"name: expected {ALPACA!r}, {ALPACA_2K!r}, {TINY!r}, {CATALOGUE!r} or a data set of the hub "
                f"as ORGANISATION/NAME, got {self.name!r}; give a file as path"
            )
        if self.subset is not None:
            if self.name in (None, ALPACA, *PACKAGED_DATA):
                raise ValueError("subset: only a data set of the hub has subsets; leave it out")
            if not _NAME.fullmatch(self.subset):
                raise ValueError(f"subset: expected the name of a subset, got {self.subset!r}")
        if self.val_fraction is not None and not 0.0 < self.val_fraction < 1.0:
            raise ValueError(f"val_fraction: expected a number between 0 and 1, got {self.val_fraction!r}")


@dataclass(frozen=True)
class Train:
    """How a fine-tune runs; the update is AdamW on the adapters, as `litgpt finetune_lora` does it.

    The first part is what a space may search too, under the same names (beta1 and beta2 for `betas`); what
    is said here holds where the space says nothing.

    An adapter adds alpha / rank times B A to its layer, alpha / sqrt(rank) with `rslora`; `alpha_ratio` says
    alpha as a multiple of the rank, and alpha is 32 where neither is said. B learns `lora_plus_ratio` times
    as fast as A (LoRA+). `targets` are the layers that get one, "attention" for four of them, "all" for all.
    `global_batch` samples make one optimizer step. Training ends after `epochs` over the data, or `max_steps`
    optimizer steps if that is sooner. The learning rate rises over `warmup_steps`, or `warmup_share` of all
    steps (where neither is said 100 steps, or a tenth of all if that is less), then follows `schedule`.

    `micro_batch` samples go through the model at a time, "auto" for as many as memory allows. With `batching`
    "bucketed" those of like length go together, more of short ones than of long ones; with "litgpt" it is
    litgpt's order, padding and loss, bit for bit. `gradient_checkpointing` trades time for memory. A loss
    that stays above a uniform guess's for `divergence_patience` steps on end ends the training. Its state is
    saved every `checkpoint_every`, and when the run is stopped: whoever goes on with it begins there. At the
    end the loss of `validation_samples` that were set aside is taken: "auto" for at most a twentieth of those
    trained on, which costs a sixtieth of the training; 0 for none. `seed` is
    one number for every evaluation of the search, or "per-trial" for independent noise; a replicate always
    has a seed of its own, or it would be the same number again.
    """

    learning_rate: float = Hyperparameters.learning_rate
    lora_rank: int = Hyperparameters.lora_rank
    lora_alpha: float | None = None
    alpha_ratio: float | None = None
    rslora: bool = Hyperparameters.rslora
    lora_dropout: float = Hyperparameters.lora_dropout
    lora_plus_ratio: float = Hyperparameters.lora_plus_ratio
    weight_decay: float = Hyperparameters.weight_decay
    targets: tuple[Target, ...] = ("query", "key", "value", "head")
    betas: tuple[float, float] = (Hyperparameters.beta1, Hyperparameters.beta2)
    schedule: Schedule = Hyperparameters.schedule
    warmup_steps: int | None = None
    warmup_share: float | None = None
    global_batch: int = Hyperparameters.global_batch
    epochs: int = Hyperparameters.epochs
    max_steps: int | None = None

    micro_batch: int | Literal["auto"] = "auto"
    batching: Literal["bucketed", "litgpt"] = "bucketed"
    gradient_checkpointing: bool = False
    divergence_patience: int = 20
    validation_samples: int | Literal["auto"] = "auto"
    checkpoint_every: float | str = "10m"
    seed: int | Literal["per-trial"] = 1337

    def __post_init__(self) -> None:
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas: expected two numbers in [0, 1), got {list(self.betas)!r}")
        for name, value in self.fixed.items():
            if value is not None:
                checked(name, value)
        for one, other in ALTERNATIVES:
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"{one}: says the same as {other}; leave one of them out")
        if self.micro_batch != "auto":
            _at_least("micro_batch", self.micro_batch, 1)
            if self.batching == "litgpt" and self.global_batch % self.micro_batch:
                raise ValueError(
                    f"micro_batch: expected a divisor of global_batch = {self.global_batch}, as batching is "
                    f'"litgpt", got {self.micro_batch!r}'
                )
        _at_least("divergence_patience", self.divergence_patience, 1)
        if self.checkpoint_every != "never":
            _duration("checkpoint_every", self.checkpoint_every)
        if self.validation_samples != "auto":
            _at_least("validation_samples", self.validation_samples, 0)
        if self.seed != "per-trial":
            _at_least("seed", self.seed, 0)

    @property
    def checkpoint_every_s(self) -> float:
        """Seconds between two savings of a fine-tune's state; infinite for "never"."""
        if self.checkpoint_every == "never":
            return math.inf
        return _duration("checkpoint_every", self.checkpoint_every)

    @property
    def fixed(self) -> Fixed:
        """What a space that leaves it out gets, by the names that it would have there."""
        beta1, beta2 = self.betas
        others = {name: getattr(self, name) for name in NAMES if name not in ("beta1", "beta2")}
        return {**others, "beta1": beta1, "beta2": beta2}

    def hyperparameters(self, params: Mapping[str, Value]) -> Hyperparameters:
        """The point `params` of a space, completed; raises ValueError for one that cannot be."""
        return Hyperparameters.of(params, self.fixed)


@dataclass(frozen=True)
class Score:
    """How a model is scored by lm-eval.

    `shots` examples precede each question, `batch` contexts go through the model at once (fixed, as
    it may change the last digits). `questions` is "all", or how many of a task's questions the search asks:
    a random choice, the same for all evaluations, drawn by `seed`, of a group in each task its share. The
    others stay unseen until the best configurations are compared with base and default.

    With `racing` a configuration of the search that clearly loses against the best one so far is not asked
    all of them: see `race`. It is looked at first after `racing_block` questions; that one as good as the
    best is stopped has a probability of `racing_error` at most.
    """

    shots: int = 0
    batch: int = 32
    questions: int | Literal["all"] = "all"
    seed: int = 0
    racing: bool = False
    racing_block: int = 64
    racing_error: float = 0.01

    def __post_init__(self) -> None:
        _at_least("shots", self.shots, 0)
        _at_least("batch", self.batch, 1)
        if self.questions != "all":
            _at_least("questions", self.questions, 2)
        _at_least("seed", self.seed, 0)
        _at_least("racing_block", self.racing_block, LEAST_BLOCK)
        if not 0.0 < self.racing_error < 0.5:
            raise ValueError(
                f"racing_error: expected a probability above 0 and below 0.5, got {self.racing_error!r}"
            )


def _one_of_two(table: str, name: str | None, path: str | None) -> None:
    if (name is None) == (path is None):
        given = "neither" if name is None else "both"
        raise ValueError(f"{table}: expected either name or path, got {given}")


def _duration(name: str, value: float | str) -> float:
    try:
        return seconds(value)
    except ValueError as error:
        raise ValueError(f'{name}: {error}, or "never", got {value!r}') from None


def _at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise ValueError(f"{name}: expected a whole number from {low}, got {value!r}")
