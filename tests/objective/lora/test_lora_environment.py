"""What a launcher, a scheduler or a library may do to a fine-tune through its environment, and does not.

Lightning looks for MPI and SLURM where a Fabric is made, and hangs or refuses under their variables;
lm-eval's simple_evaluate returns nothing where LOCAL_RANK is not 0; loaders and tokenizers fork, or start
threads that are other workers' cores. None of these is in the way of an evaluation: the first test breaks
all of them. The last ones start real processes under real variables.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fractopt.objective.base import Evaluation, silent
from fractopt.objective.lora import runtime
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Score, Train
from fractopt.parallel.group import evaluation_environment
from fractopt.trial import Kind, Outcome, Status

sys.path.append(str(Path(__file__).resolve().parents[2] / "parallel"))

from ranks import MPIRUN, needs_mpi

pytestmark = pytest.mark.llm

POINT = {"learning_rate": 1e-2, "lora_rank": 4}
# Of a step of nine ranks that srun started, each of which mpirun, and torchrun, believe to have started too.
LAUNCHED = {
    "OMPI_COMM_WORLD_SIZE": "9",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "3",
    "PMIX_RANK": "3",
    "PMIX_NAMESPACE": "prterun-node1-17@1",
    "PMIX_SERVER_URI41": "prterun-node1-17@0.0;tcp4://127.0.0.1:9",
    "PMI_RANK": "3",
    "PMI_SIZE": "9",
    "SLURM_JOB_ID": "17",
    "SLURM_JOB_NAME": "lora",  # of an interactive one Lightning takes no notice
    "SLURM_NTASKS": "9",  # and no SLURM_NTASKS_PER_NODE
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "3",
    "SLURM_NODELIST": "node[1-3]",
    "LOCAL_RANK": "1",
    "RANK": "3",
    "WORLD_SIZE": "9",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
}


@pytest.fixture
def brief(short: Callable[..., LoraSettings]) -> LoraSettings:
    """A fine-tune of four steps, 16 questions."""
    train = Train(epochs=1, max_steps=4, warmup_steps=2)
    return short(train=train, score=Score(batch=16, questions=16), test_metrics=())


def evaluate(settings: LoraSettings) -> Outcome:
    from fractopt.objective.lora.objective import LoraObjective

    return LoraObjective(settings)(Evaluation(1, Kind.SEARCH, POINT, 0), silent)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As the other tests of this folder compute."""
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(1)


