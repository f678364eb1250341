"""The figures of several runs, as PNG: scores and variables over time, depth, correlations, boxes.

Colours are Okabe and Ito's and viridis, which the colour-blind tell apart; what has no value is a cross.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fractopt.archive.history import Row
from fractopt.durable import replace_file
from fractopt.report.depth import depths
from fractopt.report.runs import Run, alike
from fractopt.space import Categorical, FloatArray, Ordinal, Parameter, Value
from fractopt.text import printable
from fractopt.trial import Kind

DESIGNS = ("lhs", "random", "sobol")  # whose points nobody chose by what came out
FEWEST = 5  # evaluations, for a correlation
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "0.45"
_PANEL = 3.0  # inches
_ACROSS = 4  # panels, at most
DPI = 160
_MOST_TICKS = 8
_LONGEST = 36  # characters of a name
_MOST_PIXELS = 60_000  # of a side
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def draw(runs: Sequence[Run], directory: Path) -> Iterator[tuple[str, Path | None]]:
    """Write the figures to `directory`: what each shows with its file, or why it is not there with None.

    Raises ImportError without matplotlib.
    """
    try:
        from matplotlib import rc_context
    except ModuleNotFoundError as error:
        raise ImportError("the figures need matplotlib: pip install 'fractopt[report]'") from error
    with rc_context(_STYLE):
        groups = alike(runs)
        for number, group in enumerate(groups, 1):
            more = f"-{number}" if len(groups) > 1 else ""
            metric = group[0].metric
            if not any(np.isfinite(_values(run)).any() for run in group):
                yield f"nothing of {metric}: no evaluation has a value", None
                continue
            yield f"{metric} over time", _save(_scores(group), directory / f"score{more}.png")
            yield "the variables over time", _save(_variables(group), directory / f"variables{more}.png")
            trees = [(run, found) for run in group if (found := depths(run.history))]
            if trees:
                yield "depth in the tree over time", _save(_depths(trees), directory / f"depth{more}.png")
            boxes = "box plots of " + " and ".join(_metrics(group))
            yield boxes, _save(_boxes(group), directory / f"boxes{more}.png")
            for run in group:
                if run.history.manifest.optimizer in DESIGNS:
                    yield from _correlation(run, directory)
        if not any(run.history.manifest.optimizer in DESIGNS for run in runs):
            yield f"no correlations: they need a run of {' or '.join(DESIGNS)}", None
        if not any(depths(run.history) for run in runs):
            yield "no depths: no run has a tree whose splits are on record", None


# --- what is drawn of a run


def _values(run: Run) -> FloatArray:
    """The search's metric of the evaluations in order (n,), NaN where one has none."""
    return np.array([row.value for row in run.order], np.float64)


def _best_so_far(run: Run) -> FloatArray:
    """(n,), of the search's configurations; NaN before the first one."""
    values = np.where([row.kind.is_configuration for row in run.order], _values(run), np.nan)
    best = np.fmax.accumulate(values) if run.sign > 0 else np.fmin.accumulate(values)
    return np.asarray(best)


def _is_wide(values: FloatArray) -> bool:
    """Whether a log axis is due: all above zero, over more than two decades."""
    known = values[np.isfinite(values)]
    return bool(len(known) and known.min() > 0.0 and known.max() > 100.0 * known.min())


def _categories(parameter: Parameter) -> tuple[Value, ...]:
    return parameter.values if isinstance(parameter, Categorical) else ()


def _numbers(parameter: Parameter, rows: Sequence[Row]) -> FloatArray:
    """Native values (n,); of a category its place in the list."""
    given = [row.params.get(parameter.name) for row in rows]
    if isinstance(parameter, Categorical):
        places = {repr(value): place for place, value in enumerate(_categories(parameter))}
        return np.array([places.get(repr(value), math.nan) for value in given], np.float64)
    return np.array([math.nan if value is None else float(value) for value in given], np.float64)


