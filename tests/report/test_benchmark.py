"""The benchmark's numbers, its table, and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fractopt.report.benchmark import run_benchmark, table_lines
from fractopt.report.picture import draw


def test_equal_budget_and_seeds() -> None:
    result = run_benchmark("himmelblau", ["random", "soo"], 60, 3)
    assert (result.dimension, result.shifted, result.checkpoints) == (2, False, (10, 20, 50, 60))
    assert [len(run.values) for runs in result.runs.values() for run in runs] == [60] * 6
    assert result.regrets("soo", 50).tolist() == [pytest.approx(0.5453, rel=1e-3)] * 3
    assert len(set(result.regrets("random", 60).tolist())) == 3


def test_a_minimum_at_the_centre_is_moved_for_all_alike() -> None:
    result = run_benchmark("rastrigin:3", ["soo", "sobol"], 20, 2)
    assert result.shifted
    assert result.dimension == 3
    for seed in range(2):
        a, b = (result.runs[name][seed].problem for name in ("soo", "sobol"))
        assert np.array_equal(a.minimisers, b.minimisers)
    assert run_benchmark("branin:shifted", ["random"], 5, 1).shifted


def test_the_boxes_are_the_trees_leaves() -> None:
    (run,) = run_benchmark("branin", ["soo"], 30, 1).runs["soo"]
    assert run.boxes is not None
    sides = run.boxes[:, 1] - run.boxes[:, 0]
    assert sides.prod(axis=1).sum() == pytest.approx(15 * 15)


def test_every_tree_has_its_boxes_and_fda_its_balls() -> None:
    result = run_benchmark("branin", ["direct", "direct-l", "sequool", "fda", "random"], 120, 1)
    for name in ("direct", "direct-l", "sequool"):
        (run,) = result.runs[name]
        assert run.boxes is not None
        assert run.balls is None
        sides = run.boxes[:, 1] - run.boxes[:, 0]
        assert sides.prod(axis=1).sum() == pytest.approx(15 * 15)
    (fda,) = result.runs["fda"]
    assert fda.boxes is None
    assert fda.balls is not None
    assert fda.balls[0].tolist() == [[2.5, 7.5], [7.5, 7.5]]  # the root: inscribed
    assert fda.balls[1:5, 1] == pytest.approx(np.full((4, 2), 7.5 * (2**0.5 - 1)))
    assert result.runs["random"][0].boxes is result.runs["random"][0].balls is None


def test_ils_has_the_paths_of_its_local_searches() -> None:
    result = run_benchmark("himmelblau", ["ils", "fda"], 300, 1)
    assert result.runs["fda"][0].paths is None
    (run,) = result.runs["ils"]
    assert run.paths is not None
    evaluated = {tuple(point): value for point, value in zip(run.points, run.values, strict=True)}
    first, *others = run.paths
    assert others
    assert first[0].tolist() == [0.0, 0.0]  # the centre
    assert first[-1] == pytest.approx([3.0, 2.0], abs=1e-6)
    for path in run.paths:
        assert (np.count_nonzero(np.diff(path, axis=0), axis=1) == 1).all()  # along one axis each
    values = [evaluated[tuple(point)] for point in first]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)


def test_soco_takes_the_shifts_of_the_files_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own,) = run_benchmark("soco_1:3", ["random"], 5, 1).runs["random"]
    (tmp_path / "f1_shift.txt").write_text("-39.5  58.75 -46.25 12.0")
    monkeypatch.setenv("FRACTOPT_SOCO2011", str(tmp_path))
    runs = run_benchmark("soco_1:3", ["random"], 5, 2).runs["random"]
    assert [run.problem.minimisers.tolist() for run in runs] == [[[-39.5, 58.75, -46.25]]] * 2
    assert own.problem.minimisers.tolist() != runs[0].problem.minimisers.tolist()
    with pytest.raises(ValueError, match="shifts of 4 dimensions for soco_1, not 5"):
        run_benchmark("soco_1:5", ["random"], 5, 1)


def test_the_table() -> None:
    lines = table_lines(run_benchmark("himmelblau", ["grid", "soo"], 121, 2))
    assert lines[0].startswith("himmelblau in 2 dimensions: best value found minus the minimum (0), median")
    assert lines[1].split()[:5] == ["after", "10", "20", "50", "100"]
    assert lines[2].split()[0] == "grid"
    assert float(lines[2].split()[5]) == 0.0
    assert lines[3].endswith("µs")


def test_json() -> None:
    result = run_benchmark("camel", ["grid"], 12, 2)
    record = json.loads(json.dumps(result.to_json()))
    assert record["optimizers"]["grid"]["runs"][1]["seed"] == 1
    assert record["optimizers"]["grid"]["runs"][1]["evaluations"] == 9  # the grid of 3 levels is complete
    assert set(record["optimizers"]["grid"]["median_regret"]) == {"10", "12"}


@pytest.mark.parametrize("optimizers", [["soo"], ["random", "lhs", "grid", "direct", "fda", "ils"]])
def test_the_picture(tmp_path: Path, optimizers: list[str]) -> None:
    draw(run_benchmark("himmelblau", optimizers, 30, 1), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "a.png").stat().st_size > 20_000


@pytest.mark.parametrize(
    ("name", "optimizers", "message"),
    [
        ("himmelbau", ["soo"], "did you mean 'himmelblau'"),
        ("branin:3", ["soo"], "branin has 2 dimensions, got dimension = 3"),
        ("branin:x", ["soo"], "with :DIMENSION or :shifted"),
        ("branin", ["so"], "did you mean 'soo'"),
        ("branin", [], "an optimizer, got"),
    ],
)
def test_mistakes(name: str, optimizers: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_benchmark(name, optimizers, 10, 1)


def test_a_picture_has_two_dimensions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs 2 dimensions, hartmann3 has 3"):
        draw(run_benchmark("hartmann3", ["random"], 5, 1), tmp_path / "a.png")
