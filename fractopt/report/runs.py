"""Several runs side by side: what each found, how sure that is, what it cost, and how soon it was found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fractopt.archive.history import History, Row
from fractopt.report.comparison import better_sign, comparisons, metric_value, test_metrics
from fractopt.report.status import duration
from fractopt.report.verdict import recommended, recommended_as_json
from fractopt.trial import Kind, Status, Told

# What guessing scores, for tasks of lm-eval whose questions all have the same number of choices.
CHANCE = {
    **dict.fromkeys(("tiny", "tiny-test", "hellaswag", "mmlu", "openbookqa", "sciq", "race"), 1 / 4),
    **dict.fromkeys(("winogrande", "piqa", "boolq", "copa", "wsc", "rte", "wic"), 1 / 2),
}
CLEARLY = 2.0  # standard errors
_MOST_DIGITS = 8  # behind the point
_WIDTH, _COLUMN, _ACROSS = 27, 21, 4  # characters of a row's name and of a column; columns in a table


class Measured(NamedTuple):
    """A value with its standard error from sampling the questions, None where that is not known."""

    value: float
    stderr: float | None


@dataclass(frozen=True)
class Tested:
    """A test metric over a run: of the best observed row, of the anchors, and its own best of `count` rows.

    The last one was chosen by the test questions themselves: it is no result of the search, and is here
    because tables in the literature have it.
    """

    metric: str
    of_best: Measured | None
    of_base: Measured | None
    of_default: Measured | None
    maximum: Measured | None
    maximum_trial: int | None
    count: int


@dataclass(frozen=True, eq=False)
class Run:
    """One run directory, read.

    `order` are its evaluations as their results came, and evaluation n of a text is order[n - 1]. `chance` is
    what guessing scores in the search's metric, None where nobody knows.
    """

    name: str
    directory: Path
    history: History
    order: tuple[Row, ...]
    chance: float | None

    @classmethod
    def of(cls, name: str, directory: Path, history: History, chance: float | None = None) -> Run:
        rows = history.rows
        told = [n for event in history.events if isinstance(event, Told) for n in event.ids.tolist()]
        order = tuple(rows[number] for number in dict.fromkeys(told) if number in rows)
        if chance is None and history.manifest.objective.get("kind") == "lora":
            chance = CHANCE.get(history.manifest.metric.rpartition("/")[0])
        return cls(name, directory, history, order, chance)

    @property
    def metric(self) -> str:
        return self.history.manifest.metric

    @property
    def sign(self) -> float:
        """1 where more of the metric is better, -1 where less is."""
        return better_sign(self.history, self.metric)

    @property
    def tests(self) -> list[str]:
        """The metrics that no choice saw and any evaluation has; first that on the questions left out."""
        manifest, known = self.history.manifest, [test_metrics(self.history, row) for row in self.order]
        wanted = [*([manifest.unseen_metric] if manifest.unseen_metric else []), *manifest.test_metrics]
        return [metric for metric in wanted if any(metric in found for found in known)]

    def measured(self, row: Row | None, metric: str) -> Measured | None:
        """What `row` has of `metric`; None where it has none of its own: what lost a race has an estimate."""
        if row is None or row.outcome is None or not row.complete:
            return None
        if metric == self.metric:
            return Measured(row.value, row.outcome.stderr)
        if metric not in test_metrics(self.history, row):
            return None
        record = self.history.tests.get(row.id)
        metrics = {**row.outcome.metrics, **(record["outcome"].get("metrics", {}) if record else {})}
        stderr = metrics.get(f"{metric}_stderr")
        return Measured(metric_value(self.history, row, metric), None if stderr is None else float(stderr))

    def tested(self, metric: str) -> Tested:
        found = [(row, m) for row in self.order if (m := self.measured(row, metric)) is not None]
        of_a_search = [(row, m) for row, m in found if row.kind is not Kind.BASE]
        sign = better_sign(self.history, metric)
        top = max(of_a_search, key=lambda entry: sign * entry[1].value, default=None)
        return Tested(
            metric,
            self.measured(self.history.best, metric),
            self.measured(self.history.anchor(Kind.BASE), metric),
            self.measured(self.history.anchor(Kind.DEFAULT), metric),
            None if top is None else top[1],
            None if top is None else top[0].id,
            len(found),
        )

    @property
    def first_as_good(self) -> int | None:
        """The first evaluation within one standard error of the best observed; None without such an error."""
        best = self.measured(self.history.best, self.metric)
        if best is None or best.stderr is None:
            return None
        least = self.sign * best.value - best.stderr
        for number, row in enumerate(self.order, 1):
            measured = self.measured(row, self.metric)
            if measured is not None and row.kind is not Kind.BASE and self.sign * measured.value >= least:
                return number
        raise AssertionError("the best is as good as itself")

    @property
    def best_at(self) -> int | None:
        """The evaluation that is the best observed."""
        best = self.history.best
        return None if best is None else 1 + self.order.index(best)

    @property
    def not_above_chance(self) -> float | None:
        """Share of the evaluations with a value that are not better than guessing by two standard errors.

        None where it is not known what guessing scores. The base model and replicates are left out.
        """
        rows = [row for row in self.order if row.kind.is_configuration]
        values = [m for row in rows if (m := self.measured(row, self.metric)) is not None]
        if self.chance is None or not values:
            return None
        near = sum(self.sign * (m.value - self.chance) <= CLEARLY * (m.stderr or 0.0) for m in values)
        return near / len(values)

    @property
    def busy_s(self) -> float:
        """Seconds that all attempts took together; of an archive that records none, the outcomes' own."""
        attempts = [attempt.seconds for row in self.order for attempt in row.attempts]
        return sum(attempts) if attempts else sum(row.outcome.seconds for row in self.order if row.outcome)

    def to_json(self) -> dict[str, Any]:
        history, best, manifest = self.history, self.history.best, self.history.manifest
        counts = history.counts()
        return {
            "name": self.name,
            "directory": str(self.directory),
            "optimizer": manifest.optimizer,
            "seed": manifest.seed,
            "complete": history.complete,
            "metric": self.metric,
            "direction": manifest.direction,
            "best": None
            if best is None
            else {
                "trial": best.id,
                "evaluation": self.best_at,
                "params": dict(best.params),
                **_json(self.measured(best, self.metric)),
            },
            "recommended": None if (found := recommended(history)) is None else recommended_as_json(found),
            **{kind.value: _json(self.measured(history.anchor(kind), self.metric)) for kind in _ANCHORS},
            "against": {
                c.against.value: {"difference": c.difference, "stderr": c.stderr, "questions": c.questions}
                for c in (comparisons(history, self.directory, best.id) if best is not None else ())
                if c.metric == self.metric
            },
            "tests": {
                t.metric: {
                    "of_best": _json(t.of_best),
                    "of_base": _json(t.of_base),
                    "of_default": _json(t.of_default),
                    "maximum": {**_json(t.maximum), "trial": t.maximum_trial},
                    "count": t.count,
                }
                for t in map(self.tested, self.tests)
            },
            "evaluations": len(self.order),
            "budget": history.budget,
            "failures": history.failures,
            "diverged": counts.get(Status.DIVERGED.value, 0),
            "pruned": counts.get(Status.PRUNED.value, 0),
            "chance": self.chance,
            "not_above_chance": self.not_above_chance,
            "first_as_good": self.first_as_good,
            "wall_s": history.wall_s or None,
            "busy_s": self.busy_s or None,
            "busy_share": history.busy_share or None,
        }


