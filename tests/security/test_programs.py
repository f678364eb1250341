"""A program of the user's: behind the switch, named in the log, and no way for a secret into the archive."""

from __future__ import annotations

from pathlib import Path

from running import check, configure, fractopt

from fractopt.archive.store import load
from fractopt.text import MASK

TOKEN = "hf_CANARYcanaryCANARYcanaryCANARYcanary"
KEY = "0123456789canary0123456789canary01234567"
SCRIPT = """#!/bin/sh
touch "$(dirname "$0")/ran"
echo "using $HF_TOKEN and $WANDB_API_KEY"
echo "401 for $HF_TOKEN" >&2
echo '{"value": 1, "message": "'"$WANDB_API_KEY"'"}' > "$FRACTOPT_OUTCOME"
test "$FRACTOPT_TRIAL" = 0
"""
COMMAND = 'kind = "command"\nargv = ["{start}/program", "--x={x}"]'


def prepare(folder: Path, objective: str = COMMAND) -> None:
    (folder / "program").write_text(SCRIPT)
    (folder / "program").chmod(0o755)
    configure(folder, objective, budget=2)


def test_without_the_switch_nothing_runs(tmp_path: Path) -> None:
    prepare(tmp_path)
    done = check(tmp_path)
    assert done.exit_code == 3
    assert 'objective.kind: "command" runs code of yours: allow it with --trust-code' in done.stderr
    assert not (tmp_path / "ran").exists()


def test_with_the_switch_the_log_repeats_it_and_no_secret_is_kept(tmp_path: Path) -> None:
    prepare(tmp_path)
    done = fractopt(tmp_path, "run", "c.toml", "--trust-code", HF_TOKEN=TOKEN, WANDB_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    said = "trust.code: this run executes code of yours: the program '{start}/program' '--x={x}'"
    assert said in done.stderr
    (_, first), (_, second) = load(tmp_path / "runs" / "c").told
    assert (first.value, first.message) == (1.0, MASK)
    assert second.reason == f"the program exited with code 1: 401 for {MASK}"
    logs = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert len(logs) > 10
    # What the program writes itself is its own affair; all that fractopt writes of it is masked.
    ours = [path for path in logs if path.name != "outcome.json"]
    assert [path for path in ours if any(s.encode() in path.read_bytes() for s in (TOKEN, KEY))] == []


def test_a_secret_among_the_arguments_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path, f'kind = "command"\nargv = ["{{start}}/program", "{TOKEN}"]')
    done = check(tmp_path, "--trust-code")
    assert done.exit_code == 3
    assert "objective.argv.1: secrets come from the environment only" in done.stderr
    assert TOKEN not in done.stderr
