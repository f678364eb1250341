"""Supervision, with real processes and real kills."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluating import COMMAND
from ranks import MARK, marked, survivors

from fractopt.objective.base import silent
from fractopt.parallel import evaluation
from fractopt.parallel.group import evaluation_environment
from fractopt.parallel.message import (
    Ended,
    Finished,
    FromWorker,
    Hello,
    Limits,
    Place,
    Progress,
    Setup,
    Task,
    Unusable,
)
from fractopt.parallel.processes import ProcessesTransport
from fractopt.parallel.worker import MAX_START_FAILURES, Supervisor, end
from fractopt.trial import Outcome, Status

PATIENCE_S = 30.0
ANYWHERE = Place(1, "", 1)


@pytest.fixture(autouse=True)
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every process started here carries the mark; none may be left at the end."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    yield mark
    assert survivors(mark) == {}


class Watched:
    """A supervisor whose owner does nothing else."""

    def __init__(
        self,
        spec: dict[str, Any] | None = None,
        directory: str = "",
        place: Place = ANYWHERE,
        **limits: Any,
    ) -> None:
        self.supervisor = Supervisor(place, Setup(spec or {}, directory, Limits(**limits)), COMMAND)
        self.supervisor.start()

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *error: object) -> None:
        end([self.supervisor], 0.0)
        assert self.supervisor.closed

    def until(self, *types: type[FromWorker]) -> Any:
        """The next message of one of these types."""
        limit = time.monotonic() + PATIENCE_S
        while time.monotonic() < limit:
            for message in self.supervisor.poll():
                if isinstance(message, types):
                    return message
            time.sleep(0.002)
        raise AssertionError(f"no {types} within {PATIENCE_S} s")

    def run(self, do: str, x: float = 0.0, trial: int = 0, **more: Any) -> Finished | Ended:
        self.supervisor.send(Task(trial, 0, "search", {"do": do, "x": x, **more}, 7))
        message = self.until(Finished, Ended)
        assert isinstance(message, (Finished, Ended))
        return message

    def pid(self) -> int:
        message = self.run("return")
        assert isinstance(message, Finished)
        return int(message.outcome.metrics["pid"])


def test_a_process_is_kept_between_evaluations() -> None:
    with Watched() as watched:
        assert watched.pid() == watched.pid()


def test_a_process_is_replaced_where_asked() -> None:
    with Watched(reuse_process=False) as watched:
        assert len({watched.pid() for _ in range(3)}) == 3


def test_a_process_that_ran_out_of_memory_is_replaced() -> None:
    with Watched() as watched:
        before = watched.pid()
        assert watched.run("memory").outcome.status is Status.OOM  # type: ignore[union-attr]
        assert watched.pid() != before


def test_a_process_that_grows_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fractopt.parallel.worker.GROWTH_BYTES", 100_000_000)
    with Watched() as watched:
        pids = [watched.run("grow", 60).outcome.metrics["pid"] for _ in range(4)]  # type: ignore[union-attr]
        assert pids[0] == pids[1] == pids[2]  # 60 MB at first, then 120 MB more
        assert pids[3] != pids[0]


def test_an_evaluation_has_the_devices_and_the_cores_of_its_place() -> None:
    allowed = os.sched_getaffinity(0)
    with Watched(place=Place(1, "0,1", 1, [max(allowed)])) as watched:
        assert os.sched_getaffinity(0) == allowed
        ended = watched.run("environment")
        assert isinstance(ended, Finished)
        metrics = ended.outcome.metrics
        assert {name: metrics[name] for name in ("devices", "threads", "cores")} == {
            "devices": 2,
            "threads": 1,
            "cores": 1,
        }


def test_cores_that_are_not_there_any_more_are_no_reason_to_fail() -> None:
    with Watched(place=Place(1, "", 1, [1000])) as watched:
        ended = watched.run("environment")
        assert isinstance(ended, Finished)
        assert ended.outcome.metrics["cores"] == len(os.sched_getaffinity(0))


def test_workers_beyond_the_devices_get_nothing_to_do_where_none_is_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    transport = ProcessesTransport(3, command=COMMAND)
    transport.start(Setup({}, "", Limits(), gpus_per_worker=2, share_gpus=False))
    said: dict[int, FromWorker] = {}
    limit = time.monotonic() + PATIENCE_S
    while len(said) < 3 and time.monotonic() < limit:
        said |= {m.worker: m for m in transport.receive(1.0) if isinstance(m, (Hello, Unusable))}
    assert transport.idle() == [1, 2]
    transport.close(0.0)
    assert [said[n].device for n in (1, 2)] == ["0,1", "2,3"]  # type: ignore[union-attr]
    assert isinstance(said[3], Unusable)
    assert "no device" in said[3].message


@pytest.mark.parametrize("outside", [{}, {"own session": True}])
def test_what_an_evaluation_and_its_children_hold_is_limited(outside: dict[str, bool]) -> None:
    with Watched(memory_bytes=300_000_000) as watched:
        first = watched.pid()
        ended = watched.run("swell", 400.0, trial=1, **outside)
        assert isinstance(ended, Finished)
        assert ended.outcome.status is Status.OOM
        assert ended.outcome.message.endswith("GB of memory, more than the 0.3 GB allowed")
        assert watched.pid() != first


def test_an_evaluation_is_not_charged_with_what_the_one_before_left() -> None:
    with Watched(memory_bytes=300_000_000) as watched:
        watched.supervisor._weighed_at = time.monotonic() + 3600.0  # it ends between two looks
        grown = watched.run("grow", 400.0)
        watched.supervisor._weighed_at = 0.0
        following = watched.run("sleep", 0.5, trial=1)
        assert isinstance(grown, Finished)
        assert isinstance(following, Finished)
        assert following.outcome.status is Status.OK
        assert following.outcome.metrics["pid"] != grown.outcome.metrics["pid"]


def test_the_kernel_is_to_end_an_evaluation_before_a_rank() -> None:
    with Watched() as watched:
        score = Path(f"/proc/{watched.pid()}/oom_score_adj").read_text()
        assert int(score) > int(Path("/proc/self/oom_score_adj").read_text())


def test_a_process_killed_from_outside_is_replaced() -> None:
    with Watched() as watched:
        watched.supervisor.send(Task(0, 0, "search", {"do": "sleep", "x": 60}, 7))
        progress = watched.until(Progress)
        while progress.phase == "setup":
            progress = watched.until(Progress)
        os.kill(progress.pid, signal.SIGKILL)
        ended = watched.until(Ended)
        assert (ended.how, ended.trial) == ("killed", 0)
        idle = watched.pid()
        os.kill(idle, signal.SIGKILL)  # while it has nothing to do: nobody needs to hear of it
        time.sleep(0.2)
        assert watched.pid() != idle


@pytest.mark.parametrize("do", ["orphan", "estrange"])
def test_what_an_evaluation_started_ends_with_it(mark: str, do: str) -> None:
    """A grandchild that ignores SIGTERM is gone before the attempt is over."""
    with Watched(timeout_s=4.0) as watched:  # which holds for the process's start too
        message = watched.run(do, 60)
        assert isinstance(message, Finished)
        assert message.outcome.status is Status.TIMEOUT
        assert "longer than the timeout of 4 s" in message.outcome.message
        mine = {pid: line for pid, line in marked(mark).items() if pid != os.getpid()}
        assert not [line for line in mine.values() if "while" in line]
        watched.pid()


def test_a_job_that_was_suspended_did_not_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fractopt.parallel.worker.PAUSE_S", 0.5)
    with Watched(stall_timeout_s=4.0, timeout_s=20.0) as watched:
        watched.until(Hello)
        watched.supervisor.send(Task(0, 0, "search", {"do": "sleep", "x": 1.0}, 7))
        pid = watched.until(Progress).pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(5.0)  # and nobody polls
        os.kill(pid, signal.SIGCONT)
        assert watched.until(Finished).outcome.status is Status.OK


def test_progress_keeps_a_stall_away() -> None:
    with Watched(stall_timeout_s=0.4) as watched:
        assert watched.run("work", 1.2).outcome.status is Status.OK  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("unusable", "no such model 'llama'; expected a path"),
        ("raise", "the objective could not be set up: RuntimeError: an unexpected error while building"),
        ("die", f"(often the kernel out of memory, or a scheduler) {MAX_START_FAILURES} times before it ran"),
        ("hang", "the objective's set-up ran longer than the timeout of 0.5 s"),
    ],
)
def test_an_objective_that_cannot_be_set_up_is_said_once(how: str, expected: str) -> None:
    with Watched({"build": how}, timeout_s=0.5 if how == "hang" else None) as watched:
        message = watched.until(Unusable, Hello)
        assert isinstance(message, Unusable)
        assert expected in message.message
        if how == "die":
            assert "a last word" in message.message
        assert watched.supervisor.closed
        assert watched.supervisor.poll() == []


def test_a_task_is_not_lost_with_a_worker_that_becomes_unusable(tmp_path: Path) -> None:
    with Watched({"build": "once", "marker": str(tmp_path / "marker")}, reuse_process=False) as watched:
        watched.pid()
        watched.supervisor.send(Task(5, 2, "search", {}, 7))
        said = [watched.until(Ended, Unusable)]
        assert (said[0].trial, said[0].attempt, said[0].how) == (5, 2, "lost")


def test_a_task_that_comes_after_the_worker_became_unusable_is_given_back() -> None:
    with Watched({"build": "unusable"}) as watched:
        watched.until(Unusable)
        watched.supervisor.send(Task(5, 2, "search", {}, 7))
        ended = watched.until(Ended)
        assert (ended.trial, ended.attempt, ended.how) == (5, 2, "preempted")
        assert watched.supervisor.poll() == []


@pytest.mark.parametrize(
    ("do", "why"),
    [
        ("no_room", "there is no room left: OSError: [Errno 28] No space left on device"),
        ("unusable", "the questions have changed"),
    ],
)
def test_what_no_other_evaluation_would_do_better_is_no_result_of_this_one(do: str, why: str) -> None:
    with Watched() as watched:
        watched.until(Hello)
        watched.supervisor.send(Task(0, 0, "search", {"do": do}, 7))
        said: list[FromWorker] = []
        limit = time.monotonic() + PATIENCE_S
        while not watched.supervisor.closed and time.monotonic() < limit:
            said += watched.supervisor.poll()
            time.sleep(0.002)
        ended, unusable = (m for m in said if not isinstance(m, Progress))
        assert isinstance(ended, Ended)
        assert ended.how == "preempted"
        assert isinstance(unusable, Unusable)
        assert unusable.message.startswith(why)


def test_an_outcome_is_not_lost_where_neither_it_nor_a_word_about_it_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*of: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(evaluation, "keep_result", no_room)
    full = open("/dev/full", "w", buffering=1)  # noqa: SIM115  (its closing fails)
    monkeypatch.setattr(sys, "stderr", full)
    outcome = evaluation.run(
        lambda task, report: Outcome(Status.OK, 2.5), Task(0, 0, "search", {}, 7), tmp_path, silent
    )
    monkeypatch.undo()
    with contextlib.suppress(OSError):
        full.close()
    assert (outcome.status, outcome.value) == (Status.OK, 2.5)


def test_setting_up_is_visible() -> None:
    with Watched({"build": "slow"}) as watched:
        progress = watched.until(Progress, Hello)
        assert isinstance(progress, Progress)
        assert (progress.phase, progress.trial) == ("setup", -1)
        watched.until(Hello)
        watched.run("memory")
        watched.supervisor.send(Task(3, 0, "search", {}, 7))
        progress = watched.until(Progress)
        assert (progress.phase, progress.trial) == ("setup", 3)
        finished = watched.until(Finished)
        assert finished.seconds > 0.2  # busy with its set-up


def test_stopping_ends_everything_in_time() -> None:
    with Watched() as watched:
        watched.until(Hello)
        watched.supervisor.send(Task(0, 0, "search", {"do": "orphan", "x": 60}, 7))
        time.sleep(0.3)
        started = time.monotonic()
        end([watched.supervisor], 0.3)
        assert watched.supervisor.closed
        assert time.monotonic() - started < 5.0


OWNER = """
import select, sys
from fractopt.parallel.message import Limits, Place, Setup, Task, Hello
from fractopt.parallel.worker import Supervisor
supervisor = Supervisor(Place(1, "", 1), Setup({}, "", Limits()), command=sys.argv[2:])
supervisor.start()
while True:
    for message in supervisor.poll():
        if isinstance(message, Hello):
            supervisor.send(Task(0, 0, "search", {"do": sys.argv[1], "x": 600}, 0))
        elif message.phase == "begin":
            print("running", flush=True)
    select.select(supervisor.filenos(), [], [], 1.0)