def _text(name: str) -> str:
    """A name that somebody else gave, as it may stand in a figure: not too long, and no formula."""
    name = printable(name).replace("\n", " ").replace("\t", " ")
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST // 2]}…{name[-_LONGEST // 2 :]}"
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name  # which a legend would leave out


# --- figures


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dpi = min(DPI, _MOST_PIXELS / max(width, height))
    figure = Figure(figsize=(width, height), layout="constrained", dpi=dpi)
    FigureCanvasAgg(figure)
    return figure


def _grid(count: int, height: float = 0.8, **options: Any) -> tuple[Any, list[Any]]:
    """A figure with `count` panels of equal size; those that are left of the last row are hidden."""
    down = math.ceil(count / _ACROSS)
    across = math.ceil(count / down)
    figure = _figure(_PANEL * across + 0.6, _PANEL * height * down + 0.4)
    panels = list(figure.subplots(down, across, squeeze=False, **options).flat)
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]


def _save(figure: Any, path: Path) -> Path:
    buffer = io.BytesIO()
    for panel in figure.axes:
        if panel.get_xlabel() == "evaluation":
            panel.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(buffer, format="png", metadata={"Software": None})
    replace_file(path, buffer.getvalue(), durable=False)
    return path


def _scores(runs: Sequence[Run]) -> Any:
    """A panel for each run, and one with the end of the best so far of all of them, enlarged."""
    figure, panels = _grid(len(runs) + (len(runs) > 1))
    wide = _is_wide(np.concatenate([_values(run) for run in runs]))
    for place, (run, panel) in enumerate(zip(runs, panels, strict=False)):
        if place > 0:
            panel.sharey(panels[0])
        _score_panel(panel, run, _COLOURS[place % len(_COLOURS)])
    for panel in panels:
        panel.set_xlabel("evaluation")
        if wide:
            panel.set_yscale("log")
    panels[0].legend(loc="best")
    _label_left(panels, _text(runs[0].metric))
    if len(runs) > 1:
        _best_panel(panels[-1], runs)
    return figure


def _best_panel(panel: Any, runs: Sequence[Run]) -> None:
    for place, run in enumerate(runs):
        number, colour = np.arange(1, len(run.order) + 1), _COLOURS[place % len(_COLOURS)]
        panel.step(
            number, _best_so_far(run), where="post", color=colour, linewidth=1.6, label=_text(run.name)
        )
    panel.set_title("best so far")
    panel.legend(loc="lower right" if runs[0].sign > 0 else "upper right")
    bests = [m for run in runs if (m := run.measured(run.history.best, run.metric)) is not None]
    top = max(bests, key=lambda m: runs[0].sign * m.value)
    if top.stderr:  # differences that mean nothing should look like it
        panel.set_yscale("linear")
        panel.axhspan(top.value - top.stderr, top.value + top.stderr, color="0.88", zorder=0)
        ends = [top.value + steps * runs[0].sign * top.stderr for steps in (-5.0, 1.5)]
        ends += [m.value - runs[0].sign * top.stderr for m in bests]
        panel.set_ylim(min(ends), max(ends))
        panel.set_title("best so far (grey: ± 1 standard error)", fontsize=8.5)


def _score_panel(panel: Any, run: Run, colour: str) -> None:
    number, values = np.arange(1, len(run.order) + 1), _values(run)
    errors = [None if row.outcome is None else row.outcome.stderr for row in run.order]
    known = np.isfinite(values)
    bars = np.array([math.nan if error is None else error for error in errors])
    panel.errorbar(
        number[known], values[known], yerr=bars[known], fmt="none", ecolor=colour, elinewidth=0.6, alpha=0.35
    )
    panel.plot(number[known], values[known], "o", markersize=3.2, color=colour, alpha=0.75, mew=0)
    panel.step(number, _best_so_far(run), where="post", color=colour, linewidth=1.6, label="best so far")
    for kind, name, dashes in ((Kind.BASE, "untuned model", "--"), (Kind.DEFAULT, "default", "-.")):
        anchor = run.history.anchor(kind)
        if anchor is not None and math.isfinite(anchor.value):
            panel.axhline(anchor.value, color="black", linewidth=0.9, linestyle=dashes, label=name)
    if run.chance is not None:
        panel.axhline(run.chance, color=_GREY, linewidth=0.9, linestyle=":", label="chance")
    if not known.all():
        _crosses(panel, number[~known])
    panel.set_title(_text(run.name))


