"""What every transport owes its master, as functions of a started transport whose workers are idle.

They leave all workers idle again. The MPI transport runs them inside a job:

    mpirun -n N python transport_scenarios.py DIRECTORY

Rank 0 then prints one JSON object, {scenario: traceback or ""}.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from fractopt.parallel.message import Ended, Finished, FromWorker, Hello, Limits, Progress, Setup, Task
from fractopt.parallel.transport import Transport
from fractopt.space import Value
from fractopt.trial import Status

Scenario = Callable[[Transport, Path], None]
COMMAND = (sys.executable, str(Path(__file__).with_name("evaluating.py")))
LIMITS = Limits(timeout_s=20.0, stall_timeout_s=1.5)
PATIENCE_S = 30.0
_trials = count()


def task(do: str, x: float = 0.0, attempt: int = 0) -> Task:
    params: dict[str, Value] = {"do": do, "x": x}
    return Task(next(_trials), attempt, "search", params, seed=7)


def arrivals(transport: Transport) -> Iterator[FromWorker]:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        yield from transport.receive(1.0)
    raise AssertionError(f"nothing more came within {PATIENCE_S} s")


def begin(transport: Transport, directory: Path, workers: int) -> None:
    transport.start(Setup({"kind": "scripted"}, str(directory), LIMITS))
    hellos: list[Hello] = []
    for message in arrivals(transport):
        if isinstance(message, Hello):
            hellos.append(message)
        if len(hellos) == workers:
            break
    assert sorted(hello.worker for hello in hellos) == list(range(1, workers + 1))
    assert all(hello.threads >= 1 for hello in hellos)
    assert list(transport.idle()) == list(range(1, workers + 1))
    assert transport.expected() == workers


def attempt(transport: Transport, given: Task) -> Finished | Ended:
    """Run one task on the first idle worker, to its end."""
    worker = transport.idle()[0]
    transport.send(worker, given)
    assert worker not in transport.idle()
    for message in arrivals(transport):
        if isinstance(message, (Finished, Ended)):
            assert (message.worker, message.trial, message.attempt) == (worker, given.trial, given.attempt)
            assert worker in transport.idle()
            assert message.seconds >= 0
            return message
        assert isinstance(message, Progress), message
    raise AssertionError


def outcome_of(transport: Transport, given: Task, status: Status) -> Finished:
    message = attempt(transport, given)
    assert isinstance(message, Finished), message
    assert message.outcome.status is status, message
    return message


def serves_on(transport: Transport) -> None:
    assert outcome_of(transport, task("return", 2.5), Status.OK).outcome.value == 2.5


def every_task_is_finished_once(transport: Transport, directory: Path) -> None:
    todo = [task("return", 0.1 * x, attempt=x % 3) for x in range(12)]
    waiting, running = list(todo), dict[int, Task]()
    done: dict[int, Finished] = {}
    for worker in transport.idle():
        running[worker] = waiting.pop()
        transport.send(worker, running[worker])
    for message in arrivals(transport):
        if isinstance(message, Finished):
            given = running.pop(message.worker)
            assert (message.trial, message.attempt) == (given.trial, given.attempt)
            assert message.trial not in done
            done[message.trial] = message
            if waiting:
                running[message.worker] = waiting.pop()
                transport.send(message.worker, running[message.worker])
        if len(done) == len(todo):
            break
    for given in todo:
        outcome = done[given.trial].outcome
        assert outcome.value == given.params["x"]  # to the last bit
        assert outcome.metrics["seed"] == given.seed
        assert outcome.metrics["attempt"] == given.attempt


def an_exception_is_a_failure(transport: Transport, directory: Path) -> None:
    message = outcome_of(transport, task("raise", 2.0), Status.FAILED).outcome.message
    assert message.splitlines()[0] == "ValueError: no good: 2.0"
    assert "in do_raise" in message  # the traceback follows
    serves_on(transport)


def an_exit_is_a_failure(transport: Transport, directory: Path) -> None:
    message = outcome_of(transport, task("leave", 3), Status.FAILED).outcome.message
    assert message.splitlines()[0] == "SystemExit: 3"
    serves_on(transport)


def a_wrong_result_is_a_failure(transport: Transport, directory: Path) -> None:
    message = outcome_of(transport, task("type"), Status.FAILED).outcome.message
    assert message.splitlines()[0] == "TypeError: the objective returned a dict, expected an Outcome"
    message = outcome_of(transport, task("metrics"), Status.FAILED).outcome.message
    assert "bytes of metrics" in message
    serves_on(transport)


def running_out_of_memory_is_told_apart(transport: Transport, directory: Path) -> None:
    message = outcome_of(transport, task("memory"), Status.OOM).outcome.message
    assert "Tried to allocate 2 GiB" in message
    serves_on(transport)


def a_result_is_on_the_disk(transport: Transport, directory: Path) -> None:
    given = task("return", 0.1, attempt=2)
    outcome = outcome_of(transport, given, Status.OK).outcome
    place = directory / "evals" / f"{given.trial:06d}"
    record = json.loads((place / "result.json").read_text())
    assert record == {"trial": given.trial, "attempt": 2, "seed": 7, "outcome": outcome.to_json()}
    assert not list(place.glob("*.tmp"))


def nothing_comes_in_time(transport: Transport, directory: Path) -> None:
    started = time.monotonic()
    assert transport.receive(0.05) == []
    assert time.monotonic() - started < 5.0


def output_goes_to_files(transport: Transport, directory: Path) -> None:
    given = task("print")
    outcome_of(transport, given, Status.OK)
    place = directory / "evals" / f"{given.trial:06d}"
    assert (place / "stdout.log").read_text().splitlines() == [
        "printed by Python",
        "written to the file descriptor",
        "printed by a command",
    ]
    assert (place / "stderr.log").read_text() == "an error printed by Python\n"


def a_killed_evaluation_is_an_attempt_that_ended(transport: Transport, directory: Path) -> None:
    for signal, name in ((9, "SIGKILL"), (11, "SIGSEGV")):
        message = attempt(transport, task("die", signal))
        assert isinstance(message, Ended)
        assert message.how == "killed"
        assert f"killed by {name}" in message.message
    message = attempt(transport, task("exit", 3))
    assert isinstance(message, Ended)
    assert "exited with code 3" in message.message
    serves_on(transport)


def nonsense_on_the_result_channel_is_a_failure(transport: Transport, directory: Path) -> None:
    for do in ("garbage", "flood", "impostor"):
        message = outcome_of(transport, task(do), Status.FAILED).outcome.message
        assert "result channel" in message
    serves_on(transport)


def progress_is_reported(transport: Transport, directory: Path) -> None:
    given = task("work", 0.3)
    worker = transport.idle()[0]
    transport.send(worker, given)
    seen: list[Progress] = []
    for message in arrivals(transport):
        if isinstance(message, Finished):
            break
        assert isinstance(message, Progress)
        seen.append(message)
    assert [p.phase for p in seen if p.phase != "setup"][:2] == ["begin", "train"]
    assert seen[-1].total == 30
    assert seen[-1].loss is not None
    assert len(seen) <= 4  # 30 steps were reported


def no_trace_of_the_launcher_is_left(transport: Transport, directory: Path) -> None:
    metrics = outcome_of(transport, task("environment"), Status.OK).outcome.metrics
    assert metrics["launcher variables"] == 0
    assert metrics["threads"] >= 1


def silence_ends_in_a_timeout(transport: Transport, directory: Path) -> None:
    message = outcome_of(transport, task("sleep", 60), Status.TIMEOUT)
    assert "stall_timeout" in message.outcome.message
    assert message.outcome.seconds < 10
    serves_on(transport)


WITHOUT_FILES: tuple[Scenario, ...] = (
    every_task_is_finished_once,
    an_exception_is_a_failure,
    an_exit_is_a_failure,
    a_wrong_result_is_a_failure,
    running_out_of_memory_is_told_apart,
    nothing_comes_in_time,
)
IN_PROCESS: tuple[Scenario, ...] = (*WITHOUT_FILES, a_result_is_on_the_disk)
SUPERVISED: tuple[Scenario, ...] = (
    *IN_PROCESS,
    output_goes_to_files,
    a_killed_evaluation_is_an_attempt_that_ended,
    nonsense_on_the_result_channel_is_a_failure,
    progress_is_reported,
    no_trace_of_the_launcher_is_left,
    silence_ends_in_a_timeout,
)


def main(directory: Path) -> None:
    from fractopt.parallel import launch

    launch.check_mpi()
    from fractopt.parallel import mpi, rank

    if not mpi.is_master():
        rank.serve(command=COMMAND)
    transport = mpi.MpiTransport()
    results = {}
    try:
        begin(transport, directory, mpi.world_size() - 1)
        for scenario in SUPERVISED:
            try:
                scenario(transport, directory)
                results[scenario.__name__] = ""
            except Exception:
                results[scenario.__name__] = traceback.format_exc()
        print(json.dumps(results))
    finally:
        transport.leave(0 if results else 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
