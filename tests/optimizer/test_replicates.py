"""Replicates: who is repeated and when, what may take part in the choice, and what is honest to report."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fractopt as fo
from fractopt.optimizer.replicates import (
    MOST,
    Recommended,
    Standing,
    confirming,
    next_replicate,
    replicate_count,
    replicate_values,
    seed_error,
    standings,
)
from fractopt.optimizer.study import Study
from fractopt.trial import (
    Asked,
    Budget,
    Kind,
    Observed,
    Outcome,
    Recorded,
    Status,
    Trial,
    event_from_json,
    event_to_json,
)

SQUARE = fo.Space(fo.Float("x", -5, 5), fo.Float("y", -5, 5))
DEFAULT = {"x": 1.0, "y": 0.1}
NOISE = 4.0


def sphere(trial: Trial) -> float:
    return sum((float(v) - 1.0) ** 2 for v in trial.params.values())


def noisy(trial: Trial) -> float:
    """The sphere with noise from the trial's own seed; the base model is worth 99."""
    if trial.kind is Kind.BASE:
        return 99.0
    return sphere(trial) + NOISE * float(np.random.default_rng(trial.seed).standard_normal())


def run_out(study: Study, value: Callable[[Trial], Any] = noisy, workers: int = 1) -> None:
    """`workers` at once; the oldest running trial ends first."""
    study.ask(workers)
    while study.running:
        study.tell(study.running[0], value(study.running[0]))
        if len(study.running) < workers:
            study.ask(workers - len(study.running))


def new(optimizer: str = "sobol", budget: int | None = 20, **options: Any) -> Study:
    options = {"replicates": 6, **options}
    return Study(SQUARE, optimizer, budget, **options)


def kinds(study: Study) -> list[Kind]:
    return [e.trial.kind for e in study.evaluations]


# --- how many


@pytest.mark.parametrize(
    ("replicates", "budget", "count"),
    [(0, 5, 0), (0.0, None, 0), (0, None, 0), (6, 20, 6), (0.15, 20, 3), (0.15, 52, 8), (17, 20, 17)],
)
def test_a_count_or_a_share_of_the_budget(replicates: float, budget: int | None, count: int) -> None:
    assert replicate_count(replicates, budget, 2) == count


@pytest.mark.parametrize(
    ("replicates", "budget", "text"),
    [
        (-1, 20, "expected a number of evaluations such as 6, or a share of the budget such as 0.15, got -1"),
        (1.0, 20, "a share of the budget such as 0.15, got 1.0"),
        (math.nan, 20, "got nan"),
        (True, 20, "got True"),
        ("6", 20, "got '6'"),
        (6, None, "give a budget, got none"),
        (0.02, 20, "a share of 0.02 of 20 evaluations is not even one"),
        (18, 20, "18 replicates and 2 anchors leave nothing of a budget of 20 to the search; give fewer"),
    ],
)
def test_a_wrong_number_is_refused(replicates: Any, budget: int | None, text: str) -> None:
    with pytest.raises(ValueError) as error:
        replicate_count(replicates, budget, 2)
    assert text in str(error.value)
    with pytest.raises(ValueError, match="replicates: "):
        new(budget=budget, replicates=replicates, anchors=("base", "default"), default=DEFAULT)


@pytest.mark.parametrize("candidates", [0, -1, 2.5, "2"])
def test_a_wrong_number_of_candidates_is_refused(candidates: Any) -> None:
    with pytest.raises(ValueError, match="candidates must be a whole number, at least 1, got"):
        new(candidates=candidates)


def test_half_is_kept_out_of_the_choice_and_two_at_least() -> None:
    assert [confirming(count) for count in range(1, 9)] == [1, 2, 2, 2, 3, 3, 4, 4]


# --- when, and which


@pytest.mark.parametrize("workers", [1, 3, 8, 64])
def test_the_last_of_the_budget_are_replicates_with_seeds_of_their_own(workers: int) -> None:
    events: list[Recorded] = []
    study = new(anchors=("base", "default"), default=DEFAULT, record=events.append)
    run_out(study, workers=workers)
    assert study.told == 20
    assert study.finished
    assert kinds(study) == [
        Kind.BASE, Kind.DEFAULT, *[Kind.SEARCH] * 12, *[Kind.REPLICATE] * 3, *[Kind.CONFIRM] * 3
    ]  # fmt: skip
    (budget,) = [event for event in events if isinstance(event, Budget)]
    assert (budget.total, budget.search, budget.replicates) == (20, 12, 6)
    trials = {e.id: e.trial for e in study.evaluations}
    for trial in trials.values():
        if trial.kind.is_replicate:
            original = trials[trial.of]
            assert original.kind in (Kind.DEFAULT, Kind.SEARCH)
            assert (trial.unit, trial.params) == (original.unit, original.params)
            assert (trial.node, trial.slot) == (-1, -1)
        else:
            assert trial.of == -1
    assert len({trial.seed for trial in trials.values()}) == 20