"""


@pytest.mark.parametrize("do", ["orphan", "estrange"])
def test_no_process_outlives_a_killed_owner(do: str) -> None:
    """Nor do those that the evaluation started, though the kernel ends the evaluation itself first."""
    for _ in range(2):
        mark = uuid.uuid4().hex
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, do, *COMMAND],
            stdout=subprocess.PIPE,
            env={**os.environ, MARK: mark},
        )
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"running\n"
        time.sleep(0.2)
        assert len(marked(mark)) >= 4  # the owner, the guard, the evaluation, what that started
        owner.kill()
        owner.wait()
        owner.stdout.close()
        assert survivors(mark) == {}


def test_environment() -> None:
    environ = {
        "PATH": "/bin",
        "HF_TOKEN": "x",
        "OMPI_COMM_WORLD_RANK": "1",
        "PMIX_RANK": "1",
        "PRTE_LAUNCHED": "1",
        "PMI_SIZE": "3",
        "MPIR_CVAR": "1",
        "MV2_COMM_WORLD_SIZE": "3",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "node1",
        "TORCHELASTIC_RUN_ID": "none",
        "SLURM_NTASKS": "9",
        "SLURM_STEP_ID": "0",
        "SLURM_JOB_ID": "17",
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",
        "OMP_NUM_THREADS": "1",
    }
    assert evaluation_environment(environ, "GPU-1", 4) == {
        "PATH": "/bin",
        "HF_TOKEN": "x",
        "SLURM_JOB_ID": "17",
        "CUDA_VISIBLE_DEVICES": "GPU-1",
        "OMP_NUM_THREADS": "4",
        "MKL_NUM_THREADS": "4",
        "OPENBLAS_NUM_THREADS": "4",
    }