def test_nothing_is_looked_for_started_or_parsed(
    brief: LoraSettings, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    import lightning.fabric
    import lm_eval.evaluator
    from lightning.fabric.plugins.environments import MPIEnvironment, SLURMEnvironment

    def forbidden(*of: object, **named: object) -> NoReturn:
        raise AssertionError("an evaluation has no use for this")

    for name, value in LAUNCHED.items():  # even if they came as far as this process
        monkeypatch.setenv(name, value)
    for owner, attribute in [
        (lightning.fabric.Fabric, "__init__"),
        (MPIEnvironment, "detect"),
        (SLURMEnvironment, "detect"),
        (lm_eval.evaluator, "simple_evaluate"),
        (os, "fork"),  # a loader's workers
        (os, "posix_spawn"),
        (subprocess.Popen, "__init__"),
        (socket.socket, "connect"),
    ]:
        monkeypatch.setattr(owner, attribute, forbidden)
    arguments = ["fractopt", "--devices", "8", "finetune_lora", "--help"]
    monkeypatch.setattr(sys, "argv", list(arguments))
    outcome = evaluate(brief)
    assert sys.argv == arguments
    assert (outcome.status, outcome.metrics["train/steps"]) == (Status.OK, 4.0), outcome.message


@pytest.mark.parametrize(
    ("given", "threads"), [("3", 3), ("1", 1), ("", 2), ("0", 2), ("many", 2), ("4,2", 2)]
)
def test_torch_computes_on_the_threads_that_a_worker_has(
    monkeypatch: pytest.MonkeyPatch, one_thread: None, given: str, threads: int
) -> None:
    import torch

    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    runtime.prepare()
    assert torch.get_num_threads() == threads


def test_libraries_find_the_environment_set_when_they_are_imported(
    monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    for name in runtime.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # what a user says stays
    seen: list[tuple[str, dict[str, str]]] = []
    real = runtime.importlib.import_module

    def note(name: str) -> Any:
        seen.append((name, dict(os.environ)))
        return real(name)

    monkeypatch.setattr(runtime.importlib, "import_module", note)
    runtime.prepare()
    assert {"torch", "litgpt.lora", "lm_eval.api.task"} <= {name for name, _ in seen}
    wanted = {**runtime.ENVIRONMENT, "HF_HUB_OFFLINE": "0"}
    assert wanted["TOKENIZERS_PARALLELISM"] == "false"
    assert {"HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"} <= set(wanted)
    for _, environment in seen:
        assert {name: environment.get(name) for name in wanted} == wanted


def test_no_variable_of_a_launcher_comes_into_an_evaluation_process() -> None:
    """Nor SLURM's number of tasks, which Lightning refuses without that of tasks on a node."""
    kept = evaluation_environment({**LAUNCHED, "HF_TOKEN": "x"}, "", 2)
    assert set(kept) & set(LAUNCHED) == {"SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_NODELIST"}
    assert (kept["HF_TOKEN"], kept["OMP_NUM_THREADS"]) == ("x", "2")


# --- real processes

PROBE = """
import os, sys
from dataclasses import replace
from pathlib import Path
from fractopt.objective.registry import build
from fractopt.parallel import evaluation

class Probed:
    "The objective, and then what the libraries make of this process."

    def __init__(self, spec):
        self.objective = build(spec)

    def __call__(self, asked, report):
        outcome = self.objective(asked, report)
        imported = "mpi4py" in sys.modules
        import torch
        from lightning.fabric.plugins.environments import SLURMEnvironment
        children = [pid for task in Path("/proc/self/task").iterdir()
                    for pid in (task / "children").read_text().split()]
        facts = {
            "mpi4py": imported, "children": len(children), "threads": torch.get_num_threads(),
            "slurm": SLURMEnvironment.detect(), "elastic": torch.distributed.is_torchelastic_launched(),
            "ranks": ranks(),
            "tokenizers": os.environ["TOKENIZERS_PARALLELISM"] != "false",
        }
        return replace(outcome, metrics={**outcome.metrics, **{k: float(v) for k, v in facts.items()}})

def ranks():
    "As a Fabric sees it, which starts MPI for that; 1 on a machine without."
    from lightning.fabric import Fabric
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return 1
    return Fabric(devices=1, accelerator="cpu").world_size

sys.exit(evaluation.main(sys.argv[1:], Probed))
"""


@pytest.mark.slow
def test_a_fine_tune_below_slurm_mpirun_and_torchrun(
    brief: LoraSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_thread: None
) -> None:
    from fractopt.config.objective import plain
    from fractopt.parallel.message import Finished, Limits, Place, Setup, Task, Unusable
    from fractopt.parallel.worker import Supervisor, end

    expected = evaluate(brief)
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "probe.py").write_text(PROBE)
    setup = Setup({"kind": "lora", **plain(brief)}, "", Limits(timeout_s=300.0))
    supervisor = Supervisor(Place(1, "", 1), setup, (sys.executable, str(tmp_path / "probe.py")))
    supervisor.start()
    supervisor.send(Task(0, 0, "search", dict(POINT), 0))
    said: list[Any] = []
    limit = time.monotonic() + 300.0
    while not any(isinstance(message, Finished | Unusable) for message in said):
        assert time.monotonic() < limit
        said += supervisor.poll()
        time.sleep(0.01)
    end([supervisor], 5.0)
    assert isinstance(said[-1], Finished), said[-1]
    outcome = said[-1].outcome
    assert outcome.status is Status.OK, outcome.message
    assert (outcome.value, outcome.metrics["train/loss"]) == (expected.value, expected.metrics["train/loss"])
    facts = ("mpi4py", "children", "threads", "slurm", "elastic", "ranks", "tokenizers")
    assert [outcome.metrics[name] for name in facts] == [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]


RUN = """
[run]
budget = 2
[optimizer]
name = "random"
[space]
learning_rate = { type = "float", low = 1e-4, high = 1e-2, log = true }
[objective]
kind = "lora"
metric = "tiny/acc"
model = { name = "fractopt/tiny", precision = "32-true" }
data = { name = "fractopt/tiny" }
train = { max_steps = 4, warmup_steps = 2 }
score = { questions = 16 }
"""


class TestUnderMpirun:
    pytestmark = [*needs_mpi, pytest.mark.slow]  # noqa: RUF012  (as pytest wants it)

    def test_two_workers_fine_tune_though_slurm_says_nine_tasks(self, tmp_path: Path) -> None:
        root = Path(__file__).resolve().parents[3]
        (tmp_path / "c.toml").write_text(RUN)
        sourced = f". '{root}/jobs/env.sh'; exec \"$@\""
        fractopt = [sys.executable, "-c", "from fractopt.cli.main import main; main()"]
        slurm = {name: value for name, value in LAUNCHED.items() if name.startswith("SLURM_JOB_NAME")}
        assert MPIRUN is not None
        done = subprocess.run(
            ["sh", "-c", sourced, "sh", MPIRUN, "-n", "3", *fractopt, "run", "c.toml", "--out", "run"],
            cwd=tmp_path,
            env={**os.environ, **slurm, "SLURM_NTASKS": "9", "SLURM_JOB_ID": "17", "LOCAL_RANK": "1"},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        from fractopt.archive.store import load

        history = load(tmp_path / "run")
        assert [outcome.status for _, outcome in history.told] == [Status.OK, Status.OK]
        assert history.complete