def _crosses(panel: Any, x: Any) -> None:
    """What has no value, along the lower edge."""
    at = panel.get_xaxis_transform()
    panel.plot(
        x, np.full(len(x), 0.02), "x", color=_GREY, markersize=4, transform=at, label="no value", mew=0.9
    )


def _label_left(panels: Sequence[Any], text: str) -> None:
    for panel in panels:
        if panel.get_subplotspec().is_first_col():
            panel.set_ylabel(text)


def _shades(runs: Sequence[Run]) -> Any:
    """One scale of colours for the metric of all `runs`."""
    from matplotlib.colors import LogNorm, Normalize

    values = np.concatenate([_values(run) for run in runs])
    values = values[np.isfinite(values)]
    scale = LogNorm if _is_wide(values) else Normalize
    return scale(float(values.min()), float(values.max()))


def _variables(runs: Sequence[Run]) -> Any:
    """A row for each parameter, a column for each run; the colour is the score, a star the best observed."""
    parameters = {p.name: p for run in runs for p in run.history.space.parameters}
    figure = _figure(_PANEL * len(runs) + 1.2, 1.35 * len(parameters) + 0.6)
    grid = figure.subplots(len(parameters), len(runs), squeeze=False, sharex="col")
    shades = _shades(runs)
    points = None
    for line, name in zip(grid, parameters, strict=True):
        low, high = math.inf, -math.inf
        for panel, run in zip(line, runs, strict=True):
            own = {p.name: p for p in run.history.space.parameters}
            if name not in own:
                panel.text(0.5, 0.5, "not in its space", ha="center", va="center", transform=panel.transAxes)
                panel.set_yticks([])
                panel.grid(False)
                continue
            points = _variable_panel(panel, run, own[name], shades) or points
            low, high = min(low, panel.get_ylim()[0]), max(high, panel.get_ylim()[1])
        if len({repr(run.history.manifest.space.get(name)) for run in runs}) == 1:
            for panel in line:
                panel.set_ylim(low, high)
                panel.label_outer()
        line[0].set_ylabel(_text(name.replace("_", " ")))
    for panel, run in zip(grid[0], runs, strict=True):
        panel.set_title(_text(run.name))
    for panel in grid[-1]:
        panel.set_xlabel("evaluation")
    if points is not None:
        _bar(figure, points, grid, runs[0].metric)
    return figure


def _variable_panel(panel: Any, run: Run, parameter: Parameter, shades: Any) -> Any:
    number, values = np.arange(1, len(run.order) + 1), _values(run)
    native = _numbers(parameter, run.order)
    known, there = np.isfinite(values), np.isfinite(native)
    panel.plot(number[there & ~known], native[there & ~known], "x", color=_GREY, markersize=3.5, mew=0.8)
    shown = there & known
    drawn = panel.scatter(
        number[shown], native[shown], c=values[shown], norm=shades, cmap="viridis", s=14, linewidths=0
    )
    if run.best_at is not None:
        at = run.best_at - 1
        panel.plot(number[at], native[at], "*", markersize=11, mfc="none", mec="#D55E00", mew=1.2)
    if getattr(parameter, "log", False):
        panel.set_yscale("log")
    if isinstance(parameter, Ordinal) and len(parameter.values) <= _MOST_TICKS:
        ticks = [float(value) for value in parameter.values]
        if ticks[0] > 0.0 and ticks[-1] >= _MOST_TICKS * ticks[0]:
            panel.set_yscale("log")
        panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.set_yticks([], minor=True)
    if isinstance(parameter, Categorical):
        names = [_text(str(value))[:14] for value in _categories(parameter)]
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(-0.5, len(names) - 0.5)
    panel.set_xlim(0, len(run.order) + 1)
    return drawn


