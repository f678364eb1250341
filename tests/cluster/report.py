"""Runs the cycles on real schedulers of this machine and writes what they found to bench/results/cluster.md.

    python tests/cluster/report.py             # all of them, a quarter of an hour; root and Debian's packages
    python tests/cluster/report.py slurm       # these alone; the others keep what was found before

Exits 1 where a promise is broken.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import oar
import oar_cycles
import slurm
import slurm_cycles

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "cluster.json"
HEAD = """\
# Jobs on real schedulers

Written by `python tests/cluster/report.py`: scripts that `fractopt job` prints, on a SLURM and an OAR of this
machine ({machine}). The nodes are daemons on one host, the GPUs are device files that nothing computes
on, the evaluations sleep; what is measured is how a job lives. tests/cluster says how each cycle works.

| scheduler | cycle | seconds | seen |
|---|---|---|---|
"""


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with all that a cluster puts back at its end
    wanted = sys.argv[1:] or ["slurm", "oar"]
    if unknown := set(wanted) - {"slurm", "oar"}:
        print(f"unknown scheduler {', '.join(sorted(unknown))}; expected slurm or oar", file=sys.stderr)
        return 2
    broken = 0
    for scheduler in wanted:
        if reason := {"slurm": slurm.why_not, "oar": oar.why_not}[scheduler]():
            print(f"{scheduler}: {reason}", file=sys.stderr)
            return 1
        rows = []
        for name, cycle in {"slurm": on_slurm, "oar": on_oar}[scheduler]():
            began = time.monotonic()
            try:
                seen = cycle()
            except AssertionError as error:
                broken += 1
                seen = f"BROKEN: {str(error).splitlines()[0]}"
                print(error, file=sys.stderr)
            rows.append([name, f"{time.monotonic() - began:.0f}", seen])
            print(f"{scheduler} {' | '.join(rows[-1])}", flush=True)
        keep(scheduler, {"version": version(scheduler), "commit": commit(), "rows": rows})
    return 1 if broken else 0


def on_slurm() -> Iterator[tuple[str, Callable[[], str]]]:
    for cycle in slurm_cycles.CYCLES:
        with slurm.Slurm() as cluster:
            yield cycle.__name__, partial(cycle, cluster)


def on_oar() -> Iterator[tuple[str, Callable[[], str]]]:
    with oar.Oar() as cluster:
        for cycle in oar_cycles.CYCLES:
            yield cycle.__name__, partial(cycle, cluster)


def keep(scheduler: str, found: dict[str, Any]) -> None:
    """Put what was found into the results, and write the table anew."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[scheduler] = found
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    text = HEAD.format(machine=machine)
    for scheduler in sorted(results, reverse=True):
        for name, seconds, seen in results[scheduler]["rows"]:
            text += f"| {scheduler} | {name.replace('_', ' ')} | {seconds} | {seen} |\n"
    notes = [f"{one['version']} at {one['commit']}" for one in results.values()]
    RESULTS.with_suffix(".md").write_text(f"{text}\nBy commit: {', '.join(notes)}.\n")


def version(scheduler: str) -> str:
    package = {"slurm": "slurm-wlm", "oar": "oar-server"}[scheduler]
    asked = ["dpkg-query", "--showformat", "${Package} ${Version}", "--show", package]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def commit() -> str:
    described = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(described, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
