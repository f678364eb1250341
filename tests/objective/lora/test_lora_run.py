"""A whole run of real fine-tunes, from a file of settings to the verdict: what may see which score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fractopt.archive.result import evaluation_directory
from fractopt.archive.store import Archive, load
from fractopt.config.read import read_config
from fractopt.master import Master
from fractopt.objective.lora.answers import read_answers
from fractopt.optimizer.study import Study
from fractopt.parallel.local import LocalTransport
from fractopt.parallel.message import Setup
from fractopt.report.status import status, status_lines
from fractopt.report.tables import as_csv
from fractopt.report.verdict import recommended, verdict_lines
from fractopt.trial import Kind, Status

pytestmark = pytest.mark.llm

TEST = "tiny-test"
JOB = """
[run]
budget = 4
anchors = ["base", "default"]
[optimizer]
name = "grid"
[space]
learning_rate = { type = "ordinal", values = [1e-6, 1e-2, 1.2e-2] }
[default]
learning_rate = 1e-2
[objective]
kind = "lora"
metric = "tiny/acc"
metrics = ["tiny/acc_norm"]
[objective.model]
name = "fractopt/tiny"
precision = "32-true"
[objective.data]
name = "fractopt/tiny"
mask_prompt = true
[objective.train]
lora_rank = 8
max_steps = 14
warmup_steps = 2
[objective.score]
questions = 128
racing = true
racing_block = 16
racing_error = 0.1
[test]
metrics = ["tiny-test/acc"]
finalists = 1
[output]
keep_adapters = 1
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the finished run."""
    place = tmp_path_factory.mktemp("runs")
    (place / "job.toml").write_text(JOB)
    config = read_config(place / "job.toml")
    archive = Archive.create(place / "r", config.manifest(), config.text, {})
    study = Study(
        config.space,
        config.optimizer,
        config.run.budget,
        direction=config.direction,
        anchors=config.run.anchors,
        default=config.default,
        record=archive.record,
    )
    setup = Setup(config.objective, str(place / "r"), config.limits)
    master = Master(
        study,
        LocalTransport(1),
        archive,
        setup,
        tests=config.tests,
        keep_adapters=config.keep_adapters,
    )
    ending = master.run()
    archive.close(complete=ending.complete, reason=ending.reason)
    assert ending.complete
    return place / "r"


def mentions(text: Any) -> bool:
    return TEST in (text if isinstance(text, str) else json.dumps(text))


def test_the_test_score_is_in_the_records_of_the_finalists_tests_and_nowhere_else(run: Path) -> None:
    history = load(run)
    finalists = {row.id for row in history.finalists(1)}
    assert set(history.tests) == finalists
    assert len(finalists) == 3
    others = set(history.rows) - finalists
    assert others

    for record in history.records:  # the journal's; its settings name the metric
        said = {name: value for name, value in record.items() if name != "manifest"}
        assert mentions(said) == (record.get("record") == "tested"), record
    lines = [line for path in (run / "journal").iterdir() for line in path.read_text().splitlines()]
    assert sum(TEST in line for line in lines) <= len(finalists) + 1  # and the settings, once
    with h5py.File(run / "archive.h5") as archive:
        assert not mentions(" ".join(archive["evals"].dtype.names))
        assert not any(TEST.encode() in row.tobytes() for row in archive["evals"][:])
    assert not mentions(as_csv(history))
    report = status(run)
    assert not mentions(report)
    assert not any(map(mentions, status_lines(report)))
    for number in others:
        files = [path for path in evaluation_directory(run, number).iterdir() if path.is_file()]
        assert {path.name for path in files} >= {"result.json", "answers.npz"}
        assert not any(TEST.encode() in path.read_bytes() for path in files)
    for number in finalists:
        assert "tiny-test/acc" in history.tests[number]["outcome"]["metrics"]
        assert len(read_answers(evaluation_directory(run, number))["tiny-test/acc"]) == 512


def test_what_was_asked_of_whom(run: Path) -> None:
    history = load(run)
    finalists = {row.id for row in history.finalists(1)}
    for row, outcome in history.told:
        answers = read_answers(evaluation_directory(run, row.id))
        assert len(answers["tiny/acc"]) == 128
        assert (outcome.status is Status.PRUNED) == bool(np.isnan(answers["tiny/acc"]).any())
        assert ("tiny/unseen/acc" in answers) == (row.id in finalists)
        assert row.attempts[0].incumbent == -1 or row.kind is Kind.SEARCH
        if row.complete:
            assert outcome.value == answers["tiny/acc"].mean()
            assert outcome.metrics["tiny/acc_norm"] == answers["tiny/acc_norm"].mean()
        if row.id in finalists:
            tested = history.tests[row.id]["outcome"]["metrics"]
            assert tested["tiny/unseen/acc"] == answers["tiny/unseen/acc"].mean()
            assert len(answers["tiny/unseen/acc"]) == 512 - 128
            assert "tiny/acc" not in tested
    pruned = [row for row, o in history.told if o.status is Status.PRUNED]
    assert pruned
    assert history.best is not None
    assert all(row.value < history.rows[row.attempts[0].incumbent].value for row in pruned)
    assert all("a clear loser against trial" in row.outcome.message for row in pruned)  # type: ignore[union-attr]


def test_the_verdict_speaks_of_questions_that_no_choice_saw(run: Path) -> None:
    history = load(run)
    lines = list(verdict_lines(history, run, recommended(history)))
    unseen = [line for line in lines if "tiny/unseen/acc" in line]
    assert unseen
    assert all("384 questions); on questions that no choice saw; " in line for line in unseen)
    assert any(line.startswith("racing") for line in lines)
