"""Training and scoring alone: ours against litgpt's own loop and lm-eval's own Hugging Face model.

    python bench/lora_side_by_side.py [--tasks tiny,smollm2] [--rounds 3] [--write bench/results]

Same model, data, questions, hyperparameters and seeds, a seed a round; one thread, one process, the two
sides in turn.
litgpt's side is `litgpt.finetune.lora.fit` without the validation in it, then `HFLM.loglikelihood` on the
merged model; imports, loading, tokenising of the training data, merging and conversion are not counted,
nor is what lm-eval does before and after. Ours is all of an evaluation, whatever it does. CPU seconds of
the process, medians of the rounds. Ours takes the samples of an epoch in an order of its own, so accuracies
agree as those of two seeds do (`objective.train.batching = "litgpt"` has them agree answer by answer).
`lora_against_litgpt.py` has the commands with their start-up instead.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lora_against_litgpt import OFFLINE, POINTS, THREADS

os.environ.update(THREADS | OFFLINE)  # before anything imports torch

import numpy as np
import torch

from fractopt.config.read import read_config
from fractopt.objective.base import Evaluation, silent
from fractopt.objective.lora.answers import paired_difference, read_answers
from fractopt.objective.lora.metrics import split_metric
from fractopt.objective.lora.objective import LoraObjective
from fractopt.objective.lora.settings import LoraSettings
from fractopt.trial import Kind

JOBS = Path(__file__).parents[1] / "jobs"
TARGET = 1.5, 0.05  # times cheaper; the share of an evaluation that is neither training nor scoring
SEED = 1337  # of the first round, litgpt's own
CASES: dict[str, list[dict[str, float]]] = {
    "tiny": POINTS,
    "smollm2": [{"learning_rate": 4e-3, "lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.05}],
}


@dataclasses.dataclass
class Measured:
    """CPU seconds of one evaluation, and the answers that came out."""

    train: float
    score: float
    whole: float
    right: np.ndarray[Any, np.dtype[np.bool_]]


class Ours:
    """An evaluation process as a worker has it: what it keeps between evaluations was loaded before."""

    def __init__(self, settings: LoraSettings) -> None:
        self.settings = settings
        self.objective = LoraObjective(settings, clock=time.process_time)

    def __call__(self, point: dict[str, float], seed: int) -> Measured:
        with tempfile.TemporaryDirectory() as scratch:
            # A replicate, because it has the seed that it is told.
            evaluation = Evaluation(1, Kind.REPLICATE, point, seed, directory=Path(scratch))
            before = time.process_time()
            outcome = self.objective(evaluation, silent)
            whole = time.process_time() - before
            right = read_answers(Path(scratch))[self.settings.metric]
        return Measured(outcome.metrics["seconds/train"], outcome.metrics["seconds/score"], whole, right)


class Theirs:
    """The same evaluation by litgpt's loop and lm-eval's model; only these two are timed."""

    def __init__(self, ours: Ours, scratch: Path) -> None:
        from fractopt.objective.lora.model_files import find_checkpoint
        from fractopt.objective.lora.records import find_data
        from fractopt.objective.lora.tasks import load_tasks

        self.settings = settings = ours.settings
        model, data = settings.model, settings.data
        self.precision = model.precision
        self.directory = checkpoint_in_32_bits(
            find_checkpoint(model.name, model.path, model.revision), scratch
        )
        self.data = find_data(data.name, data.path, data.revision, data.subset)
        task, self.metric = split_metric(settings.metric)
        (self.task,) = load_tasks(task, settings.score.shots)
        self.task.build_all_requests(rank=0, world_size=1)

    def __call__(self, point: dict[str, float], seed: int) -> Measured:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            train, weights = self.fine_tune(point, seed)
            score, right = self.score(weights)
        return Measured(train, score, train + score, right)

    def fine_tune(self, point: dict[str, float], seed: int) -> tuple[float, dict[str, torch.Tensor]]:
        """CPU seconds of `fit`, and the merged weights. What is around it is litgpt's `main`, in order."""
        import lightning as L
        from lightning.fabric.plugins.environments import LightningEnvironment
        from litgpt.args import EvalArgs, TrainArgs
        from litgpt.data import JSON
        from litgpt.finetune import lora
        from litgpt.lora import GPT, Config, mark_only_lora_as_trainable, merge_lora_weights
        from litgpt.tokenizer import Tokenizer
        from litgpt.utils import load_checkpoint

        h = self.settings.train.hyperparameters(point)
        train = TrainArgs(
            epochs=h.epochs,
            global_batch_size=h.global_batch,
            micro_batch_size=h.global_batch,
            lr_warmup_steps=h.warmup(self.steps(h.global_batch) * h.epochs),
            save_interval=10**6,
            log_interval=1,
        )
        given = self.settings.data
        data = JSON(
            self.data,
            given.mask_prompt,
            prompt_style=given.prompt_style,
            num_workers=0,
            seed=given.split_seed,
        )
        # An environment of its own: Lightning's search for one would start MPI.
        fabric = L.Fabric(
            accelerator="cpu", devices=1, precision=self.precision, plugins=[LightningEnvironment()]
        )
        config = Config.from_file(
            self.directory / "model_config.yaml",
            lora_r=h.lora_rank,
            lora_alpha=h.lora_alpha,
            lora_dropout=h.lora_dropout,
            **{f"lora_{target}": True for target in h.targets},
        )
        train_batches, validation = lora.get_dataloaders(fabric, data, Tokenizer(self.directory), train)
        fabric.seed_everything(seed, verbose=False)
        with fabric.init_module():
            gpt = GPT(config)
        mark_only_lora_as_trainable(gpt)
        model = fabric.setup_module(gpt)
        optimizer = fabric.setup_optimizers(
            torch.optim.AdamW(
                model.parameters(),
                lr=h.learning_rate,
                weight_decay=h.weight_decay,
                betas=(h.beta1, h.beta2),
            )
        )
        steps = h.epochs * len(train_batches)
        scheduler = lora.get_lr_scheduler(optimizer, warmup_steps=train.lr_warmup_steps, max_steps=steps)
        load_checkpoint(fabric, model, self.directory / "lit_model.pth", strict=False)
        with untimed(lora, "validate") as apart:
            before = time.process_time()
            lora.fit(
                fabric=fabric,
                model=model,
                optimizer=optimizer,
                scheduler=scheduler,
                train_dataloader=train_batches,
                val_dataloader=validation,
                devices=1,
                checkpoint_dir=self.directory,
                out_dir=self.directory,
                train=dataclasses.replace(train, max_steps=steps),  # or a text is generated at the end
                eval=EvalArgs(interval=10**6, max_iters=1),
                data=data,
            )
            spent = time.process_time() - before - sum(apart)
        merge_lora_weights(gpt)
        merged = {
            name.replace("linear.", ""): weight
            for name, weight in gpt.state_dict().items()
            if "lora_" not in name
        }
        return spent, merged

    def steps(self, batch: int) -> int:
        import json

        return len(json.loads((self.data / "train.json").read_text())) // batch

    def score(self, weights: dict[str, torch.Tensor]) -> tuple[float, np.ndarray[Any, np.dtype[np.bool_]]]:
        """CPU seconds of `loglikelihood`, and the answers."""
        import json

        from litgpt.config import Config
        from litgpt.scripts.convert_lit_checkpoint import copy_weights_llama
        from lm_eval.models.huggingface import HFLM
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

        converted: dict[str, torch.Tensor] = {}
        config = Config.from_file(self.directory / "model_config.yaml")
        copy_weights_llama(config, converted, {name: weight.detach() for name, weight in weights.items()})
        described = json.loads((self.directory / "config.json").read_text())
        described["tie_word_embeddings"] = False  # its head may have been fine-tuned
        model = LlamaForCausalLM(LlamaConfig(**described)).to(converted["lm_head.weight"].dtype)
        model.load_state_dict(converted)
        lm = HFLM(
            pretrained=model.eval(),
            tokenizer=AutoTokenizer.from_pretrained(self.directory),
            batch_size=self.settings.score.batch,
        )
        before = time.process_time()
        found = lm.loglikelihood(self.task.instances, disable_tqdm=True)
        spent = time.process_time() - before
        asked: dict[int, list[Any]] = {}
        for instance, answer in zip(self.task.instances, found, strict=True):
            asked.setdefault(instance.doc_id, []).append(answer)
        documents = dict(self.task.doc_iterator(rank=0, limit=None, world_size=1))
        right = [
            bool(self.task.process_results(documents[i], answers)[self.metric])
            for i, answers in asked.items()
        ]
        return spent, np.array(right)