def _bar(figure: Any, points: Any, axes: Any, label: str) -> None:
    bar = figure.colorbar(points, ax=axes, shrink=0.8, aspect=35, pad=0.01)
    bar.set_label(_text(label))
    bar.outline.set_linewidth(0.4)


def _depths(trees: Sequence[tuple[Run, dict[int, int]]]) -> Any:
    """The root is on top."""
    figure, panels = _grid(len(trees), sharey=True)
    shades = _shades([run for run, _ in trees])
    points = None
    for (run, depth), panel in zip(trees, panels, strict=True):
        placed = [(number, row) for number, row in enumerate(run.order, 1) if row.id in depth]
        number = np.array([n for n, _ in placed])
        levels = np.array([depth[row.id] for _, row in placed])
        values = np.array([row.value for _, row in placed])
        known = np.isfinite(values)
        panel.plot(number, levels, color="0.8", linewidth=0.7, zorder=1)
        panel.plot(number[~known], levels[~known], "x", color=_GREY, markersize=4, mew=0.9)
        points = panel.scatter(
            number[known], levels[known], c=values[known], norm=shades, cmap="viridis", s=20, zorder=2
        )
        panel.set_title(_text(run.name))
        panel.set_xlabel("evaluation")
        panel.yaxis.get_major_locator().set_params(integer=True)
    panels[0].invert_yaxis()
    _label_left(panels, "depth in the tree")
    _bar(figure, points, panels, trees[0][0].metric)
    return figure


def _metrics(runs: Sequence[Run]) -> list[str]:
    """That of the search, and the test metrics of any of them."""
    return [runs[0].metric, *dict.fromkeys(test for run in runs for test in run.tests)]


def _boxes(runs: Sequence[Run]) -> Any:
    """A panel for each metric, a box for each run: quartiles, whiskers to 1.5 times their distance."""
    metrics = _metrics(runs)
    figure, panels = _grid(len(metrics), height=0.95)
    for metric, panel in zip(metrics, panels, strict=True):
        samples = []
        for run in runs:
            found = (run.measured(row, metric) for row in run.order if row.kind is not Kind.BASE)
            samples.append([m.value for m in found if m is not None])
        panel.boxplot(
            samples, widths=0.5, showfliers=False, medianprops={"color": "black", "linewidth": 1.4},
            boxprops={"linewidth": 0.8}, whiskerprops={"linewidth": 0.8}, capprops={"linewidth": 0.8},
        )  # fmt: skip
        rng = np.random.default_rng(0)  # the points' places within their column mean nothing
        for place, sample in enumerate(samples):
            x = place + 1 + rng.uniform(-0.17, 0.17, len(sample))
            panel.plot(x, sample, "o", markersize=3, alpha=0.55, mew=0, color=_COLOURS[place % len(_COLOURS)])
        chance = {run.chance for run in runs} - {None} if metric == runs[0].metric else set()
        for level in chance:
            panel.axhline(level, color=_GREY, linewidth=0.9, linestyle=":")
            at = panel.get_yaxis_transform()
            panel.text(1.01, level, "chance", transform=at, va="center", fontsize=7.5, color=_GREY)
        long = max(len(run.name) for run in runs) * len(runs) > 26
        panel.set_xticks(
            range(1, len(runs) + 1),
            [f"{_text(run.name)}\n{len(sample)}" for run, sample in zip(runs, samples, strict=True)],
            rotation=30 if long else 0,
            ha="right" if long else "center",
        )
        panel.grid(axis="x", visible=False)
        panel.set_ylabel(_text(metric))
        if _is_wide(np.array([value for sample in samples for value in sample])):
            panel.set_yscale("log")
    return figure


