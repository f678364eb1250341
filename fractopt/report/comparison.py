"""One configuration against the untuned model and the default, question by question.

Replicates that took no part in the choice stand for the configuration where there are any: their mean is
compared, and question by question the share of them that answered right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fractopt.archive.history import History, Row
from fractopt.archive.result import evaluation_directory
from fractopt.objective.lora.answers import paired_difference, read_answers
from fractopt.objective.lora.metrics import less_is_better
from fractopt.optimizer.replicates import SeedError, replicate_values, seed_error
from fractopt.space import FloatArray
from fractopt.trial import Kind

CONFIDENCE = 0.975  # of each side: 1.96 standard errors where these are known exactly


@dataclass(frozen=True)
class Comparison:
    """A configuration against an anchor on one set of questions.

    `difference` in the metric's units, positive where the configuration is better. `stderr` is that of the
    paired difference over `questions`, NaN where the answers are not on file; `seed_stderr` that by
    training seed, with `freedom` degrees of freedom, NaN where it is unknown. `replicates` is how many
    evaluations `value` is the mean of that took no part in the choice, 0 for the one that was chosen.
    `flattered` says what chose the configuration, empty where nothing did that is compared here. `unseen`:
    these are the questions of the search's own task that the search left out.
    """

    metric: str
    against: Kind
    value: float
    anchor: float
    difference: float
    stderr: float
    questions: int
    seed_stderr: float
    freedom: int
    replicates: int
    flattered: str
    unseen: bool = False

    @property
    def word(self) -> str:
        """Whether it is better: by each error that is known, never by a mixture of them."""
        # For one sample of questions the normal distribution is near enough; a spread over a few seeds
        # is known so badly that it needs Student's.
        bounds = []
        if self.stderr > 0.0:
            bounds.append(_quantile(max(self.questions - 1, 1)) * self.stderr)
        if not math.isnan(self.seed_stderr):
            bounds.append(_quantile(self.freedom) * self.seed_stderr)
        if not bounds:
            return ""
        if abs(self.difference) <= max(bounds):
            return "no clear difference"
        return "better" if self.difference > 0.0 else "worse"


def _quantile(freedom: int) -> float:
    from scipy.special import stdtrit  # 0.3 s to load, and only where something is compared

    return float(stdtrit(freedom, CONFIDENCE))


def comparisons(history: History, directory: Path, number: int) -> list[Comparison]:
    """Configuration `number` against base and default.

    On the search's questions, then on those that it left out, then on the tests'.
    """
    subject = history.rows[number]
    found = []
    for kind in (Kind.BASE, Kind.DEFAULT):
        anchor = history.anchor(kind)
        if anchor is None or anchor.outcome is None or not anchor.outcome.has_value or anchor.id == number:
            continue
        found.append(_compare(history, directory, history.manifest.metric, subject, anchor))
        tested = [subject, *history.confirmations(number)]
        known = set().union(*(test_metrics(history, row) for row in tested))
        last = history.manifest.unseen_metric
        found += [
            _compare(history, directory, metric, subject, anchor)
            for metric in sorted(known & test_metrics(history, anchor), key=lambda name: (name != last, name))
        ]
    return found


def test_metrics(history: History, row: Row) -> set[str]:
    """Names of the metrics that no choice saw and that were computed for `row`."""
    manifest = history.manifest
    wanted = {*manifest.test_metrics, *([manifest.unseen_metric] if manifest.unseen_metric else [])}
    record = history.tests.get(row.id)
    known = set(record["outcome"].get("metrics", ())) if record else set()
    own = set(row.outcome.metrics) if row.outcome else set()
    return wanted & (known | own)


test_metrics.__test__ = False  # type: ignore[attr-defined]  # no test case, whatever its name


def sampling_error(history: History, directory: Path, number: int) -> float:
    """Standard error of sampling the questions, of the mean over the replicates of configuration `number`
    that took no part in the choice; NaN where their answers are not on file.
    """
    answers = _answers(directory, history.confirmations(number), history.manifest.metric)
    if answers is None or len(answers) < 2:
        return math.nan
    return float(answers.std(ddof=1)) / math.sqrt(len(answers))


def _compare(history: History, directory: Path, metric: str, subject: Row, anchor: Row) -> Comparison:
    searched = metric == history.manifest.metric
    asks = history.manifest.objective.get("kind") == "lora"
    rows = history.confirmations(subject.id)
    rows = [row for row in rows if searched or metric in test_metrics(history, row)]
    error = SeedError(math.nan, 0)
    if rows:
        error = _seed_error(history, metric)
        flattered = "the training seeds are new, but these questions chose it" if searched and asks else ""
    else:
        what = "these questions" if asks else "this evaluation"
        flattered = f"{what} chose it" if searched else ""
    replicates = len(rows)
    rows = rows or [subject]
    value = float(np.mean([metric_value(history, row, metric) for row in rows]))
    other = metric_value(history, anchor, metric)
    ours, theirs = _answers(directory, rows, metric), _answers(directory, [anchor], metric)
    stderr, questions = math.nan, 0
    if ours is not None and theirs is not None and len(ours) == len(theirs):
        stderr, questions = paired_difference(ours, theirs)[1], len(ours)
    # The default was fine-tuned once, with a seed of its own; the base model has none.
    trained = 1.0 / len(rows) + (1.0 if anchor.kind is Kind.DEFAULT else 0.0)
    left_out = metric == history.manifest.unseen_metric
    sign = better_sign(history, metric)
    return Comparison(
        metric,
        anchor.kind,
        value,
        other,
        sign * (value - other),
        stderr,
        questions,
        error.sd * math.sqrt(trained),
        error.freedom,
        replicates,
        flattered,
        left_out,
    )


def better_sign(history: History, metric: str) -> float:
    """1 where more of `metric` is better, -1 where less is.

    A fine-tune's test metrics have a direction of their own, whatever the search's is; those of another
    objective are taken to be of the kind that it optimises.
    """
    manifest = history.manifest
    if manifest.objective.get("kind") == "lora" and metric not in (manifest.metric, manifest.unseen_metric):
        return -1.0 if less_is_better(metric) else 1.0
    return -manifest.sign


def _seed_error(history: History, metric: str) -> SeedError:
    if metric == history.manifest.metric:
        return seed_error(replicate_values(history.told))
    return seed_error(
        (row.of, metric_value(history, row, metric))
        for row, outcome in history.told
        if row.kind.is_replicate and outcome.has_value and metric in test_metrics(history, row)
    )


def metric_value(history: History, row: Row, metric: str) -> float:
    """What `row` has of the search's metric, or of a test metric that was computed for it; NaN for none."""
    if metric == history.manifest.metric:
        return row.value
    record = history.tests.get(row.id)
    if record is not None and metric in record["outcome"].get("metrics", {}):
        return float(record["outcome"]["metrics"][metric])
    return float(row.outcome.metrics[metric]) if row.outcome else math.nan


def _answers(directory: Path, rows: Sequence[Row], metric: str) -> FloatArray | None:
    """For each question the share of `rows` that answered it right (n,), None where that is not on file."""
    found: list[FloatArray] = []
    for row in rows:
        try:
            answers = read_answers(evaluation_directory(directory, row.id)).get(metric)
        except (OSError, ValueError):
            return None  # an objective that keeps none, or an archive that was moved without its files
        if answers is None or (found and len(answers) != len(found[0])):
            return None
        found.append(answers.astype(np.float64))
    return np.asarray(np.mean(found, axis=0)) if found else None