@contextlib.contextmanager
def untimed(module: Any, name: str) -> Iterator[list[float]]:
    """A list of the CPU seconds of each call of the function `name` of `module`."""
    function, seconds = getattr(module, name), []

    def timed(*arguments: Any, **more: Any) -> Any:
        before = time.process_time()
        try:
            return function(*arguments, **more)
        finally:
            seconds.append(time.process_time() - before)

    setattr(module, name, timed)
    try:
        yield seconds
    finally:
        setattr(module, name, function)


def checkpoint_in_32_bits(source: Path, scratch: Path) -> Path:
    """The checkpoint `source` in a directory of its model's name, by which litgpt goes, with 32-bit weights,
    as litgpt computes in the type that they are stored in."""
    from litgpt.config import Config

    directory = scratch / Config.from_file(source / "model_config.yaml").name
    weights = torch.load(source / "lit_model.pth", weights_only=True, mmap=True)
    if all(weight.dtype == torch.float32 for weight in weights.values()):
        directory.symlink_to(source)
        return directory
    directory.mkdir()
    for file in source.iterdir():
        if file.suffix in (".json", ".yaml"):
            (directory / file.name).write_bytes(file.read_bytes())
    torch.save({name: weight.float() for name, weight in weights.items()}, directory / "lit_model.pth")
    return directory


