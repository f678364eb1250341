"""The founding paper's runs: their configurations, and its published rows through `fractopt compare`."""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

sys.path.append(str(Path(__file__).resolve().parent / "report"))

from imported import METRIC, RUNS, TEST, write_paper

from fractopt.cli.main import main
from fractopt.config.read import Config, read_config
from fractopt.report import figures

ROOT = Path(__file__).resolve().parents[1]
JOBS = ROOT / "jobs" / "paper"
PUBLISHED = os.environ.get("FRACTOPT_PAPER_ROWS", "")
COLUMNS = (
    "run", "idx", "rank", "alpha", "dropout", "log10_lr", "log10_wd",
    "hellaswag_acc", "hellaswag_stderr", "mmlu_acc", "mmlu_stderr",
)  # fmt: skip


DRAWN = ["boxes.png", "correlation-lhs.png", "depth.png", "score.png", "variables.png"]


@dataclass(frozen=True)
class Row:
    """What a column of the comparison says: of the best by HellaSwag, and of MMLU's own maximum."""

    evaluations: int
    best: float
    mmlu_of_best: float
    mmlu_maximum: float
    first_as_good: int


# Davouse and Talbi (2025) print 47.90, 47.91, 47.84, 47.84 and 37.61, 38.11, 37.42, 37.50: the latter are
# the maxima of the column, which for LHS and BaMSOO is another row than the best.
PRINTED = {
    "lhs": Row(50, 0.4790, 0.3736, 0.3762, 2),
    "gp": Row(50, 0.4791, 0.3811, 0.3811, 8),
    "soo": Row(51, 0.4784, 0.3742, 0.3742, 38),
    "bamsoo": Row(52, 0.4784, 0.3737, 0.3750, 22),
}


def make_rows(path: Path) -> dict[str, Row]:
    """A table as the paper's with rows of our own; returns what has to be said of each run."""
    rng = np.random.default_rng(0)
    expected = {}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for run, name in RUNS.items():
            n = 14
            if name in ("soo", "bamsoo"):  # centres of boxes
                unit = (2 * rng.integers(0, 9, (n, 5)) + 1) / 18
            else:
                unit = rng.random((n, 5))
            ends = np.array([[2, 64], [1, 64], [0, 0.5], [-10, -1], [-5, -1]])
            native = ends[:, 0] + unit * (ends[:, 1] - ends[:, 0])
            hellaswag, mmlu = rng.uniform(0.25, 0.48, n).round(6), rng.uniform(0.22, 0.38, n).round(6)
            for i in range(n):
                cells = [*native[i].round(6), hellaswag[i], 0.004, mmlu[i], 0.003]
                writer.writerow([run, i, *map(float, cells)])
            best = int(hellaswag.argmax())
            expected[name] = Row(
                n,
                float(hellaswag[best]),
                float(mmlu[best]),
                float(mmlu.max()),
                1 + int(np.argmax(hellaswag >= hellaswag[best] - 0.004)),
            )
    return expected


def compare(*arguments: object) -> str:
    done = CliRunner().invoke(main, ["compare", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def check_columns(said: list[dict[str, Any]], expected: dict[str, Row], within: float) -> None:
    assert [column["name"] for column in said] == list(expected)
    for column, row in zip(said, expected.values(), strict=True):
        test = column["tests"][TEST]
        assert (column["metric"], column["evaluations"]) == (METRIC, row.evaluations)
        assert column["best"]["value"] == pytest.approx(row.best, abs=within)
        assert test["of_best"]["value"] == pytest.approx(row.mmlu_of_best, abs=within)
        assert test["maximum"]["value"] == pytest.approx(row.mmlu_maximum, abs=within)
        assert (test["count"], column["failures"], column["diverged"]) == (row.evaluations, 0, 0)
        assert column["first_as_good"] == row.first_as_good


def test_rows_as_the_papers_are_compared_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 40)  # pixels are what they cost
    expected = make_rows(tmp_path / "rows.csv")
    runs = write_paper(tmp_path / "rows.csv", tmp_path / "runs")
    check_columns(json.loads(compare(*runs, "--json")), expected, within=1e-6)
    out = tmp_path / "figures"
    said = json.loads(compare(runs[0], runs[3], "--json", "--out", out))
    assert json.loads((out / "comparison.json").read_text()) == said
    assert sorted(path.name for path in out.iterdir()) == [*DRAWN[:1], "comparison.json", *DRAWN[1:]]
    for name in DRAWN:
        assert (out / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.skipif(not PUBLISHED, reason="FRACTOPT_PAPER_ROWS does not name the table of its published rows")
def test_the_published_rows_give_the_papers_table_and_its_two_mmlu_columns(tmp_path: Path) -> None:
    runs = write_paper(Path(PUBLISHED), tmp_path / "runs")
    said = json.loads(compare(*runs, "--json", "--out", tmp_path / "figures"))
    check_columns(said, PRINTED, within=5e-5)
    assert sum(column["evaluations"] for column in said) == 203
    assert set(DRAWN) <= {path.name for path in (tmp_path / "figures").iterdir()}
    # Nothing of it is beyond the sampling of the questions.
    bests = [column["best"]["value"] for column in said]
    assert max(bests) - min(bests) < 0.2 * said[0]["best"]["stderr"]


# --- the configurations


@cache
def read(name: str) -> Config:
    return read_config(JOBS / f"{name}.toml")


def test_there_is_one_for_each_run() -> None:
    assert sorted(path.stem for path in JOBS.iterdir()) == sorted(RUNS.values())
    for name in RUNS.values():
        assert read(name).optimizer == name


def test_they_differ_in_the_optimizer_alone() -> None:
    first = read("lhs")
    for name in RUNS.values():
        config = read(name)
        assert (config.objective, config.metric) == (first.objective, METRIC)
        assert {p.name: p for p in config.space.parameters} == {p.name: p for p in first.space.parameters}
        assert (config.run, config.default, config.tests) == (first.run, first.default, first.tests)
    assert first.run.budget == 50 + len(first.run.anchors)
    assert (first.tests.when, first.objective["test_metrics"]) == ("all", [TEST])


def test_what_they_say_of_the_published_trees_holds_for_made_ones() -> None:
    """25 splits, as 51 evaluations need, reach depth 5 within h_max = sqrt(t), dig as they may."""
    from fractopt.optimizer.study import Study

    config = read("soo")
    study = Study(config.space, "soo", 51, settings=config.optimizer_settings)
    while study.told < 51:
        for trial in study.ask(1):
            study.tell(trial, abs(float(trial.params["lora_dropout"]) - 0.25))  # a chain of middle children
    tree = study.optimizer.tree  # type: ignore[attr-defined]
    assert (study.optimizer.expansions, tree.deepest) == (25, 5)  # type: ignore[attr-defined]
    assert "where 25 splits allow 5" in (JOBS / "soo.toml").read_text()
