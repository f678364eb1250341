"""Secrets are in the environment and nowhere else: a canary is looked for in all that a run leaves."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from running import FRACTOPT, check, configure, environment, fractopt

from fractopt.archive.store import load
from fractopt.parallel.message import Ended, Unusable, decode, encode
from fractopt.text import MASK, masked, masked_setting

TOKEN = "hf_CANARYcanaryCANARYcanaryCANARYcanary"
KEY = "0123456789canary0123456789canary01234567"  # as Weights & Biases has them: nothing to know it by
MODULE = """
import os, time

def loss(x):
    time.sleep(0.1)
    if x < 0:
        raise RuntimeError("401 for " + os.environ["HF_TOKEN"] + " and " + os.environ["WANDB_API_KEY"])
    return x
"""


def holds_a_canary(text: bytes) -> bool:
    return TOKEN.encode() in text or KEY.encode() in text or b"canaryCANARY" in text


def test_a_run_leaves_no_secret_behind(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    configure(tmp_path, 'kind = "python"\nfunction = "mine:loss"', budget=10)
    secrets = environment(HF_TOKEN=TOKEN, WANDB_API_KEY=KEY)
    seen: list[bytes] = []
    process = subprocess.Popen(
        [*FRACTOPT, "run", "c.toml", "--trust-code"],
        cwd=tmp_path,
        env=secrets,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while process.poll() is None:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.append(entry.read_bytes())
            except OSError:
                continue  # it ended while we looked
        time.sleep(0.2)
    said = process.communicate()[0]
    assert process.returncode == 0, said.decode()
    assert not any(map(holds_a_canary, seen))
    assert not holds_a_canary(said), said.decode()
    history = load(tmp_path / "runs" / "c")
    quoted = [o.message for _, o in history.told if o.status.value == "failed"]
    assert quoted  # the objective did quote them
    assert all(f"401 for {MASK} and {MASK}" in message for message in quoted)
    assert MASK.encode() in said
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if holds_a_canary(path.read_bytes())] == []


def test_the_arguments_that_a_run_keeps_are_masked(tmp_path: Path) -> None:
    configure(tmp_path)
    done = fractopt(tmp_path, "run", "c.toml", "--out", f"runs-{TOKEN}")
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stderr
    meta = json.loads((tmp_path / f"runs-{TOKEN}" / "meta.json").read_text())
    assert meta["arguments"][-1] == f"runs-{MASK}"


@pytest.mark.parametrize(
    "setting",
    [
        f"objective.token={KEY}",
        f"objective.password.x={KEY}",
        f"run.budget.api_key={KEY}",
        f"run.name={TOKEN}",
    ],
)
def test_a_secret_on_the_command_line_is_refused_and_not_said(tmp_path: Path, setting: str) -> None:
    configure(tmp_path)
    done = check(tmp_path, "--set", setting)
    assert done.exit_code == 3
    assert setting.partition("=")[0].rpartition(".")[0] in done.stderr
    assert KEY not in done.stderr
    assert TOKEN not in done.stderr


def test_a_secret_in_a_list_of_tables_is_refused(tmp_path: Path) -> None:
    configure(tmp_path, f'kind = "synthetic"\nfunction = "sphere"\nhosts = [{{ token = "{KEY}" }}]')
    done = check(tmp_path)
    assert done.exit_code == 3
    assert "objective.hosts.0.token: secrets come from the environment only" in done.stderr
    assert KEY not in done.stderr


def test_masking_knows_tokens_and_the_values_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("MAX_TOKENS", "a common word")
    assert masked(f"a {TOKEN}, b {KEY}, a common word") == f"a {MASK}, b {MASK}, a common word"
    assert masked("hf_short and half_hf_tokens") == "hf_short and half_hf_tokens"
    assert masked_setting(f"a.token = {KEY[:5]}") == f"a.token ={MASK}"
    assert masked_setting("max_tokens=5") == "max_tokens=5"


def test_no_token_comes_through_a_message() -> None:
    """Whatever a worker of another version, or a library in it, put there."""
    ended = decode(encode(Ended(1, 7, 0, "killed", f"line\n{TOKEN}", 1.0)))
    assert isinstance(ended, Ended)
    assert ended.message == f"line\n{MASK}"
    unusable = decode(encode(Unusable(1, f"é{TOKEN}é")))
    assert isinstance(unusable, Unusable)
    assert unusable.message == f"é{MASK}é"