def measure(task: str, rounds: int) -> tuple[list[list[Measured]], list[list[Measured]]]:
    """(ours, theirs), for each point a list over the rounds; the sides take turns."""
    torch.set_num_threads(1)
    config = read_config(JOBS / f"{task}.toml")
    settings = config.settings
    assert isinstance(settings, LoraSettings)
    with tempfile.TemporaryDirectory() as scratch:
        ours = Ours(settings)
        theirs = Theirs(ours, Path(scratch))
        found: tuple[list[list[Measured]], list[list[Measured]]] = ([], [])
        for point in CASES[task]:
            pairs = []
            for number in range(rounds):
                seed = SEED + number
                pairs.append((ours(point, seed), theirs(point, seed)))
                mine, other = pairs[-1]
                print(
                    f"{task} {point['learning_rate']:g}, round {number + 1}: ours {mine.train:.2f} + "
                    f"{mine.score:.2f}, all {mine.whole:.2f}; theirs {other.train:.2f} + {other.score:.2f}",
                    flush=True,
                )
            for side, runs in zip(found, zip(*pairs, strict=True), strict=True):
                side.append(list(runs))
    return found


def median(runs: list[Measured], field: str) -> float:
    return statistics.median(getattr(run, field) for run in runs)


def mean(runs: list[Measured]) -> float:
    return statistics.mean(float(run.right.mean()) for run in runs)


def table(task: str, ours: list[list[Measured]], theirs: list[list[Measured]]) -> str:
    questions = len(ours[0][0].right)
    lines = [
        f"## {task}: `jobs/{task}.toml`, {questions} questions",
        "",
        "| learning rate | rank | training ours | litgpt | ratio | scoring ours | lm-eval | ratio "
        "| all of ours | both of theirs | **ratio** | neither |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    said: list[str] = []
    differences: list[float] = []
    for point, mine, other in zip(CASES[task], ours, theirs, strict=True):
        a = {field: median(mine, field) for field in ("train", "score", "whole")}
        b = {field: median(other, field) for field in ("train", "score", "whole")}
        neither = statistics.median(1 - (run.train + run.score) / run.whole for run in mine)
        lines.append(
            f"| {point['learning_rate']:g} | {point['lora_rank']} | {a['train']:.2f} | {b['train']:.2f} "
            f"| {b['train'] / a['train']:.2f} | {a['score']:.2f} | {b['score']:.2f} "
            f"| {b['score'] / a['score']:.2f} | {a['whole']:.2f} | {b['whole']:.2f} "
            f"| **{b['whole'] / a['whole']:.2f}** | {neither:.1%} |"
        )
        pairs = list(zip(mine, other, strict=True))
        apart = [paired_difference(a.right, b.right)[0] for a, b in pairs]
        differences += apart
        said.append(
            f"- {point['learning_rate']:g}: accuracy {mean(mine):.4f} ours, {mean(other):.4f} theirs; "
            f"by seed {', '.join(f'{difference:+.4f}' for difference in apart)}"
        )
    n = len(differences)
    error = statistics.stdev(differences) / math.sqrt(n) if n > 1 else math.nan
    said += [
        "",
        f"Accuracy, ours minus theirs, mean over points and seeds: **{statistics.mean(differences):+.4f} ± "
        f"{error:.4f}** (standard error of {n} pairs of fine-tunes).",
    ]
    return "\n".join([*lines, "", *said, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", default="tiny,smollm2", help="which of tiny and smollm2 (default both)")
    parser.add_argument("--rounds", type=int, default=3, help="of each side (default 3)")
    parser.add_argument("--write", type=Path, help="a directory to write the result to as well")
    arguments = parser.parse_args()
    parts = [
        "# Training and scoring alone: ours against litgpt's loop and lm-eval's Hugging Face model",
        "",
        f"CPU s at one thread, medians of {arguments.rounds} rounds, sides in turn; {platform.machine()}, "
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "litgpt", "lm-eval", "transformers"))
        + ". `python bench/lora_side_by_side.py` makes this page and says what is counted. "
        f'"neither" is the share of our evaluation that is neither training step nor scoring forward. '
        f"Wanted: together {TARGET[0]} times cheaper, and neither at most {TARGET[1]:.0%}.",
        "",
    ]
    parts += [table(task, *measure(task, arguments.rounds)) for task in arguments.tasks.split(",")]
    page = "\n".join(parts)
    print(page)
    if arguments.write:
        (arguments.write / "lora_side_by_side.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
