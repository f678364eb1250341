"""Runs side by side: each column is the run's own, and nothing is compared that is not alike."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from histories import failure, history, value
from imported import SPACE, TEST, write_run

from fractopt.archive.history import History
from fractopt.archive.store import load
from fractopt.report.runs import Measured, Run, alike, named, table_lines
from fractopt.space import Float, Space
from fractopt.trial import Kind, Outcome, Status

NOWHERE = Path("/nowhere")


def run(found: History, name: str = "a", chance: float | None = None) -> Run:
    return Run.of(name, NOWHERE, found, chance)


def made(best: float = 0.6) -> History:
    """The best by the search's metric is not the best by the test's."""
    return history(
        [
            (Kind.BASE, value(0.9, 0.02, **{"test/acc": 0.95})),  # never a result of the search
            (Kind.DEFAULT, value(0.4, 0.02, **{"test/acc": 0.45})),
            (Kind.SEARCH, value(0.59, 0.02, **{"test/acc": 0.7, "test/acc_stderr": 0.03})),
            (Kind.SEARCH, value(best, 0.02, **{"test/acc": 0.5, "test/acc_stderr": 0.04})),
            (Kind.SEARCH, failure()),
            (Kind.SEARCH, failure(Status.DIVERGED)),
        ],
        tests=["test/acc", "never/acc"],
    )


def test_the_test_metric_is_that_of_the_best_row_and_its_own_maximum() -> None:
    a = run(made())
    assert a.tests == ["test/acc"]
    found = a.tested("test/acc")
    assert found.of_best == Measured(0.5, 0.04)
    assert (found.maximum, found.maximum_trial) == (Measured(0.7, 0.03), 2)
    assert (found.of_base, found.of_default) == (Measured(0.95, None), Measured(0.45, None))
    assert found.count == 4


def test_how_soon() -> None:
    a = run(made())
    assert (a.best_at, a.first_as_good) == (4, 3)
    assert run(made(best=0.62)).first_as_good == 4
    without = run(history([(Kind.SEARCH, value(0.1)), (Kind.SEARCH, value(0.2))]))
    assert (without.best_at, without.first_as_good) == (2, None)
    nothing = run(history([(Kind.SEARCH, failure())]))
    assert (nothing.best_at, nothing.first_as_good, nothing.not_above_chance) == (None, None, None)


def test_evaluations_are_counted_in_the_order_of_their_results() -> None:
    found = history([(Kind.SEARCH, value(0.1)), (Kind.SEARCH, value(0.3)), (Kind.SEARCH, value(0.2))])
    told = [record for record in found.records if record.get("event") == "told"]
    others = [record for record in found.records if record.get("event") != "told"]
    late = History(found.manifest, [*others, *reversed(told)])
    assert [row.id for row in run(late).order] == [2, 1, 0]
    assert run(late).best_at == 2


def test_chance_is_known_of_some_tasks_or_given() -> None:
    rows = [(Kind.SEARCH, value(v, 0.01)) for v in (0.2, 0.26, 0.28, 0.9)]
    assert run(history(rows)).not_above_chance is None  # nobody knows the task "task"
    assert run(history(rows), chance=0.25).not_above_chance == 0.5
    object.__setattr__((known := history(rows)).manifest, "metric", "hellaswag/acc")
    assert run(known).not_above_chance == 0.5
    assert run(history(rows, direction="minimize"), chance=0.25).not_above_chance == 0.75
    base = history([(Kind.BASE, value(0.1)), *rows])
    assert run(base, chance=0.25).not_above_chance == 0.5


def test_less_is_better_where_the_search_minimises() -> None:
    rows = [
        (Kind.SEARCH, value(0.3, 0.05, **{"test/loss": 0.2})),
        (Kind.SEARCH, value(0.2, 0.15, **{"test/loss": 0.9})),
    ]
    a = run(history(rows, kind="command", direction="minimize", tests=["test/loss"]))
    assert (a.best_at, a.first_as_good) == (2, 1)
    assert a.tested("test/loss").maximum == Measured(0.2, None)  # the best of them
    scores = [(Kind.SEARCH, value(v, **{"wiki/brier_score": 10 * v})) for v in (0.5, 0.9)]
    b = run(history(scores, tests=["wiki/brier_score"]))  # of a search that maximises
    assert (b.best_at, b.tested("wiki/brier_score").maximum) == (2, Measured(5.0, None))


def test_the_table_has_a_column_for_each_run() -> None:
    text = "\n".join(table_lines([run(made(), "first"), run(made(0.7), "second")]))
    rows = {line[:27].strip(): line[27:].split("  ") for line in text.splitlines()}
    cells = {name: [cell.strip() for cell in row if cell.strip()] for name, row in rows.items()}
    assert cells["task/acc, best"] == ["0.600 ± 0.020", "0.700 ± 0.020"]
    assert cells["better than default by"] == ["+0.2000", "+0.3000"]
    assert cells["better than untuned by"] == ["-0.3000", "-0.2000"]
    assert cells["test/acc, of that row"] == ["0.500 ± 0.040", "0.500 ± 0.040"]
    assert cells["maximum of the column"] == ["0.700 ± 0.030 (2)", "0.700 ± 0.030 (2)"]
    assert cells["failed, diverged"] == ["1, 1", "1, 1"]
    assert cells["wall time"] == ["13 s", "13 s"]
    assert "never/acc" not in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_what_a_run_recommends_is_beside_what_was_best_by_luck() -> None:
    found = made()
    found.add({"record": "recommended", "trial": 2, "mean": 0.585, "sd": 0.011})
    text = "\n".join(table_lines([run(found), run(made(), "b")]))
    assert "  recommended trial        2                    -\n" in text
    assert "    by posterior mean      0.585 ± 0.011        -\n" in text
    assert run(found).to_json()["recommended"]["trial"] == 2


def test_runs_that_do_not_optimise_the_same_have_tables_of_their_own() -> None:
    other = history([(Kind.SEARCH, value(0.5))], direction="minimize")
    runs = [run(made(), "a"), run(other, "b"), run(made(), "c")]
    assert [[r.name for r in group] for group in alike(runs)] == [["a", "c"], ["b"]]
    lines = list(table_lines(runs))
    assert lines[0].startswith("these runs do not optimise the same, so there is a table for each metric: ")
    assert lines[0].endswith("task/acc in a, c; task/acc in b")
    assert sum("optimizer" in line for line in lines) == 2


def test_many_runs_go_on_in_another_table() -> None:
    lines = list(table_lines([run(made(), f"run-{i}") for i in range(6)]))
    assert [line.split() for line in lines if "run-" in line] == [
        ["run-0", "run-1", "run-2", "run-3"],
        ["run-4", "run-5"],
    ]


def test_a_run_without_a_result_is_shown_all_the_same() -> None:
    empty = run(history([(Kind.SEARCH, None)]), "empty")
    text = "\n".join(table_lines([empty, run(made(), "full")]))
    assert "task/acc, best             -                    0.600 ± 0.020" in text
    json.dumps(empty.to_json())
    assert empty.to_json()["best"] is None


def test_names_are_the_ends_of_paths_that_tell_them_apart(tmp_path: Path) -> None:
    a, b, c = tmp_path / "x" / "soo", tmp_path / "y" / "soo", tmp_path / "y" / "gp"
    assert named([a, b, c]) == ["x/soo", "y/soo", "gp"]
    assert named([a]) == ["soo"]
    with pytest.raises(ValueError, match="given twice; expected different runs"):
        named([a, b, tmp_path / "y" / ".." / "x" / "soo"])


def test_an_imported_run_is_one_as_any_other(tmp_path: Path) -> None:
    rows = [([0.5] * 5, Outcome(Status.OK, 0.3, stderr=0.005, metrics={TEST: 0.2}))]
    history = load(write_run(tmp_path / "r", "soo", rows))
    a = Run.of("r", tmp_path / "r", history)
    assert (a.chance, a.not_above_chance) == (0.25, 0.0)
    assert a.to_json()["tests"][TEST]["maximum"] == {"value": 0.2, "stderr": None, "trial": 0}
    assert a.order[0].params["lora_rank"] == 33
    assert a.history.space.names == SPACE.names
    assert (a.busy_s, a.to_json()["wall_s"], a.to_json()["busy_s"]) == (0.0, None, None)  # not known


def test_numbers_without_a_known_error(tmp_path: Path) -> None:
    found = [Outcome(Status.OK, -12345.678, stderr=math.inf), Outcome(Status.OK, 1e-9, stderr=1e-12)]
    rows = [([0.1 + 0.1 * i], outcome) for i, outcome in enumerate(found)]
    for direction, said in (("minimize", "-1.235e+04"), ("maximize", "1e-09 ± 1.0e-12")):
        directory = write_run(
            tmp_path / direction, "random", rows, space=Space(Float("x", 0, 1)), metric="loss", tests=(),
            direction=direction, objective="command",
        )  # fmt: skip
        text = "\n".join(table_lines([Run.of("r", directory, load(directory))]))
        assert f"loss, best                 {said}\n" in text
