"""CPU seconds per evaluation: ours against `litgpt finetune_lora` + `litgpt evaluate`, side by side.

    python bench/lora_against_litgpt.py [--evaluations 10] [--write bench/results/lora_against_litgpt.md]

Both get the tiny task's model (its weights widened to 32 bits, as litgpt's merge keeps the stored
type), data, questions, hyperparameters and seed, on one thread. Ours is one process that makes many
evaluations, as a worker does; its start-up is shown by itself and shared out among them. litgpt is
two processes for each evaluation. CPU is user + system time of the processes and their children.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
POINTS: list[dict[str, float]] = [
    {"learning_rate": 2e-4, "lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.05, "weight_decay": 0.01},
    {"learning_rate": 3e-3, "lora_rank": 8, "lora_alpha": 20, "lora_dropout": 0.2, "weight_decay": 0.001},
    {"learning_rate": 1e-2, "lora_rank": 40, "lora_alpha": 32, "lora_dropout": 0.1, "weight_decay": 0.05},
]
EPOCHS, WARMUP, BATCH, SCORE_BATCH, SEED = 3, 15, 16, 64, 1337


def cpu_of_children(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """CPU seconds and standard output of a command; raises RuntimeError with its last words."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command[:4])} ... ended with {done.returncode}:\n{done.stderr[-3000:]}"
        )
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done.stdout


def ours(count: int) -> None:
    """The worker's side, in a process of its own: `count` evaluations, their figures as JSON."""
    import time

    from fractopt.objective.base import Evaluation, silent
    from fractopt.objective.lora.files import TINY
    from fractopt.objective.lora.objective import LoraObjective
    from fractopt.objective.lora.settings import LoraSettings
    from fractopt.objective.lora.tables import Data, Model, Score, Train
    from fractopt.trial import Kind

    settings = LoraSettings(
        metric="tiny/acc",
        model=Model(name=TINY, precision="32-true"),
        data=Data(name=TINY, mask_prompt=True),
        # litgpt's own order, so that accuracies can be compared question by question.
        train=Train(epochs=EPOCHS, warmup_steps=WARMUP, global_batch=BATCH, seed=SEED, batching="litgpt"),
        score=Score(batch=SCORE_BATCH),
    )
    objective = LoraObjective(settings, clock=time.process_time)
    figures: dict[str, Any] = {"evaluations": []}
    for index in range(count):
        before = time.process_time()
        outcome = objective(
            Evaluation(id=index, kind=Kind.SEARCH, params=POINTS[index % len(POINTS)], seed=0), silent
        )
        figures["evaluations"].append(
            {
                "cpu": time.process_time() - before,
                "train": outcome.metrics["seconds/train"],
                "score": outcome.metrics["seconds/score"],
                "acc": outcome.metrics["tiny/acc"],
                "acc_norm": outcome.metrics["tiny/acc_norm"],
                "loss": outcome.metrics["train/loss"],
            }
        )
    print(json.dumps(figures))


def prepare(directory: Path) -> tuple[Path, Path]:
    """A 32-bit checkpoint with the data beside it, and the task's YAML file, for litgpt."""
    import shutil

    import torch
    import yaml

    from fractopt.objective.lora.files import TINY_DIRECTORY
    from fractopt.objective.lora.tiny.questions import definition

    checkpoint = directory / "tiny"
    shutil.copytree(TINY_DIRECTORY, checkpoint)
    weights = torch.load(checkpoint / "lit_model.pth", weights_only=True)
    torch.save({name: weight.float() for name, weight in weights.items()}, checkpoint / "lit_model.pth")
    task = definition("tiny") | {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(checkpoint / "questions.jsonl")}},
    }
    path = directory / "tiny.yaml"
    path.write_text(yaml.safe_dump(task), encoding="utf-8")
    return checkpoint, path


