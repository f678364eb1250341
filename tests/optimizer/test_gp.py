"""`gp` and `thompson`: when the model decides, what is believed, large records, and where it leads."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fractopt.objective.functions import find
from fractopt.optimizer import evidence as evidence_module
from fractopt.optimizer import model_based, registry
from fractopt.optimizer.base import computed, step_stream
from fractopt.optimizer.evidence import Evidence
from fractopt.optimizer.gp import GP
from fractopt.optimizer.model_based import ModelBased, ModelSettings
from fractopt.optimizer.study import Study
from fractopt.space import Categorical, Float, FloatArray, Int, IntArray, Space
from fractopt.trial import Asked, Budget, Expanded, Fitted, Kind, Outcome, Recorded, Told

SQUARE = Space(Float("x", 0, 1), Float("y", 0, 1))


def bowl(unit: FloatArray) -> float:
    return float(((np.asarray(unit) - 0.37) ** 2).sum())


def branin(params: dict[str, float]) -> float:
    return find("branin").at()(np.array([params["x"], params["y"]]))


def test_branin_within_one_percent_in_forty_evaluations() -> None:
    space = Space(Float("x", -5, 10), Float("y", 0, 15))
    least = find("branin").at().minimum
    reached = 0
    for seed in range(6):
        study = Study(space, "gp", 40, seed=seed)
        while trials := study.ask():
            study.tell(trials[0], branin(dict(trials[0].params)))
        reached += study.best.value <= 1.01 * least
    assert reached == 6


@pytest.mark.parametrize("name", ["gp", "thompson", "fractal"])
def test_the_model_serves_the_first_idle_worker_that_comes_late_enough(name: str) -> None:
    events: list[Recorded] = []
    study = Study(SQUARE, name, 60, seed=0, record=events.append)
    study.ask(32)
    designed = study.optimizer.designed
    for told in range(1, 8):
        study.tell(study.running[0], bowl(study.running[0].unit))
        study.ask()
        fitted = any(isinstance(event, Fitted) for event in events)
        assert fitted == (told >= 5)  # dimension + 3, with 27 points of the design still running
    assert study.optimizer.designed == designed + 4


def test_a_batch_and_the_points_under_way_keep_their_distance() -> None:
    def rugged(unit: FloatArray) -> float:
        return bowl(unit) + 0.1 * float(np.sin(25.0 * np.asarray(unit)).prod())

    study = Study(SQUARE, "gp", 100, seed=1)
    for trial in study.ask(12):
        study.tell(trial, rugged(trial.unit))
    points = np.array([trial.unit for trial in study.ask(16)])
    nearest = np.sort(np.sqrt(((points[:, None] - points) ** 2).sum(axis=2)), axis=1)[:, 1]
    assert nearest.min() > 1e-5
    assert np.median(nearest) > 0.02
    later = np.array([trial.unit for trial in study.ask(4)])
    assert np.sqrt(((later[:, None] - points) ** 2).sum(axis=2)).min() > 1e-5


def test_believing_leaves_the_mean_and_lowers_the_variance() -> None:
    evidence = _record(SQUARE, 30)
    model = evidence.model()
    rng = np.random.default_rng(0)
    pending, elsewhere = rng.random((5, 2)), rng.random((50, 2))
    before, spread = model.posterior.predict(model.scaled(elsewhere))
    after, narrowed = (believed := model.believing(pending)).posterior.predict(believed.scaled(elsewhere))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-7)
    assert (narrowed <= spread + 1e-12).all()


def test_no_repeat_of_a_rounded_point_while_others_are_left() -> None:
    space = Space(Int("n", 1, 6), Categorical("c", ("a", "b", "c")))
    study = Study(space, "gp", 18, seed=0)
    seen = []
    while trials := study.ask(3):
        for trial in trials:
            seen.append(space.key(trial.unit))
            study.tell(trial, trial.params["n"] + 0.1 * len(str(trial.params["c"])))
    assert len(set(seen)) == len(seen) == 18
    assert study.repeats == 0


@pytest.mark.parametrize("name", ["gp", "fractal", "thompson"])
def test_beyond_the_largest_exact_posterior(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The same path as beyond 1000 outcomes, on fewer: the posterior near four places.
    monkeypatch.setattr(model_based, "MOST_EXACT", 40)
    monkeypatch.setattr(evidence_module, "NEAREST", 25)
    events: list[Recorded] = []
    study = Study(SQUARE, name, 90, seed=3, record=events.append)
    while trials := study.ask(4):
        for trial in trials:
            study.tell(trial, bowl(trial.unit))
    assert study.told == 90
    assert study.best.value < 1e-4
    again = Study(SQUARE, name, 91, seed=3)
    again.fold(events)
    assert again.ask()


def test_near_is_the_whole_posterior_where_all_is_near() -> None:
    evidence = _record(SQUARE, 60)
    whole = evidence.model()
    point = np.array([0.4, 0.4])
    near, which = evidence.near(point)
    assert len(which) == 60
    for model in (whole, near):
        mean, variance = model.posterior.predict(model.scaled(point[None]))
        expected, expected_variance = whole.posterior.predict(whole.scaled(point[None]))
        np.testing.assert_allclose(mean, expected, atol=1e-6)
        np.testing.assert_allclose(variance, expected_variance, atol=1e-6)


def test_the_nearest_are_the_nearest_in_length_scales() -> None:
    evidence = _record(SQUARE, 400)
    point = np.array([0.1, 0.8])
    _, which = evidence.near(point)
    assert evidence.choice is not None
    distance = (((evidence.unit - point) / evidence.choice.parameters.lengthscale) ** 2).sum(axis=1)
    assert set(which.tolist()) == set(np.argsort(distance)[: evidence_module.NEAREST].tolist())


def test_fits_are_rarer_as_the_record_grows() -> None:
    events: list[Recorded] = []
    study = Study(SQUARE, "gp", 120, seed=0, record=events.append)
    while trials := study.ask():
        study.tell(trials[0], bowl(trials[0].unit))
    counts = [event.count for event in events if isinstance(event, Fitted)]
    gaps = np.diff(counts)
    assert all(gap == max(1, after // 20) for gap, after in zip(gaps, counts[1:], strict=True))
    assert sum(event.rechosen for event in events if isinstance(event, Fitted)) < len(counts) / 2


def test_a_known_error_is_noise_of_that_point_alone() -> None:
    evidence = Evidence(SQUARE)
    rng = np.random.default_rng(5)
    unit = rng.random((20, 2))
    loss = np.array([bowl(u) for u in unit])
    stderr = np.where(np.arange(20) == 7, 0.2, np.nan)
    _tell(
        evidence,
        unit,
        [
            Outcome(status="ok", value=v, stderr=None if math.isnan(e) else e)
            for v, e in zip(loss, stderr, strict=True)
        ],
    )
    evidence.apply(evidence.fit())
    noise = evidence.model().posterior.noise
    assert noise[7] > 10 * np.delete(noise, 7).max()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"initial": -1}, "initial: expected 0 (dimension + 3) or more, got -1"),
        ({"candidates": 0}, "candidates: expected at least 1, got 0"),
        ({"candidates": 1.5}, "candidates: expected a whole number, got 1.5"),
        ({"initial": "a"}, "initial: expected a whole number, got 'a'"),
        ({"initial": True}, "initial: expected a whole number, got True"),
    ],
)
@pytest.mark.parametrize("name", ["gp", "thompson", "fractal"])
def test_settings_out_of_range(name: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as error:
        registry.create(name, SQUARE, 0, settings)
    assert str(error.value) == said


def test_the_budget_does_not_matter_to_a_decision() -> None:
    decided = []
    for budget in (30, 3000):
        optimizer = GP(SQUARE, 0, ModelSettings())
        optimizer.apply(Budget(budget, budget))
        _ask_and_tell(optimizer, np.random.default_rng(1).random((10, 2)))
        fitted = computed(optimizer.decide(1, step_stream(0, 0)))
        assert isinstance(fitted, Fitted)
        optimizer.apply(fitted)
        decided.append(optimizer.decide(1, step_stream(0, 1)))
    assert np.array_equal(decided[0].unit, decided[1].unit)


@pytest.mark.parametrize("name", ["fractal", "gp", "thompson"])
@pytest.mark.parametrize("told", [12, 80])
def test_with_very_many_points_under_way_each_model_is_asked_where_it_believes_all_of_them(
    name: str, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (evidence_module, model_based):
        monkeypatch.setattr(module, "NEAREST", 30)
    monkeypatch.setattr(model_based, "MOST_EXACT", 60)
    optimizer = registry.create(name, SQUARE, 0, {})
    optimizer.apply(Budget(9000, 9000))
    rng = np.random.default_rng(1)
    _ask_and_tell(optimizer, rng.random((told, 2)))
    optimizer.apply(optimizer.evidence.fit())
    pending, ids = rng.random((300, 2)), np.arange(told, told + 300)
    while isinstance(event := optimizer.decide(1, rng), Expanded):
        optimizer.apply(event)
    asked = Asked.points(pending, _leaves(optimizer, pending))
    optimizer.apply(replace(asked, ids=ids, of=np.full(300, -1)))
    beliefs = optimizer._beliefs(rng)
    assert len(beliefs) == model_based.PLACES
    for belief in beliefs:
        inside = ((pending > belief.lower) & (pending < belief.upper)).all(axis=1)
        believed = belief.unit[belief.told :]
        assert 0 < inside.sum() <= len(believed) <= 30
        assert {*map(tuple, pending[inside].tolist())} <= {*map(tuple, believed.tolist())}
        proposed = [proposal.point for proposal in optimizer.choose(belief, rng)]
        assert proposed
        assert all(((point >= belief.lower) & (point <= belief.upper)).all() for point in proposed)
    (new,) = optimizer._proposed(1, rng).unit
    assert not optimizer.evidence.is_known(SQUARE.key(new))


def _record(space: Space, count: int) -> Evidence:
    evidence = Evidence(space)
    unit = np.random.default_rng(0).random((count, space.dimension))
    _tell(evidence, unit, [Outcome.of(bowl(u)) for u in unit])
    evidence.apply(evidence.fit())
    return evidence


def _tell(evidence: Evidence, unit: FloatArray, outcomes: list[Outcome]) -> None:
    ids, none = np.arange(len(unit)), np.full(len(unit), -1)
    evidence.apply(Asked(unit, none, none, ids, none, Kind.SEARCH))
    evidence.apply(Told(ids, np.array([outcome.value for outcome in outcomes]), tuple(outcomes)))


def _leaves(optimizer: ModelBased, unit: FloatArray) -> IntArray:
    return np.array([optimizer.leaf(point) for point in unit], np.int64)


def _ask_and_tell(optimizer: ModelBased, unit: FloatArray) -> None:
    ids, none = np.arange(len(unit)), np.full(len(unit), -1)
    optimizer.apply(Asked(unit, _leaves(optimizer, unit), ids, ids, none, Kind.SEARCH))
    outcomes = tuple(Outcome.of(bowl(u)) for u in unit)
    optimizer.apply(Told(ids, np.array([outcome.value for outcome in outcomes]), outcomes))
