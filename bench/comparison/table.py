"""The tables and the figure of the comparison, from the runs that are there."""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.comparison import cache, methods
from bench.comparison.problems import PROBLEMS, SUBSET
from bench.comparison.simulation import Run
from fractopt.space import FloatArray

RESULTS = cache.FOLDER.with_suffix(".md")
FIGURE = cache.FOLDER.with_suffix(".png")
LEAST = 1e-9  # smaller regrets count as this one
RESAMPLES = 1000
FEWEST = 3  # seeds a problem, without which a method is in no table of all problems
TWINS = (("tpe", "optuna-tpe"),)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods on the (problem, seed) pairs on which all of them ran, in one setting.

    `regrets[problem]` (methods, seeds) are log10 of the regret; `cpu_s` (methods,) is per decision.
    """

    workers: int
    budget: int
    names: tuple[str, ...]
    regrets: dict[str, FloatArray]
    cpu_s: FloatArray

    @property
    def ranks(self) -> FloatArray:
        """(problems, methods): ranks of the mean log10 regret, 1 is best, ties shared."""
        return _ranks([logs.mean(axis=1) for logs in self.regrets.values()])

    @property
    def errors(self) -> FloatArray:
        """Standard errors (methods,) of the mean ranks: a bootstrap over the seeds of each problem.

        NaN where a problem has one seed only.
        """
        if min(logs.shape[1] for logs in self.regrets.values()) < 2:
            return np.full(len(self.names), math.nan)
        rng = np.random.default_rng(0)
        drawn = []
        for _ in range(RESAMPLES):
            means = []
            for logs in self.regrets.values():
                seeds = rng.integers(logs.shape[1], size=logs.shape[1])
                means.append(logs[:, seeds].mean(axis=1))
            drawn.append(_ranks(means).mean(axis=0))
        return np.std(drawn, axis=0)

    @property
    def critical_difference(self) -> float:
        """Mean ranks that differ by more are different at 5 % (Nemenyi's test; Demšar 2006)."""
        k, n = len(self.names), len(self.regrets)
        quantile = float(stats.studentized_range.ppf(0.95, k, math.inf)) / math.sqrt(2)
        return quantile * math.sqrt(k * (k + 1) / (6 * n))

    @property
    def friedman_p(self) -> float:
        """The probability of ranks as unequal as these if all methods were alike."""
        scores = [[float(logs[i].mean()) for logs in self.regrets.values()] for i in range(len(self.names))]
        return float(stats.friedmanchisquare(*scores).pvalue)


def compare(
    runs: dict[str, dict[cache.Key, Run]],
    workers: int,
    budget: int,
    wanted: list[str],
    seeds: list[int],
    complete: bool,
) -> Comparison | None:
    """The methods that have runs in that setting; where `complete`, FEWEST seeds of each problem at least.

    All on the seeds that every one of them has. None where fewer than three methods are left, or where
    they have fewer than two problems in common.
    """
    answers = {name: _answers(known, name, workers, budget, wanted, seeds) for name, known in runs.items()}
    found = {name: known for name, known in answers.items() if known}
    if complete:
        found = {
            name: known
            for name, known in found.items()
            if all(sum((p, seed) in known for seed in seeds) >= FEWEST for p in wanted)
        }
    if len(found) < 3:
        return None
    common = set.intersection(*(set(known) for known in found.values()))
    problems = [p for p in wanted if any((p, seed) in common for seed in seeds)]
    if len(problems) < 2:
        return None
    regrets = {
        p: np.log10(
            [
                [max(known[p, s].curve[budget], LEAST) for s in seeds if (p, s) in common]
                for known in found.values()
            ]
        )
        for p in problems
    }
    cpu_s = [
        sum(run.cpu_s for run in known.values()) / sum(run.decisions for run in known.values())
        for known in found.values()
    ]
    return Comparison(workers, budget, tuple(found), regrets, np.array(cpu_s))


def _answers(
    runs: dict[cache.Key, Run], name: str, workers: int, budget: int, wanted: list[str], seeds: list[int]
) -> dict[tuple[str, int], Run]:
    """(problem, seed) -> the method's run in that setting, where there is one."""
    entry = methods.find(name)
    found = {}
    for problem in wanted:
        for seed in seeds:
            run = cache.answer(runs, entry, cache.Key(problem, seed, workers, budget))
            if run is not None:
                found[problem, seed] = run
    return found


def write(named: list[str], settings: tuple[str, ...], seeds: list[int]) -> None:
    versions = {name: cache.newest_version(name) for name in named}
    runs = {name: cache.load(name, version) for name, version in versions.items() if version}
    fast = {name: known for name, known in runs.items() if not methods.find(name).slow}
    lines = _head(versions)
    panels: list[list[tuple[str, Comparison] | None]] = []  # by setting: all problems, all methods
    for setting in settings:
        workers, budget = (int(part) for part in setting.split("x"))
        lines += ["", f"## {workers} worker{'s' * (workers > 1)}, {budget} evaluations"]
        panels.append([])
        for title, which, wanted in (
            ("all problems", fast, list(PROBLEMS)),
            ("all methods, on a subset", runs, list(SUBSET)),
        ):
            found = compare(which, workers, budget, wanted, seeds, complete=which is fast)
            comparison = found if found and (which is fast or set(found.names) - set(fast)) else None
            panels[-1].append((f"{setting}, {title}", comparison) if comparison else None)
            section = _section(comparison) if comparison else ["No runs in common yet."]
            lines += ["", f"### {title}", "", *section]
    lines += _twins(runs, settings, seeds)
    RESULTS.write_text("\n".join(lines) + "\n")
    _draw(panels)
    print(f"wrote {RESULTS} and {FIGURE}")


def _twins(runs: dict[str, dict[cache.Key, Run]], settings: tuple[str, ...], seeds: list[int]) -> list[str]:
    """An algorithm of ours against the peer's implementation of the same."""
    lines = [
        "",
        "## The same algorithm twice",
        "",
        "Mean difference of log10 regret, ours minus the peer's, over the problems and seeds that both ran",
        "(how many), with its standard error.",
        "",
        f"| | {' | '.join(settings)} |",
        "|---" * (len(settings) + 1) + "|",
    ]
    for own, peer in TWINS:
        cells = []
        for setting in settings:
            workers, budget = (int(part) for part in setting.split("x"))
            pair = {name: runs.get(name, {}) for name in (own, peer)}
            known = [
                _answers(known, name, workers, budget, list(PROBLEMS), seeds) for name, known in pair.items()
            ]
            both = sorted(set(known[0]) & set(known[1]))
            logs = np.log10([[max(k[at].curve[budget], LEAST) for at in both] for k in known])
            if len(both) < 2:
                cells.append("")
                continue
            difference = logs[0] - logs[1]
            error = difference.std(ddof=1) / math.sqrt(len(both))
            cells.append(f"{difference.mean():+.3f} ± {error:.3f} ({len(both)})")
        lines.append(f"| {own} − {peer} | {' | '.join(cells)} |")
    return lines


def _head(versions: dict[str, str | None]) -> list[str]:
    stale = [n for n, v in versions.items() if v is not None and v != cache.current_version(n)]
    return [
        "# Our optimizers against their peers",
        "",
        "Written by `python -m bench.comparison table`; `python -m bench.comparison -h` says how the runs",
        "are made, bench/comparison/problems.py on what, methods.py and bayesian.py beside it by whom.",
        "",
        "Asynchronous workers in virtual time: a trial lasts as its problem, seed and number say",
        "(log-normal, sigma 0.5), for every method alike. The regret is that of the best value after so many",
        "finished evaluations; on the noisy problems that of the noise-free value of what the method",
        "recommends (pycma: its mean, BoTorch and ours: the best posterior mean, the others: the best they",
        "were told). Methods of one table are compared on the same problems and seeds; seeds from 100 on and",
        "the BBOB instances 1 to 3 were for tuning and are in no table. nlopt-mlsl has one worker only. A",
        "method that does not know the budget has run 200 evaluations once and is read at 50. The tables of",
        "all problems are without the slow methods, and without those that lack a problem.",
        "",
        "Mean rank: of the mean log10 regret of each problem, averaged over problems, 1 is best; with the",
        "standard error of a bootstrap over the seeds. Mean ranks that differ by more than CD are different",
        "at 5 % (Nemenyi); p is that of Friedman's test. By problem: the median of log10 regret.",
        "",
        f"Python {platform.python_version()}, numpy {np.__version__}; one BLAS thread, CPU times of a shared",
        f"{platform.machine()} machine. MLSL's is not its own: it is run again from the start each time.",
        "",
        "Versions: " + "; ".join(f"{n}: {v}" for n, v in versions.items() if v is not None) + ".",
        *(["Not of the sources as they are now: " + ", ".join(stale) + "."] if stale else []),
        "",
        f"![Mean ranks and critical differences]({FIGURE.name})",
    ]


def _section(comparison: Comparison) -> list[str]:
    seeds = sorted({logs.shape[1] for logs in comparison.regrets.values()})
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    mean, errors = comparison.ranks.mean(axis=0), comparison.errors
    order = np.argsort(mean, kind="stable")
    names = [comparison.names[i] for i in order]
    lines = [
        f"{len(comparison.regrets)} problems, {count} seeds each; CD = {comparison.critical_difference:.2f}, "
        f"p = {comparison.friedman_p:.2g}.",
        "",
        "| | mean rank | CPU per decision |",
        "|---|---|---|",
    ]
    for i, name in zip(order, names, strict=True):
        error = f" ± {errors[i]:.2f}" if math.isfinite(errors[i]) else ""
        lines.append(f"| {name} | {mean[i]:.2f}{error} | {_milliseconds(comparison.cpu_s[i])} |")
    lines += ["", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for problem, logs in comparison.regrets.items():
        medians = np.median(logs, axis=1)[order]
        best = medians.min()
        cells = (f"**{m:.2f}**" if m == best else f"{m:.2f}" for m in medians)
        lines.append(f"| {problem} | {' | '.join(cells)} |")
    return lines


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def _ranks(scores: list[FloatArray]) -> FloatArray:
    # Equal to the last digits is equal: a sum over seeds may come in another order.
    return stats.rankdata(np.round(scores, 9), axis=1)


def _draw(panels: list[list[tuple[str, Comparison] | None]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    heights = [2 + max((len(panel[1].names) for panel in row if panel), default=0) for row in panels]
    figure, axes = plt.subplots(
        len(panels),
        len(panels[0]),
        figsize=(11, 0.21 * sum(heights) + 0.4 * len(panels)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, panel in zip(axes.flat, (panel for row in panels for panel in row), strict=True):
        if panel is None:
            axis.axis("off")
            continue
        title, comparison = panel
        mean = comparison.ranks.mean(axis=0)
        order = np.argsort(-mean, kind="stable")
        best, difference = mean.min(), comparison.critical_difference
        axis.axvspan(best, best + difference, color="0.9", lw=0)
        axis.errorbar(mean[order], range(len(order)), xerr=comparison.errors[order], fmt="o", color="k", ms=4)
        axis.set_yticks(range(len(order)), [comparison.names[i] for i in order])
        for label in axis.get_yticklabels():
            if methods.find(label.get_text()).ours:
                label.set_fontweight("bold")
        axis.set_xlim(0.8, len(order) + 0.2)
        axis.set_ylim(-0.8, len(order) - 0.2)
        axis.set_title(f"{title} ({len(comparison.regrets)} problems)", fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
    legend = "mean rank ± standard error; grey: not different from the best at 5 % (Nemenyi); bold: ours"
    figure.supxlabel(legend, fontsize=8)
    figure.savefig(FIGURE, dpi=100)
