"""An evaluation process for tests, whose objective does what its parameters say."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from fractopt.objective.base import Evaluation, Objective, Report, UnusableError
from fractopt.parallel import evaluation
from fractopt.trial import Outcome, Status

COMMAND = (sys.executable, __file__)


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class Scripted:
    """Does what the parameter `do` says; the value is the parameter `x`."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def __call__(self, task: Evaluation, report: Report) -> Outcome:
        report("begin", 0, 2)
        x = float(task.params.get("x", 0.0))
        do = str(task.params.get("do", "return"))
        return getattr(self, f"do_{do}")(task, report, x)

    def do_return(self, task: Evaluation, report: Report, x: float) -> Outcome:
        del report
        return Outcome(Status.OK, x, metrics={"pid": os.getpid(), "seed": task.seed, "attempt": task.attempt})

    def do_raise(self, task: Evaluation, report: Report, x: float) -> Outcome:
        raise ValueError(f"no good: {x}")

    def do_leave(self, task: Evaluation, report: Report, x: float) -> Outcome:
        sys.exit(int(x))

    def do_memory(self, task: Evaluation, report: Report, x: float) -> Outcome:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def do_type(self, task: Evaluation, report: Report, x: float) -> Any:
        return {"value": x}

    def do_metrics(self, task: Evaluation, report: Report, x: float) -> Outcome:
        return Outcome(Status.OK, x, metrics={f"metric {i:100d}": 0.5 for i in range(10_000)})

    def do_die(self, task: Evaluation, report: Report, x: float) -> Outcome:
        os.kill(os.getpid(), signal.Signals(int(x)))
        time.sleep(60)
        raise AssertionError

    def do_no_room(self, task: Evaluation, report: Report, x: float) -> Outcome:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch/adapter.pth")

    def do_unusable(self, task: Evaluation, report: Report, x: float) -> Outcome:
        raise UnusableError("the questions have changed")

    def do_exit(self, task: Evaluation, report: Report, x: float) -> Outcome:
        os._exit(int(x))

    def do_die_once(self, task: Evaluation, report: Report, x: float) -> Outcome:
        if task.attempt == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.do_return(task, report, x)

    def do_sleep(self, task: Evaluation, report: Report, x: float) -> Outcome:
        time.sleep(x)
        return self.do_return(task, report, x)

    def do_work(self, task: Evaluation, report: Report, x: float) -> Outcome:
        for step in range(int(x * 100)):
            time.sleep(0.01)
            report("train", step, int(x * 100), 1.0 / (step + 1))
        return self.do_return(task, report, x)

    def do_orphan(self, task: Evaluation, report: Report, x: float) -> Outcome:
        """Leave a process behind that ignores SIGTERM, and sleep."""
        subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
        time.sleep(x)
        return self.do_return(task, report, x)

    def do_estrange(self, task: Evaluation, report: Report, x: float) -> Outcome:
        """As torchrun: leave a process behind in a session of its own that ignores SIGTERM, and sleep."""
        code = "trap '' TERM; while :; do sleep 1; done"
        subprocess.Popen(["/bin/sh", "-c", code], start_new_session=True)
        time.sleep(x)
        return self.do_return(task, report, x)

    def do_grow(self, task: Evaluation, report: Report, x: float) -> Outcome:
        """Keep x more MB."""
        self.kept.append(b"x" * int(x * 1e6))
        return self.do_return(task, report, x)

    def do_swell(self, task: Evaluation, report: Report, x: float) -> Outcome:
        """Hold x MB in a child process, and wait."""
        code = f"import time; held = b'x' * int({x}e6); time.sleep(60)"
        own = "own session" in task.params
        subprocess.run([sys.executable, "-c", code], check=True, start_new_session=own)
        raise AssertionError

    def do_print(self, task: Evaluation, report: Report, x: float) -> Outcome:
        print("printed by Python")
        print("an error printed by Python", file=sys.stderr)
        os.write(1, b"written to the file descriptor\n")
        subprocess.run(["echo", "printed by a command"], check=True)
        return self.do_return(task, report, x)

    def do_garbage(self, task: Evaluation, report: Report, x: float) -> Outcome:
        os.write(int(sys.argv[2]), b'{"type": "finished", "trial": 1}\n')
        time.sleep(60)
        raise AssertionError

    def do_flood(self, task: Evaluation, report: Report, x: float) -> Outcome:
        while True:
            os.write(int(sys.argv[2]), b"x" * 65536)

    def do_impostor(self, task: Evaluation, report: Report, x: float) -> Outcome:
        """Claims a result for another trial."""
        line = b'{"type":"finished","worker":1,"trial":%d,"attempt":0,"outcome":' % (task.id + 1)
        os.write(int(sys.argv[2]), line + b'{"status":"ok","value":0.0,"seconds":0.0},"seconds":0.0}\n')
        time.sleep(60)
        raise AssertionError

    def do_environment(self, task: Evaluation, report: Report, x: float) -> Outcome:
        names = [n for n in os.environ if n.startswith(("OMPI_", "PMIX_", "PRTE_", "PMI_", "MPI"))]
        threads = float(os.environ["OMP_NUM_THREADS"])
        cores = {tuple(os.sched_getaffinity(int(thread))) for thread in os.listdir("/proc/self/task")}
        return Outcome(
            Status.OK,
            x,
            metrics={
                "launcher variables": len(names),
                "threads": threads,
                "devices": len(list(filter(None, os.environ["CUDA_VISIBLE_DEVICES"].split(",")))),
                "cores": sum(map(len, cores)),  # of all its threads alike, or it is too many
            },
        )


def build(spec: Mapping[str, Any]) -> Objective:
    """`spec["build"]` says how building goes."""
    match spec.get("build", "well"):
        case "unusable":
            raise UnusableError("no such model 'llama'; expected a path")
        case "raise":
            raise RuntimeError("an unexpected error while building")
        case "die":
            print("a last word", file=sys.stderr)
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(60)
        case "slow":
            time.sleep(0.3)
        case "once":  # the first process builds it, its successor does not
            if os.path.exists(spec["marker"]):
                raise UnusableError("not a second time")
            open(spec["marker"], "w").close()
    return Scripted()


if __name__ == "__main__":
    sys.exit(evaluation.main(sys.argv[1:], build))