def _correlation(run: Run, directory: Path) -> Iterator[tuple[str, Path | None]]:
    """Spearman's rank correlations: they do not ask how a parameter is scaled."""
    rows = [row for row in run.order if row.kind is Kind.SEARCH and math.isfinite(row.value)]
    columns = {
        p.name.replace("_", " "): _numbers(p, rows)
        for p in run.history.space.parameters
        if not isinstance(p, Categorical)
    }
    for metric in (run.metric, *run.tests):
        found = [run.measured(row, metric) for row in rows]
        columns[metric] = np.array([math.nan if m is None else m.value for m in found])
    if len(rows) < FEWEST:
        yield (
            f"no correlations of {run.name}: {len(rows)} evaluations have a value, {FEWEST} are needed",
            None,
        )
        return
    figure = _correlation_figure(columns, f"{_text(run.name)}: Spearman's rank correlation")
    stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in run.name)
    yield f"correlations of {run.name}", _save(figure, directory / f"correlation-{stem[-100:]}.png")


def _correlation_figure(columns: dict[str, FloatArray], title: str) -> Any:
    names = [_text(name) for name in columns]
    matrix, counts = rank_correlations(list(columns.values()))
    np.fill_diagonal(matrix, np.nan)  # says nothing
    size = 0.62 * len(names) + 1.9
    figure = _figure(size + 0.7, size)
    panel = figure.subplots()
    image = panel.imshow(matrix, cmap="PuOr_r", vmin=-1.0, vmax=1.0)
    for i, j in np.ndindex(*matrix.shape):
        if i == j:
            continue
        r = matrix[i, j]
        text = "–" if math.isnan(r) else f"{r:.2f}".replace("-", "−").replace("0.", ".")
        clear = not math.isnan(r) and abs(r) > least_clear(float(counts[i, j]))
        panel.text(
            j, i, text, ha="center", va="center", fontsize=8, fontweight="bold" if clear else "normal",
            color="white" if abs(r) > 0.65 else "black",
        )  # fmt: skip
    panel.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    panel.set_yticks(range(len(names)), names)
    panel.grid(False)
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
    n = int(counts.max())
    figure.suptitle(f"{title}, n = {n}\nbold: not zero at 5 %, beyond ±{least_clear(n):.2f}", fontsize=9)
    bar = figure.colorbar(image, ax=panel, shrink=0.75, aspect=30, pad=0.02)
    bar.outline.set_linewidth(0.4)
    return figure


def rank_correlations(columns: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Spearman's correlations (k, k) of k columns (n,), and of how many pairs each is.

    Each over the rows that both have; NaN where one of them does not vary there.
    """
    k = len(columns)
    matrix, counts = np.full((k, k), np.nan), np.zeros((k, k))
    for i, j in np.ndindex(k, k):
        both = np.isfinite(columns[i]) & np.isfinite(columns[j])
        counts[i, j] = both.sum()
        a, b = (_ranks(column[both]) for column in (columns[i], columns[j]))
        if len(a) > 2 and np.ptp(a) > 0 and np.ptp(b) > 0:
            matrix[i, j] = np.corrcoef(a, b)[0, 1]
    return matrix, counts


def _ranks(column: FloatArray) -> FloatArray:
    """Of equal values the mean of their ranks. (`scipy.stats` takes a second to load.)"""
    _, places, counts = np.unique(column, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places])


def least_clear(n: float) -> float:
    """The correlation of n pairs beyond which it is not zero at 5 %, by Student's distribution."""
    from scipy.special import stdtrit

    if n < 3:
        return 1.0
    t = float(stdtrit(n - 2, 0.975))
    return t / math.sqrt(n - 2 + t * t)