def test_a_replicate_of_the_default_has_the_values_that_the_user_wrote() -> None:
    study = new(anchors=("default",), default=DEFAULT)
    run_out(study, lambda trial: 0.0 if trial.params == DEFAULT else 50.0 + sphere(trial))
    replicated = [e for e in study.evaluations if e.trial.kind.is_replicate]
    assert {e.trial.of for e in replicated if e.trial.kind is Kind.CONFIRM} == {0}
    assert all(e.params == DEFAULT for e in replicated if e.trial.of == 0)


def test_replicates_wait_while_more_points_run_than_are_told_and_no_longer() -> None:
    study = new("random", budget=16)
    assert len(study.ask(99)) == 10  # the search's points; six are kept
    for told in range(1, 6):
        study.tell(study.running[0], float(told))
        assert study.ask(99) == ()
    study.tell(study.running[0], 6.0)
    first, *others = study.ask(99)
    assert first.kind is Kind.REPLICATE
    assert len(others) == 5  # and then none waits for another
    assert all(trial.of < 6 for trial in (first, *others))


def test_a_point_still_running_becomes_a_candidate_when_it_turns_out_better() -> None:
    study = new("random", budget=16, candidates=1)
    points = study.ask(99)
    for trial in points[:-1]:
        study.tell(trial, 5.0 + sphere(trial))
    (early,) = study.ask(1)
    assert early.of != points[-1].id
    study.tell(points[-1], -500.0)
    study.tell(early, 5.0 + sphere(early))
    later = [study.ask(1)[0] for _ in range(5)]
    assert {trial.of for trial in later} == {points[-1].id}


def ranking(*standing: tuple[float, float]) -> list[Standing]:
    return [Standing(10 + i, mean, sd) for i, (mean, sd) in enumerate(standing)]


def given(*pairs: tuple[Kind, int]) -> list[Trial]:
    return [Trial(100 + i, kind, (0.5,), {}, 0, of=of) for i, (kind, of) in enumerate(pairs)]


def test_the_leader_and_its_closest_challenger_take_turns() -> None:
    # the third is further away than the second, but far less certain
    three = ranking((0.0, 0.1), (1.0, 0.1), (2.0, 5.0))
    done: list[tuple[Kind, int]] = []
    for _ in range(4):
        kind, number = next_replicate(three, given(*done), 8, 3, settled=False)
        done.append((kind, number))
    assert done == [(Kind.REPLICATE, 10), (Kind.REPLICATE, 12)] * 2
    assert next_replicate(three, given((Kind.REPLICATE, 10)), 8, 2, settled=False)[1] == 11
    assert next_replicate(three, given((Kind.REPLICATE, 10)), 8, 1, settled=False)[1] == 10
    # whoever leads now gets what the one that led before had
    assert next_replicate(three[::-1], given((Kind.REPLICATE, 10)), 8, 2, settled=False)[1] == 12


def test_what_is_kept_out_goes_evenly_to_the_candidates_until_the_choice_is_settled() -> None:
    two = ranking((0.0, 1.0), (0.1, 1.0), (0.2, 1.0))
    done = [(Kind.REPLICATE, 10)] * 3
    for _ in range(3):
        done.append(next_replicate(two, given(*done), 6, 2, settled=False))
    assert done[3:] == [(Kind.CONFIRM, 10), (Kind.CONFIRM, 11), (Kind.CONFIRM, 10)]
    assert next_replicate(two, given(*done[:4]), 6, 2, settled=True) == (Kind.CONFIRM, 10)


def test_one_worker_confirms_the_recommended_configuration_alone() -> None:
    for seed in range(5):
        study = new("random", seed=seed)
        run_out(study)
        confirmed = {e.trial.of for e in study.evaluations if e.trial.kind is Kind.CONFIRM}
        assert confirmed == {study.recommend().id}
        assert study.recommend().confirmations == 3


# --- what takes part in a choice


