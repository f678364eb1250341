"""What is in the figures: scales, panels, marks; how they look is for eyes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from histories import failure, history, value
from imported import write_run
from scipy.stats import spearmanr

from fractopt.archive.store import load
from fractopt.cli.main import main
from fractopt.report import figures
from fractopt.report.runs import Run
from fractopt.space import Categorical, Float, Int, Ordinal, Space
from fractopt.trial import Kind, Outcome, Status

SPACE = Space(
    Float("rate", 1e-5, 1e-1, log=True),
    Int("rank", 1, 8),
    Ordinal("batch", (16, 32, 64, 128)),
    Categorical("schedule", ("cosine", "linear", True)),
)


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 40)


@pytest.fixture
def mixed(tmp_path: Path) -> list[Run]:
    """Two runs that do not have one space, with failures among them; losses over many decades."""
    rng = np.random.default_rng(0)
    rows: list[tuple[list[float], Outcome]] = []
    for i, unit in enumerate(rng.random((12, 4)).tolist()):
        outcome = Outcome.of(10 ** (4 * unit[0])) if i % 4 else Outcome(Status.FAILED, message="no")
        rows.append((unit, outcome))
    options: dict[str, Any] = {
        "metric": "loss", "tests": (), "direction": "minimize", "objective": "command"
    }  # fmt: skip
    wide = write_run(tmp_path / "wide", "sobol", rows, space=SPACE, **options)
    narrow = [(unit[:2], outcome) for unit, outcome in rows]
    small = write_run(tmp_path / "small", "random", narrow, space=Space(*SPACE.parameters[:2]), **options)
    return [Run.of(path.name, path, load(path)) for path in (wide, small)]


def test_axes_are_logarithmic_where_that_is_due(mixed: list[Run]) -> None:
    scores = figures._scores(mixed)
    assert [panel.get_yscale() for panel in scores.axes] == ["log"] * 3
    variables = figures._variables(mixed)
    scales = [panel.get_yscale() for panel in variables.axes[:8]]  # row by row, the runs beside each other
    assert scales == ["log", "log", "linear", "linear", "log", "linear", "linear", "linear"]
    assert [label.get_text() for label in variables.axes[6].get_yticklabels()] == ["cosine", "linear", "True"]
    texts = [[text.get_text() for text in panel.texts] for panel in variables.axes[:8]]
    assert texts == [[], [], [], [], [], ["not in its space"], [], ["not in its space"]]


def test_what_has_no_value_is_a_cross(mixed: list[Run]) -> None:
    panel = figures._scores(mixed).axes[0]
    crosses = [line for line in panel.lines if line.get_marker() == "x"]
    assert [line.get_xdata().tolist() for line in crosses] == [[1, 5, 9]]


def test_the_best_so_far_is_of_configurations_only() -> None:
    run = Run.of(
        "a",
        Path("/nowhere"),
        history([
            (Kind.BASE, value(0.9)), (Kind.SEARCH, failure()), (Kind.SEARCH, value(0.3)),
            (Kind.DEFAULT, value(0.2)), (Kind.SEARCH, value(0.5)), (Kind.REPLICATE, value(0.8), 2),
        ]),
    )  # fmt: skip
    np.testing.assert_array_equal(figures._best_so_far(run), [np.nan, np.nan, 0.3, 0.3, 0.5, 0.5])
    panel = figures._scores([run]).axes[0]
    assert {"untuned model", "default", "no value"} <= set(panel.get_legend_handles_labels()[1])


def test_correlations_are_spearmans() -> None:
    rng = np.random.default_rng(1)
    a = rng.integers(0, 6, 30).astype(float)  # ties
    b, constant = a + rng.normal(0, 2, 30), np.ones(30)
    b[3] = np.nan
    matrix, counts = figures.rank_correlations([a, b, constant])
    both = np.isfinite(b)
    assert matrix[0, 1] == pytest.approx(spearmanr(a[both], b[both]).statistic, rel=1e-12)
    assert (counts[0, 1], counts[0, 0]) == (29, 30)
    assert np.isnan(matrix[2]).all()
    # the least correlation whose p-value is 5 %, by scipy's own test
    assert figures.least_clear(30) == pytest.approx(0.361, abs=5e-4)
    assert spearmanr([*range(30)], rng.permutation(30)).pvalue > 0.0
    assert figures.least_clear(2) == 1.0


def test_only_a_design_is_correlated_and_what_is_not_drawn_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "_save", lambda figure, path: path)  # their making is enough here
    run = Run.of("a", Path("/nowhere"), history([(Kind.SEARCH, value(0.5, 0.01))]))  # soo, without a split
    none = Run.of("b", Path("/nowhere"), history([(Kind.SEARCH, failure())]))
    said = dict(figures.draw([run, none], tmp_path))
    assert said["no correlations: they need a run of lhs or random or sobol"] is None
    assert said["box plots of task/acc"] == tmp_path / "boxes.png"
    assert "nothing of task/acc: no evaluation has a value" in dict(figures.draw([none], tmp_path))
    few = write_run(tmp_path / "few", "lhs", [([0.5] * 5, Outcome.of(0.3))])
    said = dict(figures.draw([Run.of("few", few, load(few))], tmp_path))
    assert any(what.startswith("no correlations of few: 1 evaluations have a value") for what in said)
    assert said["no depths: no run has a tree whose splits are on record"] is None


def test_runs_that_are_not_alike_have_figures_of_their_own(tmp_path: Path, mixed: list[Run]) -> None:
    other = Run.of("other", Path("/nowhere"), history([(Kind.SEARCH, value(0.5))]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "_save", lambda figure, path: path)
        drawn = [path.name for _, path in figures.draw([*mixed, other], tmp_path) if path is not None]
    assert drawn == [
        "score-1.png", "variables-1.png", "boxes-1.png", "correlation-wide.png", "correlation-small.png",
        "score-2.png", "variables-2.png", "boxes-2.png",
    ]  # fmt: skip


def test_names_of_others_are_no_formulas_and_no_pages(tmp_path: Path) -> None:
    """A metric may be named by an archive from elsewhere."""
    name = "$\\frac{$" + "x" * 300 + "\x1b[31m"
    rows = [([0.1 * i] * 5, Outcome.of(0.1 * i)) for i in range(1, 7)]
    directory = write_run(tmp_path / "_run$", "lhs", rows, metric=name, tests=())
    run = Run.of(directory.name, directory, load(directory))
    figures._save(figures._scores([run, run]), tmp_path / "score.png")
    ((_, path),) = figures._correlation(run, tmp_path)
    assert path == tmp_path / "correlation-_run-.png"
    assert path.exists()
    assert len(figures._text(name)) < 50


# --- the command


def write(path: Path, *values: float, metric: str = "loss") -> str:
    rows = [([0.1 + 0.1 * i], Outcome.of(v)) for i, v in enumerate(values)]
    space = Space(Float("x", 0, 1))
    return str(write_run(path, "random", rows, space=space, metric=metric, tests=(), objective="command"))


def test_the_command_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = write(tmp_path / "r", 0.5, 0.25)
    done = CliRunner().invoke(main, ["compare", run])
    assert (done.exit_code, done.stderr) == (0, "")
    done = CliRunner().invoke(main, ["compare", run, "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert (
        "fractopt: the figures need matplotlib: pip install 'fractopt[report]'; the results are in"
        in done.stderr
    )
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())[0]["best"]["value"] == 0.5


def test_the_command_says_what_it_cannot_compare(tmp_path: Path) -> None:
    run = write(tmp_path / "r", 0.5)
    for arguments, code, says in [
        ([], 2, "Missing argument 'RUN...'"),
        ([run, run], 2, "is given twice; expected different runs"),
        ([run, str(tmp_path / "none")], 4, f"there is no run at {tmp_path / 'none'}"),
        ([run, "--chance", "high"], 2, "'high' is not a valid float"),
        ([run, "--out", run + "/archive.h5"], 1, "File exists"),
    ]:
        done = CliRunner().invoke(main, ["compare", *arguments])
        assert (done.exit_code, says in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.output


def test_the_command_compares_what_is_not_alike_in_separate_tables(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", 0.5), write(tmp_path / "b", 0.5, metric="accuracy")
    done = CliRunner().invoke(main, ["compare", a, b])
    assert done.exit_code == 0
    assert "a table for each metric: loss in a; accuracy in b" in done.stdout