_ANCHORS = (Kind.BASE, Kind.DEFAULT)


def named(directories: Sequence[Path]) -> list[str]:
    """A name for each run directory: the shortest end of its path that tells it from the others.

    Raises ValueError where one is there twice.
    """
    paths = [directory.resolve() for directory in directories]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"{path} is given twice; expected different runs")
    names = []
    for path in paths:
        parts = path.parts
        ends = (parts[-n:] for n in range(1, len(parts) + 1))
        own = next(end for end in ends if sum(other.parts[-len(end) :] == end for other in paths) == 1)
        names.append("/".join(own))
    return names


def alike(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs that optimise the same: of one metric and one direction, in the order in which they come."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.metric, run.history.manifest.direction), []).append(run)
    return list(groups.values())


def table_lines(runs: Sequence[Run]) -> Iterator[str]:
    """The table, a column a run; runs that do not optimise the same are in tables of their own."""
    groups = alike(runs)
    if len(groups) > 1:
        yield (
            "these runs do not optimise the same, so there is a table for each metric: "
            + "; ".join(f"{group[0].metric} in {', '.join(run.name for run in group)}" for group in groups)
        )
    blocks = [group[i : i + _ACROSS] for group in groups for i in range(0, len(group), _ACROSS)]
    for block in blocks:
        if len(blocks) > 1:
            yield ""
        yield from _table(block)
    yield ""
    yield (
        "±: standard error of sampling the questions, or as the objective tells it. The best was chosen by\n"
        "its metric, which flatters it. A test metric's maximum was chosen by that: no result of a search."
    )


def _table(runs: Sequence[Run]) -> Iterator[str]:
    metric = runs[0].metric
    bests = [run.history.best for run in runs]
    yield _line("", [run.name for run in runs])
    yield _line("optimizer", [run.history.manifest.optimizer for run in runs])
    yield _line(f"{metric}, best", [_text(r.measured(b, metric)) for r, b in zip(runs, bests, strict=True)])
    yield _line("  of trial", ["-" if best is None else str(best.id) for best in bests])
    found = [recommended(run.history) for run in runs]
    if any(found):
        yield _line("  recommended trial", ["-" if r is None else str(r.id) for r in found])
        yield _line(
            "    by posterior mean", ["-" if r is None else _text(Measured(r.mean, r.sd)) for r in found]
        )
    for kind, name in zip(_ANCHORS, ("untuned model", "default"), strict=True):
        yield _line(f"  {name}", [_text(run.measured(run.history.anchor(kind), metric)) for run in runs])
    for kind, name in zip(_ANCHORS, ("untuned", "default"), strict=True):
        cells = [_difference(run, kind) for run in runs]
        if any(cell != "-" for cell in cells):
            yield _line(f"  better than {name} by", cells)
    for test in dict.fromkeys(test for run in runs for test in run.tests):
        tested = [run.tested(test) for run in runs]
        yield _line(f"{test}, of that row", [_text(t.of_best) for t in tested])
        yield _line(
            "  maximum of the column",
            [_text(t.maximum) + (f" ({t.maximum_trial})" if t.maximum else "") for t in tested],
        )
        yield _line("  untuned model", [_text(t.of_base) for t in tested])
        yield _line("  default", [_text(t.of_default) for t in tested])
        yield _line("  evaluations that have it", [str(t.count) for t in tested])
    yield _line("evaluations", [str(len(run.order)) for run in runs])
    yield _line("  failed, diverged", [_failures(run) for run in runs])
    yield _line("  not above chance", [_chance(run) for run in runs])
    yield _line("  the best is number", [_or_none(run.best_at) for run in runs])
    yield _line("  within 1 ± of it: number", [_or_none(run.first_as_good) for run in runs])
    yield _line("wall time", [_time(run.history.wall_s) for run in runs])
    yield _line("busy time, all workers", [_time(run.busy_s) for run in runs])


def _line(name: str, cells: Sequence[str]) -> str:
    cut = (cell if len(cell) < _COLUMN else f"…{cell[2 - _COLUMN :]}" for cell in cells)
    return f"{name:<{_WIDTH}}{''.join(f'{cell:<{_COLUMN}}' for cell in cut)}".rstrip()


def _text(measured: Measured | None) -> str:
    if measured is None:
        return "-"
    value, stderr = measured
    if stderr is None or not 0.0 < stderr < math.inf:
        return f"{value:.4g}"
    digits = max(1 - math.floor(math.log10(stderr)), 0)  # two of the error
    return (
        f"{value:.{digits}f} ± {stderr:.{digits}f}"
        if digits < _MOST_DIGITS
        else f"{value:.6g} ± {stderr:.1e}"
    )


def _difference(run: Run, kind: Kind) -> str:
    """Of the best observed to an anchor: the paired one, where the answers to the questions are on file."""
    best = run.history.best
    found = comparisons(run.history, run.directory, best.id) if best is not None else []
    c = next((c for c in found if c.against is kind and c.metric == run.metric), None)
    if c is None:
        return "-"
    error = "" if math.isnan(c.stderr) else f" ± {c.stderr:.2g}"
    return f"{c.difference:+.4f}{error}"


def _failures(run: Run) -> str:
    return f"{run.history.failures}, {run.history.counts().get(Status.DIVERGED.value, 0)}"


def _chance(run: Run) -> str:
    share = run.not_above_chance
    return "-" if share is None else f"{100 * share:.0f} %"


def _or_none(number: int | None) -> str:
    return "-" if number is None else str(number)


def _time(seconds: float) -> str:
    return duration(seconds) if seconds > 0.0 else "-"


def _json(measured: Measured | None) -> dict[str, Any]:
    return {"value": None, "stderr": None} if measured is None else measured._asdict()
