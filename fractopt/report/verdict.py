"""The verdict on a run: is the best configuration better than the untuned model and the default?

Three errors are never mixed, and each printed one names its own: the sampling of questions (how far
another set of questions would move one accuracy), the paired difference (the same questions asked
of two models, so what they agree on cancels), and the training seed (from replicates).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fractopt.archive.history import History, Row
from fractopt.archive.result import evaluation_directory
from fractopt.objective.lora.answers import paired_difference, read_answers
from fractopt.space import BoolArray
from fractopt.trial import Kind


@dataclass(frozen=True)
class Comparison:
    """The best configuration against an anchor on one set of questions.

    `difference` in the metric's units, positive where the best is better; `stderr` is that of the
    paired difference, NaN where the answers are not on file. `selected` says that these questions
    chose the best one, which flatters it (the winner's curse).
    """

    metric: str
    against: Kind
    best: float
    anchor: float
    difference: float
    stderr: float
    questions: int
    selected: bool

    @property
    def z(self) -> float:
        """The difference in standard errors; NaN where these are unknown."""
        return self.difference / self.stderr if self.stderr > 0 else math.nan


def comparisons(history: History, directory: Path) -> list[Comparison]:
    """The best configuration against base and default: on the search's questions, then on the tests'."""
    best = history.best
    if best is None or best.outcome is None:
        return []
    sign = -history.manifest.sign  # a difference is positive where the best is better
    found = []
    for kind in (Kind.BASE, Kind.DEFAULT):
        anchor = history.anchor(kind)
        if anchor is None or anchor.outcome is None or not anchor.outcome.has_value or anchor.id == best.id:
            continue
        metric = history.manifest.metric
        values = (best.value, anchor.value)
        found.append(_compare(directory, metric, kind, best, anchor, values, sign, selected=True))
        for metric in sorted(test_metrics(history, best) & test_metrics(history, anchor)):
            values = (_test_value(history, best, metric), _test_value(history, anchor, metric))
            # Test metrics are accuracies: more is better, whatever the search minimised.
            found.append(_compare(directory, metric, kind, best, anchor, values, 1.0, selected=False))
    return found


def error_source(history: History) -> str:
    """What the standard error of a single value is about: only a fine-tune is asked questions."""
    return (
        "of sampling the questions"
        if history.manifest.objective.get("kind") == "lora"
        else "told by the objective"
    )


def test_metrics(history: History, row: Row) -> set[str]:
    """Names of the test metrics that were computed for `row`."""
    wanted = set(history.manifest.objective.get("test_metrics", ()))
    record = history.tests.get(row.id)
    known = set(record["outcome"].get("metrics", ())) if record else set()
    own = set(row.outcome.metrics) if row.outcome else set()
    return wanted & (known | own)


test_metrics.__test__ = False  # type: ignore[attr-defined]  # no test case, whatever its name


def _test_value(history: History, row: Row, metric: str) -> float:
    record = history.tests.get(row.id)
    if record is not None and metric in record["outcome"].get("metrics", {}):
        return float(record["outcome"]["metrics"][metric])
    return float(row.outcome.metrics[metric]) if row.outcome else math.nan


def _compare(
    directory: Path,
    metric: str,
    kind: Kind,
    best: Row,
    anchor: Row,
    values: tuple[float, float],
    sign: float,
    *,
    selected: bool,
) -> Comparison:
    stderr, questions = math.nan, 0
    answers = [_answers(directory, row, metric) for row in (best, anchor)]
    if answers[0] is not None and answers[1] is not None and len(answers[0]) == len(answers[1]):
        _, stderr = paired_difference(answers[0], answers[1])
        questions = len(answers[0])
    difference = sign * (values[0] - values[1])
    return Comparison(metric, kind, values[0], values[1], difference, stderr, questions, selected)


def _answers(directory: Path, row: Row, metric: str) -> BoolArray | None:
    try:
        return read_answers(evaluation_directory(directory, row.id)).get(metric)
    except (OSError, ValueError):
        return None  # an objective that keeps none, or an archive that was moved without its files


def verdict_lines(history: History, directory: Path) -> Iterator[str]:
    """The end of a run in words: what was found, how sure it is, and what it cost."""
    best = history.best
    metric = history.manifest.metric
    if best is None or best.outcome is None:
        yield "no configuration has a value"
    else:
        error = best.outcome.stderr
        named = "" if error is None else f" ± {error:.4g} (standard error {error_source(history)})"
        yield f"best     trial {best.id}: {metric} {best.value:.6g}{named}"
        yield "         " + ", ".join(
            f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}" for k, v in best.params.items()
        )
        for c in comparisons(history, directory):
            yield f"against  {c.against.value}: {_comparison_text(c)}"
    counts = ", ".join(f"{n} {status}" for status, n in sorted(history.counts().items()))
    repeated = f"; {history.repeats} repeated points answered without one" if history.repeats else ""
    total = f" of {history.budget}" if history.budget else ""  # nothing was proposed yet
    yield f"budget   {len(history.evaluations)}{total} evaluations: {counts or 'none'}{repeated}"
    yield (
        f"time     {history.wall_s:.0f} s of wall time; workers busy {100 * history.busy_share:.0f} % "
        f"from ready to last result"
    )


def _comparison_text(c: Comparison) -> str:
    text = f"{c.metric} {c.best:.4f} - {c.anchor:.4f} = {c.difference:+.4f}"
    if not math.isnan(c.stderr):
        text += f" ± {c.stderr:.4f} (standard error of the paired difference, {c.questions} questions)"
    if c.selected:
        return text + "; these questions chose the best one, which flatters it"
    if math.isnan(c.z):
        return text
    return text + ("; better" if c.z > 2 else "; worse" if c.z < -2 else "; no clear difference")


def best_as_json(history: History, directory: Path) -> dict[str, object]:
    """The best configuration and what it was compared with, in JSON's types."""
    best = history.best
    if best is None or best.outcome is None:
        raise ValueError("no configuration has a value yet")
    anchors = {kind: history.anchor(kind) for kind in (Kind.BASE, Kind.DEFAULT)}
    return {
        "trial": best.id,
        "params": dict(best.params),
        "metric": history.manifest.metric,
        "value": best.value,
        "stderr": best.outcome.stderr,
        **{kind.value: None if row is None else row.value for kind, row in anchors.items()},
        "comparisons": [{**c.__dict__, "against": c.against.value} for c in comparisons(history, directory)],
        "evaluations": len(history.evaluations),
        "budget": history.budget,
    }
