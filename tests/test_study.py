"""The Study: numbering, anchors, budget, repeated points, best, and the fold of a history."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest

import fractopt as fo
from fractopt.optimizer import registry
from fractopt.trial import (
    Asked,
    Budget,
    Kind,
    Recorded,
    Status,
    Stopped,
    Told,
    Trial,
    event_from_json,
    event_to_json,
)

# The grid that a budget affords may be smaller than the budget: it is given its size.
SETTINGS = {"grid": {"levels": 5}}
SQUARE = fo.Space(fo.Float("x", -5, 5), fo.Float("y", -5, 5))
FAILED = fo.Outcome(Status.FAILED, message="no such luck")


def sphere(trial: Trial) -> float:
    return sum(float(v) ** 2 for v in trial.params.values())


def run_out(study: fo.Study, value: object = sphere, at_once: int = 3) -> None:
    while trials := study.ask(at_once):
        for trial in trials:
            study.tell(trial, value(trial) if callable(value) else value)  # type: ignore[arg-type]


# --- the public face


def test_the_public_face_resolves_every_name_and_loads_nothing_before() -> None:
    types = ["Categorical", "Float", "Int", "Ordinal", "Outcome", "Space", "Study"]
    assert sorted(fo.__all__) == sorted([*types, "load", "minimize", "minimize_vectorized"])
    for name in fo.__all__:
        assert getattr(fo, name).__name__ == name
        assert name in dir(fo)
    assert fo.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'Spaec'"):
        _ = fo.Spaec
    code = "import sys, fractopt; print([m for m in sys.modules if m.startswith('fractopt.')])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"


def test_minimize_calls_the_function_by_name_and_counts_the_budget() -> None:
    calls: list[tuple[float, float]] = []

    def f(x: float, y: float) -> float:
        calls.append((x, y))
        return (x - 1) ** 2 + y**2

    study = fo.minimize(f, SQUARE, budget=60, seed=3)
    assert len(calls) == study.told == 60
    assert study.best.value == min((x - 1) ** 2 + y**2 for x, y in calls) < 0.5
    assert f(**study.best.params) == study.best.value


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"optimizer": "sooo"}, "unknown optimizer 'sooo'; did you mean 'soo'"),
        ({"settings": {"childen": 3}}, "no setting 'childen'; did you mean 'children'"),
        ({"settings": {"children": 1}}, "children: expected 2 to 1024, got 1"),
        ({"budget": 0}, "at least 1 evaluation, got 0"),
        ({"budget": 2.5}, "a whole number, at least 1 evaluation, got 2.5"),
        ({"budget": "10"}, "a whole number, at least 1 evaluation, got '10'"),
        ({"seed": -1}, "the seed must be a whole number, at least 0, got -1"),
        ({"direction": "up"}, "'minimize' or 'maximize', got 'up'"),
        ({"anchors": ("default",)}, "needs default values, got none"),
        ({"anchors": ("default",), "default": {"x": 1.0}}, "missing: ['y']"),
        (
            {"anchors": ("default",), "default": {"x": 1.0, "y": 99.0}},
            "y: expected a value in [-5, 5], got 99",
        ),
    ],
)
def test_a_wrong_argument_is_refused_with_what_was_expected(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError) as error:
        fo.Study(SQUARE, **arguments)  # type: ignore[arg-type]
    assert text in str(error.value)


# --- telling


def test_telling_twice_and_telling_a_stranger_say_what_is_wrong() -> None:
    study = fo.Study(SQUARE, budget=5)
    (trial,) = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(ValueError) as twice:
        study.tell(trial, 2.0)
    assert str(twice.value) == "expected a running trial, got trial 0, which was told already"
    with pytest.raises(ValueError) as stranger:
        study.tell(99, 2.0)
    assert str(stranger.value) == "expected a running trial, got trial 99, which was never asked"
    assert study.best.value == 1.0
    assert study.told == 1


def test_a_number_that_is_not_finite_counts_as_diverged() -> None:
    study = fo.Study(SQUARE, "random", budget=5)
    for value in (math.nan, math.inf, -math.inf):
        study.tell(study.ask()[0], value)
    assert [e.outcome.status for e in study.evaluations] == [Status.DIVERGED] * 3
    with pytest.raises(ValueError, match="no configuration has a value"):
        _ = study.best


# --- anchors


def test_anchors_come_first_the_base_has_no_point_and_is_never_the_best() -> None:
    events: list[Recorded] = []
    study = fo.Study(
        SQUARE,
        "random",
        budget=6,
        anchors=("base", "default"),
        default={"x": 1.0, "y": 0.1},
        record=events.append,
    )
    trials = study.ask(4)
    assert [t.kind for t in trials] == [Kind.BASE, Kind.DEFAULT, Kind.SEARCH, Kind.SEARCH]
    assert [t.id for t in trials] == [0, 1, 2, 3]
    base, default = trials[:2]
    assert (base.unit, base.params) == (None, {})
    assert default.params == {"x": 1.0, "y": 0.1}  # as written, without a round trip through the cube
    study.tell(base, -1000.0)
    with pytest.raises(ValueError, match="no configuration has a value"):
        _ = study.best
    study.tell(default, 5.0)
    assert study.best.id == 1
    run_out(study)
    assert study.told == 4  # two are still out
    assert next(e for e in events if isinstance(e, Budget)).search == 4
    unit = next(e for e in events if isinstance(e, Asked)).unit
    assert unit.shape == (1, 2)
    assert np.isnan(unit).all()


def test_a_budget_smaller_than_the_anchors_ends_with_the_anchors() -> None:
    study = fo.Study(SQUARE, budget=1, anchors=("base", "default"), default={"x": 0.0, "y": 0.0})
    (trial,) = study.ask(5)
    study.tell(trial, 1.0)
    assert trial.kind is Kind.BASE
    assert study.ask(5) == ()
    assert study.finished


def test_a_point_that_repeats_the_default_gets_its_outcome() -> None:
    space = fo.Space(fo.Int("n", 1, 3))
    study = fo.Study(space, "soo", budget=3, anchors=("default",), default={"n": 2})
    (default,) = study.ask(1)
    study.tell(default, 7.0)
    run_out(study)
    assert [e.params["n"] for e in study.evaluations] == [2, 1, 3]  # the root's centre was answered by it
    assert study.repeats >= 1
    assert study.best.value == 1.0


# --- the budget


@pytest.mark.parametrize("name", registry.OPTIMIZERS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_budget_is_exact_whatever_fails(name: str, share: float) -> None:
    rng = np.random.default_rng(5)
    study = fo.Study(SQUARE, name, budget=23, settings=SETTINGS.get(name))
    asked = 0
    while trials := study.ask(4):
        asked += len(trials)
        for trial in reversed(trials):
            study.tell(trial, FAILED if rng.random() < share else sphere(trial))
    assert asked == study.told == 23
    assert study.finished
    assert study.stopped is None


def test_running_trials_count_against_the_budget() -> None:
    study = fo.Study(SQUARE, "random", budget=5)
    first = study.ask(3)
    assert len(study.ask(9)) == 2
    assert study.ask(9) == ()
    assert not study.finished
    study.tell(first[0], 1.0)
    assert study.ask(9) == ()
    assert len(study.running) == 4


@pytest.mark.parametrize("name", registry.OPTIMIZERS)
def test_a_raised_budget_goes_on_after_the_end(name: str) -> None:
    events: list[Recorded] = []
    study = fo.Study(SQUARE, name, budget=8, settings=SETTINGS.get(name), record=events.append)
    run_out(study)
    assert study.finished
    assert study.ask(3) == ()

    longer = fo.Study(SQUARE, name, budget=13, settings=SETTINGS.get(name))
    longer.fold(events)
    assert not longer.finished
    run_out(longer)
    assert longer.told == 13
    assert longer.finished


def test_a_raised_budget_takes_back_an_exhaustion_and_a_lowered_one_ends_at_once() -> None:
    space = fo.Space(fo.Int("n", 1, 4))
    events: list[Recorded] = []
    study = fo.Study(space, "grid", budget=3, settings={"levels": 2}, record=events.append)
    run_out(study)
    assert study.stopped is not None
    assert isinstance(events[-1], Stopped)

    again = fo.Study(space, "grid", budget=3, settings={"levels": 2})
    again.fold(events)
    assert again.finished

    more = fo.Study(space, "grid", budget=4, settings={"levels": 2})
    more.fold(events)
    assert not more.finished
    run_out(more)
    assert more.stopped is not None  # two levels are two levels

    less = fo.Study(space, "grid", budget=1, settings={"levels": 2})
    less.fold(events)
    assert less.finished
    assert less.ask() == ()


# --- repeated points


def test_a_repeat_of_a_told_point_is_answered_at_once_and_is_free() -> None:
    space = fo.Space(fo.Categorical("c", ["a", "b", "c"]))
    told: list[Told] = []

    def record(event: Recorded) -> None:
        if isinstance(event, Told):
            told.append(event)

    study = fo.Study(space, "random", budget=3, record=record)
    values = {"a": 1.0, "b": 2.0, "c": 3.0}
    run_out(study, lambda trial: values[trial.params["c"]])
    assert study.told == 3
    assert sorted(e.params["c"] for e in study.evaluations) == ["a", "b", "c"]
    # every repeat was told the loss of its original, and every number once
    numbers = [n for event in told for n in event.ids.tolist()]
    assert len(numbers) == len(set(numbers)) == 3 + study.repeats


def test_a_repeat_of_a_running_point_waits_for_it() -> None:
    space = fo.Space(fo.Categorical("c", ["a", "b"]))
    for seed in range(20):
        events: list[Recorded] = []
        study = fo.Study(space, "random", budget=50, seed=seed, record=events.append)
        trials = study.ask(2)
        if len(trials) < 2:
            continue
        study.ask(1)  # both points are out: whatever is proposed waits
        before = len(events)
        study.tell(trials[0], 5.0)
        (told,) = events[before:]
        assert isinstance(told, Told)
        asked = [e for e in events[:before] if isinstance(e, Asked)]
        waiting = [i for e in asked for i, of in zip(e.ids, e.of, strict=True) if of == trials[0].id]
        assert told.ids.tolist() == [trials[0].id, *waiting]
        assert set(told.loss.tolist()) == {5.0}


@pytest.mark.parametrize("name", registry.OPTIMIZERS)
@pytest.mark.parametrize("workers", [1, 3, 9])
def test_more_workers_than_points_end_as_exhausted_and_never_hang(name: str, workers: int) -> None:
    space = fo.Space(fo.Ordinal("c", ("a", "b")))
    events: list[Recorded] = []
    study = fo.Study(space, name, budget=40, record=events.append)
    running = list(study.ask(workers))
    while running:
        study.tell(running.pop(0), 1.0)
        running += study.ask(workers)
    assert study.told == 2
    assert study.stopped is not None
    assert study.stopped.startswith("exhausted")
    assert len(events) < 500


def test_a_small_budget_does_not_take_a_few_repeats_for_exhaustion() -> None:
    space = fo.Space(fo.Ordinal("c", range(6)))  # type: ignore[arg-type]
    for seed in range(60):
        study = fo.Study(space, "random", budget=5, seed=seed)
        run_out(study)
        assert study.told == 5


def test_a_crash_between_a_repeat_and_its_answer_is_healed_after_the_fold() -> None:
    space = fo.Space(fo.Categorical("c", ["a", "b", "c", "d"]))
    events: list[Recorded] = []
    study = fo.Study(space, "random", budget=4, record=events.append)
    run_out(study, lambda trial: float(ord(trial.params["c"][0])), at_once=1)
    cuts = [
        i + 1
        for i, event in enumerate(events)
        if isinstance(event, Asked) and isinstance(events[i + 1], Told) and (event.of >= 0).any()
    ]
    assert cuts, "no repeat in this run: choose another seed"
    for cut in cuts:
        later: list[Recorded] = []
        folded = fo.Study(space, "random", budget=4, record=later.append)
        folded.fold(events[:cut])
        for trial in folded.running:
            folded.tell(trial, float(ord(trial.params["c"][0])))
        run_out(folded, lambda trial: float(ord(trial.params["c"][0])))
        numbers = [n for e in (*events[:cut], *later) if isinstance(e, Told) for n in e.ids.tolist()]
        asked = [n for e in (*events[:cut], *later) if isinstance(e, Asked) for n in e.ids.tolist()]
        assert sorted(numbers) == sorted(asked)
        assert folded.told == 4


# --- the best


def test_the_best_follows_the_direction_and_leaves_failures_out() -> None:
    for direction, expected in (("minimize", -2.0), ("maximize", 9.0)):
        study = fo.Study(SQUARE, "random", budget=5, direction=direction)  # type: ignore[arg-type]
        trials = study.ask(5)
        for trial, value in zip(trials, (3.0, -2.0, math.nan, 9.0, FAILED), strict=True):
            study.tell(trial, value)
        assert study.best.value == expected


def test_maximising_negates_the_loss_and_nothing_else() -> None:
    events: list[Recorded] = []
    study = fo.Study(SQUARE, "random", budget=2, direction="maximize", record=events.append)
    first, second = study.ask(2)
    study.tell(first, 0.25)
    study.tell(second, FAILED)
    told = [e for e in events if isinstance(e, Told)]
    assert [e.loss.tolist() for e in told] == [[-0.25], [math.inf]]
    assert told[0].outcomes[0].value == 0.25


def test_of_equal_values_the_oldest_trial_is_the_best_whatever_the_arrival() -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        study = fo.Study(SQUARE, "random", budget=3)
        trials = study.ask(3)
        for i in order:
            study.tell(trials[i], 4.0)
        assert study.best.id == 0


# --- the fold


def test_a_study_in_progress_takes_no_history() -> None:
    study = fo.Study(SQUARE, "random", budget=3)
    study.ask()
    with pytest.raises(ValueError, match="fresh Study"):
        study.fold([])


def test_an_event_is_recorded_before_it_takes_effect() -> None:
    seen: list[tuple[str, int, int]] = []
    study: fo.Study

    def record(event: Recorded) -> None:
        seen.append((event.type, len(study.running), study.told))
        if len(seen) == 4:
            raise OSError("disk full")

    study = fo.Study(SQUARE, "random", budget=3, record=record)
    (trial,) = study.ask()
    study.tell(trial, 1.0)
    assert seen == [("budget", 0, 0), ("asked", 0, 0), ("told", 1, 0)]
    with pytest.raises(OSError, match="disk full"):
        study.ask()
    assert study.running == ()  # what could not be recorded did not happen


@pytest.mark.parametrize(
    ("name", "direction"),
    [*((name, "minimize") for name in registry.OPTIMIZERS), ("soo", "maximize"), ("tpe", "maximize")],
)
def test_folded_at_any_point_the_study_goes_on_as_if_nothing_had_happened(name: str, direction: str) -> None:
    space = fo.Space(fo.Float("rate", 1e-5, 1e-1, log=True), fo.Int("rank", 2, 9), fo.Ordinal("b", (1, 2, 4)))

    def new(record: object) -> fo.Study:
        return fo.Study(
            space,
            name,
            budget=14,
            seed=11,
            direction=direction,  # type: ignore[arg-type]
            anchors=("base", "default"),
            default={"rate": 2e-4, "rank": 8, "b": 2},
            record=record,  # type: ignore[arg-type]
        )

    def turn(study: fo.Study) -> bool:
        """One arrival of four workers: a function of what is running, as in the local transport."""
        study.ask(4 - len(study.running)) if len(study.running) < 4 else ()
        if not study.running:
            return False
        ids = [t.id for t in study.running]
        rng = np.random.default_rng(ids)
        trial = study.running[rng.integers(len(ids))]
        study.tell(trial, FAILED if rng.random() < 0.2 else 0.5 if trial.kind is Kind.BASE else rng.random())
        return True

    lines: list[str] = []
    whole = new(lambda event: lines.append(json.dumps(event_to_json(event), allow_nan=False)))
    cuts = [0]
    while turn(whole):
        cuts.append(len(lines))
    assert whole.finished
    assert 10 <= whole.told <= 14
    for cut in cuts[:-1]:
        later: list[str] = []
        folded = new(
            lambda event, later=later: later.append(json.dumps(event_to_json(event), allow_nan=False))
        )
        folded.fold(event_from_json(json.loads(line)) for line in lines[:cut])
        while turn(folded):
            pass
        assert lines[:cut] + later == lines, f"cut after {cut} events"
        assert folded.evaluations == whole.evaluations
        assert folded.best == whole.best
        assert folded.repeats == whole.repeats


def test_what_is_told_must_be_a_number() -> None:
    study = fo.Study(fo.Space(fo.Float("x", 0, 1)), "random", 3)
    (trial,) = study.ask()
    for value in (None, "low", [1.0, 2.0]):
        with pytest.raises(
            ValueError, match=r"trial 0: expected a number or an Outcome, got .* tell float\('nan'\)"
        ):
            study.tell(trial, value)  # type: ignore[arg-type]
    study.tell(np.int64(0), np.float32(0.5))  # type: ignore[arg-type]
    assert study.best.value == 0.5