def test_a_confirmation_takes_part_in_no_choice_and_no_optimizer_hears_of_it() -> None:
    study, other = new("random"), new("random")
    heard: list[Observed] = []
    apply = study.optimizer.apply

    def listen(event: Any) -> None:
        if isinstance(event, Observed):
            heard.append(event)
        apply(event)

    study.optimizer.apply = listen  # type: ignore[method-assign]
    run_out(study)
    run_out(other, lambda trial: 1e6 if trial.kind is Kind.CONFIRM else noisy(trial))
    assert (study.recommend().id, study.recommend().mean) == (other.recommend().id, other.recommend().mean)
    assert other.recommend().value == 1e6
    replicates = [e for e in study.evaluations if e.trial.kind is Kind.REPLICATE]
    assert [event.loss.tolist() for event in heard] == [[e.value] for e in replicates]
    assert [event.unit.tolist() for event in heard] == [[list(e.trial.unit or ())] for e in replicates]


def test_a_lucky_replicate_is_not_the_best_observed() -> None:
    study = new("random", direction="maximize")
    run_out(study, lambda trial: 1000.0 if trial.kind.is_replicate else -sphere(trial))
    assert study.best.trial.kind is Kind.SEARCH
    assert study.best.value < 0


def test_replicates_change_the_recommendation() -> None:
    """The luckiest of all is replicated, falls back to what it is worth, and is not recommended."""
    study = new("random", replicates=8)
    lucky: list[int] = []

    def value(trial: Trial) -> float:
        if not lucky and trial.unit is not None and sphere(trial) > 20:
            lucky.append(trial.id)
            return -30.0
        return sphere(trial)

    run_out(study, value)
    assert study.best.id == lucky[0]
    assert Counter(e.trial.of for e in study.evaluations)[lucky[0]] >= 1
    assert study.recommend().id != lucky[0]


@pytest.mark.parametrize(("other", "recommended"), [(4.99, 0), (-500.0, 9)])
def test_what_has_an_unbiased_value_is_recommended_unless_another_is_better_beyond_doubt(
    other: float, recommended: int
) -> None:
    """The last point of the search comes in when all replicates are asked: no confirmation is left for it."""
    study = new("random", budget=16, candidates=1)
    *early, late = study.ask(99)
    for trial in early:
        study.tell(trial, 5.0 if trial.id == 0 else 40.0 + 3.0 * (trial.seed % 7))
    for trial in study.ask(99):
        assert trial.of == 0
        study.tell(trial, 5.0 + (trial.seed % 7 - 3) / 3)
    study.tell(late, other)
    assert study.finished
    known = [(e.trial, e.outcome) for e in study.evaluations]
    assert standings(SQUARE, 1.0, known)[0].id == late.id == 9  # it has the best posterior mean
    assert study.recommend().id == recommended
    assert study.recommend().confirmations == (3 if recommended == 0 else 0)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_recommendation_is_in_the_objectives_units_and_direction(direction: Any) -> None:
    sign = 1.0 if direction == "minimize" else -1.0
    study = new("sobol", budget=40, direction=direction)
    run_out(study, lambda trial: sign * noisy(trial) + 100.0)
    found = study.recommend()
    trial = next(e.trial for e in study.evaluations if e.id == found.id)
    assert found.params == trial.params
    assert abs(found.mean - (sign * sphere(trial) + 100.0)) < 2.0 * NOISE
    assert 0.0 < found.sd < NOISE
    values = [e.value for e in study.evaluations if e.trial.of == found.id and e.trial.kind is Kind.CONFIRM]
    assert found.value == np.mean(values)
    assert found.confirmations == len(values) == 3
    told = [(e.trial, e.outcome) for e in study.evaluations]
    assert found.stderr == seed_error(replicate_values(told)).sd / math.sqrt(3)


def test_the_error_by_training_seed_is_pooled_over_the_configurations_replicated() -> None:
    error = seed_error([(3, 1.0), (5, 10.0), (3, 3.0), (5, 16.0), (5, 13.0), (9, 100.0)])
    assert (error.sd, error.freedom) == (math.sqrt((2.0 + 18.0) / 3), 3)
    alone = seed_error([(3, 1.0), (5, 2.0)])
    assert math.isnan(alone.sd)
    assert alone.freedom == 0


def test_without_a_value_there_is_nothing_to_recommend() -> None:
    study = new("random", anchors=("base",))
    with pytest.raises(ValueError, match="no configuration has a value yet"):
        study.recommend()
    study.tell(study.ask(1)[0], 1.0)
    with pytest.raises(ValueError, match="no configuration has a value yet"):
        study.recommend()  # the base model is no configuration
    study.tell(study.ask(1)[0], 5.0)
    assert (study.recommend().id, study.recommend().confirmations) == (1, 0)
    assert math.isnan(study.recommend().value)
    assert math.isnan(study.recommend().stderr)


