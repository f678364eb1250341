"""How long an evaluation takes on this machine, measured in a process of its own: here is no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from fractopt.objective.base import Measured, UnusableError
from fractopt.space import Value
from fractopt.text import masked


def measure(objective: Mapping[str, Any], params: Mapping[str, Value]) -> Measured:
    """What an evaluation of `params` takes by the `objective`, as its settings in JSON say it.

    Raises UnusableError where it cannot be set up, or breaks off.
    """
    command = [sys.executable, "-m", "fractopt.objective.lora.measuring", str(time.monotonic())]
    spec = json.dumps({"objective": objective, "params": dict(params)})
    done = subprocess.run(command, input=spec, capture_output=True, text=True, check=False)
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        reason = masked(done.stderr).strip().rpartition("\n")[2]
        raise UnusableError(
            f"the measurement broke off: {reason or f'exit code {done.returncode}'}"
        ) from None
    if "unusable" in said:
        raise UnusableError(said["unusable"])
    return Measured(**said)
