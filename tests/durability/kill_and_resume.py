"""kill -9 of mpirun at random instants of a run, then --resume: what must hold each time.

    python tests/durability/kill_and_resume.py [--instants 20] [--config FILE] [--ranks 3] [--seed 0]

After each kill no process of the run is left within SURVIVE_S; after the resume the budget is met
exactly, every evaluation that was durable before the kill is there unchanged, and neither it nor one
whose result was on the disk was started again. Prints one line an instant, exits 1 on any breach.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from processes import MARK, wait_until_gone

from fractopt.archive.history import History
from fractopt.archive.store import load

CONFIG = """
[run]
budget = 24
[optimizer]
name = "soo"
[space]
x = { type = "float", low = -5, high = 5 }
y = { type = "float", low = -5, high = 5 }
[objective]
kind = "synthetic"
function = "himmelblau"
sleep = 0.2
"""


def finished_results(directory: Path) -> set[int]:
    """Trials whose evaluation process left a whole result with a value."""
    found = set()
    for path in directory.glob("evals/*/result.json"):
        record = json.loads(path.read_bytes())  # written aside and renamed: never a part
        if record["outcome"]["status"] == "ok":
            found.add(int(record["trial"]))
    return found


def check(before: History, results: set[int], after: History, budget: int) -> None:
    """Raises AssertionError with what was promised and did not hold."""
    told = {row.id: row for row in before.evaluations}
    final = {row.id: row for row in after.evaluations}
    assert after.complete, "the resumed run is not complete"
    assert len(final) == budget, f"{len(final)} evaluations, the budget is {budget}"
    for number, row in told.items():
        assert final[number].outcome == row.outcome, f"evaluation {number} changed"
        assert search_attempts(final[number], after) == search_attempts(row, before), (
            f"evaluation {number} was run again"
        )
    for number in results - told.keys():
        assert len(final[number].attempts) == len(before.rows[number].attempts), (
            f"evaluation {number} had its result on the disk and was run again"
        )


def search_attempts(row: object, history: History) -> int:
    """Attempts at an evaluation, that for its test metrics at the end excluded."""
    return len(row.attempts) - (row.id in history.tests)  # type: ignore[attr-defined]


def one_instant(command: list[str], directory: Path, delay_s: float, budget: int) -> str:
    """One kill and resume; returns what was seen, raises AssertionError for a breach."""
    mark = uuid.uuid4().hex
    environment = {**os.environ, MARK: mark}
    shutil.rmtree(directory, ignore_errors=True)
    with tempfile.TemporaryFile() as log:
        mpirun = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        time.sleep(delay_s)
        over = mpirun.poll() is not None
        mpirun.send_signal(signal.SIGKILL) if not over else None
        mpirun.wait()
        gone_s = wait_until_gone(mark)
        started = (directory / "journal").is_dir() and any((directory / "journal").glob("*.wal"))
        before = load(directory) if started else None
        results = finished_results(directory)
        resumed = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False)
        wait_until_gone(mark)
        log.seek(0)
        assert resumed.returncode == 0, f"resume ended with {resumed.returncode}:\n{log.read().decode()}"
    after = load(directory)
    if before is None:
        assert len(after.evaluations) == budget
        return f"killed after {delay_s:.2f} s, before the run directory was there"
    check(before, results, after, budget)
    open_attempts = sum(1 for row in before.rows.values() for a in row.attempts if not a.how)
    return (
        f"killed after {delay_s:.2f} s{' (over)' if over else ''}: {len(before.evaluations)} durable, "
        f"{open_attempts} running, {len(results) - len(before.evaluations)} results not yet told; "
        f"gone in {gone_s:.2f} s; complete after the resume"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--instants", type=int, default=20)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--budget", type=int)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=float, default=0.5, help="earliest kill, seconds")
    parser.add_argument("--last", type=float, default=4.0, help="latest kill, seconds")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    breaches = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = options.config or folder / "run.toml"
        if options.config is None:
            config.write_text(CONFIG)
        command = ["mpirun", "-n", str(options.ranks), "fractopt", "run", str(config)]
        command += ["--out", str(folder / "run"), "--resume"]
        if options.budget:
            command += ["--budget", str(options.budget)]
        from fractopt.config.read import read_config

        budget = options.budget or read_config(config).run.budget
        for instant in range(options.instants):
            delay_s = rng.uniform(options.first, options.last)
            try:
                print(instant, one_instant(command, folder / "run", delay_s, budget), flush=True)
            except AssertionError as breach:
                breaches += 1
                print(instant, f"BREACH, killed after {delay_s:.2f} s: {breach}", flush=True)
    print(f"{options.instants} instants, {breaches} breaches")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