def test_a_deterministic_objective_has_its_best_recommended() -> None:
    study = new("soo", budget=60, replicates=0, deterministic=True)
    run_out(study, sphere)
    assert (study.recommend().id, study.recommend().mean) == (study.best.id, study.best.value)
    assert study.recommend().sd == 0.0
    again = new("soo", deterministic=True)
    run_out(again, sphere)
    assert again.told == 20


def test_beyond_the_models_size_the_good_ones_are_compared() -> None:
    rng = np.random.default_rng(0)
    units = rng.random((4 * MOST, 2))
    values = ((units - 0.4) ** 2).sum(axis=1) + 0.01 * rng.standard_normal(len(units))
    rows = [
        (Trial(i, Kind.SEARCH, tuple(unit), {}, 0), Outcome.of(value))
        for i, (unit, value) in enumerate(zip(units.tolist(), values.tolist(), strict=True))
    ]
    found = standings(SQUARE, 1.0, rows)
    assert len(found) == MOST
    by_value = sorted(rows, key=lambda row: row[1].value)
    assert {row.id for row, _ in by_value[: MOST // 2]} <= {standing.id for standing in found}
    assert ((units[found[0].id] - 0.4) ** 2).sum() < 0.01


# --- replicates without a value


def test_a_diverged_replicate_speaks_against_its_configuration_a_failed_one_does_not() -> None:
    def ended(status: Status) -> tuple[int, Recommended]:
        """The first configuration replicated, of which every replicate in the choice ends so."""
        study = new("random", candidates=1)
        first: list[int] = []

        def value(trial: Trial) -> Any:
            if trial.kind is Kind.REPLICATE:
                first.append(trial.of)
                if trial.of == first[0]:
                    return Outcome(status)
            return sphere(trial) + 10.0

        run_out(study, value)
        assert study.told == 20
        return first[0], study.recommend()

    first, found = ended(Status.DIVERGED)
    assert found.id != first
    first, found = ended(Status.FAILED)
    assert found.id == first
    assert (found.replicates, found.diverged, found.failed) == (3, 0, 3)


def test_where_all_diverge_with_another_seed_the_best_of_them_is_recommended() -> None:
    study = Study(fo.Space(fo.Int("n", 1, 2)), "grid", 6, replicates=4, settings={"levels": 2})
    run_out(study, lambda trial: math.nan if trial.kind.is_replicate else float(trial.params["n"]))
    found = study.recommend()
    assert found.params == {"n": 1}
    assert (found.confirmations, found.diverged) == (0, 3)


def test_diverged_confirmations_are_counted_and_the_mean_is_that_of_the_others() -> None:
    study = new("random", candidates=1, replicates=4)
    confirmed: list[int] = []

    def value(trial: Trial) -> Any:
        if trial.kind is Kind.CONFIRM:
            confirmed.append(trial.id)
            return math.nan if len(confirmed) == 1 else 7.0
        return noisy(trial)

    run_out(study, value)
    found = study.recommend()
    assert (found.value, found.confirmations, found.replicates, found.diverged) == (7.0, 1, 3, 1)


def test_where_nothing_has_a_value_the_run_ends_without_replicates() -> None:
    study = new("random")
    run_out(study, lambda trial: Outcome(Status.FAILED), workers=3)
    assert study.finished
    assert study.told == 14
    assert study.stopped == "no configuration has a value: none to replicate"


# --- budgets


def test_an_exhausted_search_is_replicated_all_the_same() -> None:
    space = fo.Space(fo.Int("n", 1, 5))
    study = Study(space, "sobol", 40, replicates=6)
    run_out(study, lambda trial: float(trial.params["n"]) + 0.1 * (trial.seed % 7), workers=3)
    assert study.stopped is not None
    assert study.stopped.startswith("exhausted")
    assert study.finished
    assert Counter(kinds(study)) == {Kind.SEARCH: 5, Kind.REPLICATE: 3, Kind.CONFIRM: 3}


def test_a_raised_budget_searches_on_and_ends_with_replicates_of_its_own() -> None:
    events: list[Recorded] = []
    study = new("random", record=events.append)
    run_out(study)
    longer = new("random", budget=36, record=events.append)
    longer.fold(list(events))
    assert not longer.finished
    run_out(longer)
    assert longer.told == 36
    assert kinds(longer)[20:] == [*[Kind.SEARCH] * 10, *[Kind.REPLICATE] * 3, *[Kind.CONFIRM] * 3]
    budgets = [event for event in events if isinstance(event, Budget)]
    assert [(b.total, b.search, b.replicates) for b in budgets] == [(20, 14, 6), (36, 24, 6)]
    barely = new("random", budget=22)
    barely.fold(event for event in events if isinstance(event, Budget) or event.ids.max() < 20)  # type: ignore[union-attr]
    run_out(barely)
    assert kinds(barely)[20:] == [Kind.REPLICATE] * 2


def test_another_number_of_replicates_is_a_change_of_plan() -> None:
    events: list[Recorded] = []
    study = new("random", replicates=0, record=events.append)
    for _ in range(10):
        study.tell(study.ask(1)[0], 1.0)
    changed = new("random", replicates=4)
    changed.fold(events)
    run_out(changed)
    assert Counter(kinds(changed)) == {Kind.SEARCH: 16, Kind.REPLICATE: 2, Kind.CONFIRM: 2}


# --- the fold


@pytest.mark.parametrize("name", ["soo", "sobol", "random", "direct"])
def test_folded_at_any_point_the_same_replicates_follow(name: str) -> None:
    def fresh(record: Any) -> Study:
        return new(name, seed=3, anchors=("base", "default"), default=DEFAULT, record=record)

    def turn(study: Study) -> bool:
        if len(study.running) < 4:
            study.ask(4 - len(study.running))
        if not study.running:
            return False
        ids = [trial.id for trial in study.running]
        rng = np.random.default_rng(ids)
        trial = study.running[rng.integers(len(ids))]
        study.tell(trial, Outcome(Status.FAILED) if rng.random() < 0.1 else noisy(trial))
        return True

    lines: list[str] = []
    whole = fresh(lambda event: lines.append(json.dumps(event_to_json(event))))
    cuts = [0]
    while turn(whole):
        cuts.append(len(lines))
    assert sum(kind.is_replicate for kind in kinds(whole)) == 6
    for cut in cuts[-12:-1]:
        later: list[str] = []
        folded = fresh(lambda event, later=later: later.append(json.dumps(event_to_json(event))))
        folded.fold(event_from_json(json.loads(line)) for line in lines[:cut])
        while turn(folded):
            pass
        assert lines[:cut] + later == lines
        assert folded.recommend() == whole.recommend()


def test_a_history_without_replicates_in_its_budget_is_read() -> None:
    budget = event_from_json({"event": "budget", "total": 7, "search": 5})
    assert isinstance(budget, Budget)
    assert budget.replicates == 0


def test_which_trial_is_replicated_is_on_record() -> None:
    events: list[Recorded] = []
    study = new("random", record=events.append)
    run_out(study)
    asked = [event for event in events if isinstance(event, Asked) and event.kind.is_replicate]
    assert [int(event.of[0]) for event in asked] == [
        e.trial.of for e in study.evaluations if e.trial.kind.is_replicate
    ]


# --- what is true over many runs


@pytest.fixture(scope="module")
def many() -> list[tuple[float, float, float, float, float]]:
    """Of 60 runs: regret of the best observed and of the recommended, the errors of what each is said to be
    worth, and the standard error that is told with the latter's.
    """
    found = []
    for seed in range(60):
        study = new("random", budget=46, seed=seed)
        run_out(study, workers=1 if seed % 2 else 4)
        truth = {e.id: sphere(e.trial) for e in study.evaluations}
        least = min(truth.values())
        best, recommended = study.best, study.recommend()
        found.append(
            (
                truth[best.id] - least,
                truth[recommended.id] - least,
                best.value - truth[best.id],
                recommended.value - truth[recommended.id],
                recommended.stderr,
            )
        )
    return found


def mean_and_error(numbers: Any) -> tuple[float, float]:
    numbers = np.array(numbers)
    return float(numbers.mean()), float(numbers.std(ddof=1)) / math.sqrt(len(numbers))


def test_the_recommended_configuration_is_better_than_the_best_observed(many: list[Any]) -> None:
    mean, error = mean_and_error([observed - recommended for observed, recommended, *_ in many])
    assert mean > 4.0 * error


def test_its_value_is_unbiased_where_that_of_the_best_observed_is_not(many: list[Any]) -> None:
    mean, error = mean_and_error([error for *_, error, _ in many])
    assert abs(mean) < 4.0 * error
    mean, error = mean_and_error([error for _, _, error, _, _ in many])
    assert mean < -10.0 * error  # the winner's curse


def test_the_standard_error_by_training_seed_is_the_size_of_the_error(many: list[Any]) -> None:
    told = [s**2 for *_, s in many if not math.isnan(s)]
    made = [e**2 for *_, e, s in many if not math.isnan(s)]
    assert len(told) > 48
    mean, error = mean_and_error(np.array(made) - np.array(told))
    assert abs(mean) < 4.0 * error
