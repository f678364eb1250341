"""What the scheduler knows of a job that we are not in: whether it is over."""

from __future__ import annotations

import subprocess

PATIENCE_S = 10.0  # for an answer; a scheduler under load may take seconds
_OVER_IN_OAR = ("Terminated", "Error")


def is_over(job: str, number: int) -> bool | None:
    """Whether `job` of a LOCK is over, None where nobody can tell.

    `job` is "slurm:ID", or "oar:ARRAY" with the `number` of the job in its array. A job that is still
    completing is not over: its processes may live.
    """
    scheduler, _, identity = job.partition(":")
    if scheduler == "slurm" and identity.isdecimal():
        done = _ask("squeue", "--noheader", f"--jobs={identity}", "--format=%T")
        if done is None:
            return None
        if done.returncode == 0:
            return not done.stdout.strip()
        return True if "Invalid job id" in done.stderr else None  # forgotten, some minutes after its end
    if scheduler == "oar":
        done = _ask("oarstat", "--state", "--job", str(number))
        if done is None or done.returncode != 0 or not done.stdout.strip():
            return None
        return done.stdout.split()[-1] in _OVER_IN_OAR
    return None


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):  # no such scheduler here, or it does not answer
        return None