def litgpt(point: dict[str, float], checkpoint: Path, task: Path, out: Path) -> dict[str, float]:
    """One evaluation as litgpt's commands make it."""
    environment = os.environ | THREADS | OFFLINE | {"HF_HOME": str(out / "hf")}
    command = [str(Path(sys.executable).with_name("litgpt"))]
    optimizer = {
        "class_path": "torch.optim.AdamW",
        "init_args": {
            "lr": point["learning_rate"],
            "weight_decay": point["weight_decay"],
            "betas": [0.9, 0.999],
        },
    }
    options = {
        "out_dir": out,
        "precision": "32-true",
        "devices": 1,
        "lora_r": point["lora_rank"],
        "lora_alpha": point["lora_alpha"],
        "lora_dropout": point["lora_dropout"],
        **{f"lora_{target}": "true" for target in ("query", "key", "value", "head")},
        "data": "JSON",
        "data.json_path": checkpoint,
        "data.mask_prompt": "true",
        "train.epochs": EPOCHS,
        "train.global_batch_size": BATCH,
        "train.micro_batch_size": BATCH,
        "train.lr_warmup_steps": WARMUP,
        "eval.interval": 100_000,
        "optimizer": json.dumps(optimizer),
        "seed": SEED,
    }
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    tune, _ = cpu_of_children([*command, "finetune_lora", str(checkpoint), *flags], environment)
    scoring = ["--tasks", str(task), "--batch_size", str(SCORE_BATCH), "--device", "cpu"]
    score, _ = cpu_of_children(
        [*command, "evaluate", str(out / "final"), *scoring, "--out_dir", str(out / "evaluate")], environment
    )
    results = json.loads((out / "evaluate" / "results.json").read_text())["results"]["tiny"]
    return {"tune": tune, "score": score, "acc": results["acc,none"], "acc_norm": results["acc_norm,none"]}


def table(mine: dict[str, Any], whole: float, theirs: list[dict[str, float]]) -> str:
    runs = mine["evaluations"]
    n = len(runs)
    evaluation = sum(run["cpu"] for run in runs) / n
    other = 1.0 - sum(run["train"] + run["score"] for run in runs) / sum(run["cpu"] for run in runs)
    amortised = whole / n
    reference = sum(run["tune"] + run["score"] for run in theirs) / len(theirs)
    lines = [
        "# CPU per evaluation of the tiny task: ours against litgpt's commands",
        "",
        f"One thread; {platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "litgpt", "lm-eval", "transformers"))
        + ". `python bench/lora_against_litgpt.py` makes this page.",
        "",
        "| | CPU s per evaluation |",
        "|---|---|",
        f"| `litgpt finetune_lora` + `litgpt evaluate`, mean of {len(theirs)} | {reference:.1f} |",
        f"| ours, mean of {n} evaluations in one process | {evaluation:.2f} |",
        f"| ours, with the process's start-up of {whole - evaluation * n:.1f} CPU s shared out | "
        f"{amortised:.2f} |",
        f"| ratio, start-up included | **{reference / amortised:.1f}** |",
        f"| ratio, without start-up | {reference / evaluation:.1f} |",
        f"| share of our evaluation that is neither training step nor scoring forward | **{other:.1%}** |",
        "",
        "| lr | rank | alpha | dropout | weight decay | acc ours | acc litgpt | acc_norm ours | litgpt "
        "| finetune CPU s | evaluate CPU s | ours CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for point, run, reference_run in zip(POINTS, runs, theirs, strict=False):
        cells = [
            *(f"{value:g}" for value in point.values()),
            *(f"{v:.6f}" for v in (run["acc"], reference_run["acc"])),
            *(f"{v:.6f}" for v in (run["acc_norm"], reference_run["acc_norm"])),
            *(f"{v:.1f}" for v in (reference_run["tune"], reference_run["score"], run["cpu"])),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    equal = all(
        run[score] == reference_run[score]
        for run, reference_run in zip(runs, theirs, strict=False)
        for score in ("acc", "acc_norm")
    )
    lines += ["", f"Accuracies equal in all {len(theirs)} configurations: {'yes' if equal else 'NO'}.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=10, help="of ours, in one process (default 10)")
    parser.add_argument("--write", type=Path, help="write the result here as well")
    parser.add_argument("--ours", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        return ours(arguments.ours)
    count = max(arguments.evaluations, len(POINTS))
    whole, text = cpu_of_children(
        [sys.executable, __file__, "--ours", str(count)], os.environ | THREADS | OFFLINE
    )
    mine = json.loads(text.splitlines()[-1])
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, task = prepare(Path(scratch))
        theirs = [
            litgpt(point, checkpoint, task, Path(scratch) / f"run{index}")
            for index, point in enumerate(POINTS)
        ]
    page = table(mine, whole, theirs)
    print(page)
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        arguments.write.write_text(page, encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
