"""The picture of a benchmark in two dimensions: contours, points in their order, boxes, balls or paths."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from fractopt.report.benchmark import Benchmark, Run

_PANEL = 3.3  # inches
_COLUMNS = 4  # at most
_NUMBERED = 9  # points that carry their number
_TITLES = {
    "bamsoo": "BaMSOO",
    "direct": "DIRECT",
    "direct-l": "DIRECT-L",
    "fda": "FDA",
    "ils": "ILS",
    "lhs": "LHS",
    "sequool": "SequOOL",
    "sobol": "Sobol'",
    "soo": "SOO",
}


def draw(benchmark: Benchmark, path: Path) -> None:
    """Write a picture with one panel an optimizer, the run of seed 0, in the format of `path`'s ending.

    Raises ValueError for another dimension than 2, ImportError without matplotlib.
    """
    if benchmark.dimension != 2:
        raise ValueError(f"a picture needs 2 dimensions, {benchmark.name} has {benchmark.dimension}")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.colors import Normalize
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError("the picture needs matplotlib: pip install 'fractopt[report]'") from error

    runs = [runs[0] for runs in benchmark.runs.values()]
    rows = math.ceil(len(runs) / _COLUMNS)
    columns = math.ceil(len(runs) / rows)
    figure = Figure(figsize=(_PANEL * columns + 0.7, _PANEL * rows + 0.5), layout="constrained", dpi=160)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=not benchmark.shifted, sharey=True)
    order = Normalize(1, benchmark.budget)
    for panel, run in zip(axes.flat, runs, strict=False):
        points = _panel(panel, run, order)
    for panel in axes.flat[len(runs) :]:
        panel.set_visible(False)
    for panel in axes[-1]:
        panel.set_xlabel("$x_1$")
    for panel in axes[:, 0]:
        panel.set_ylabel("$x_2$")
    bar = figure.colorbar(points, ax=axes, shrink=0.9, aspect=30, pad=0.01)
    bar.set_ticks([1, *(tick for tick in bar.get_ticks() if 1 < tick <= benchmark.budget)])
    bar.set_label("evaluation", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_linewidth(0.5)
    metadata: dict[str, Any] = {"Software": None} if path.suffix == ".png" else {}
    figure.savefig(path, metadata=metadata)


def _panel(axes: Any, run: Run, order: Any) -> Any:
    from matplotlib.collections import EllipseCollection, LineCollection, PolyCollection
    from matplotlib.patheffects import withStroke

    problem = run.problem
    (x0, y0), (x1, y1) = problem.low.tolist(), problem.high.tolist()
    x, y = np.linspace(x0, x1, 161), np.linspace(y0, y1, 161)
    height = np.array([[problem(np.array([a, b])) for a in x] for b in y]) - problem.minimum
    # Even steps of the square root of the height: the valleys show, and the rim does not drown them.
    levels = np.linspace(0.0, math.sqrt(float(height.max())), 15) ** 2
    axes.contourf(x, y, height, levels=levels, cmap="Greys", alpha=0.55, zorder=0)
    axes.contour(x, y, height, levels=levels[1:], colors="0.45", linewidths=0.35, zorder=1)

    if run.boxes is not None:
        (left, bottom), (east, north) = run.boxes[:, 0].T, run.boxes[:, 1].T
        corners = np.stack([left, bottom, east, bottom, east, north, left, north], axis=1)  # (m, 8)
        outlines = PolyCollection(
            list(corners.reshape(-1, 4, 2)), facecolors="none", edgecolors="#1f4e8c", linewidths=0.6, zorder=2
        )
        axes.add_collection(outlines)

    if run.balls is not None:
        balls = EllipseCollection(
            2 * run.balls[:, 1, 0],
            2 * run.balls[:, 1, 1],
            np.zeros(len(run.balls)),
            units="xy",
            offsets=run.balls[:, 0],
            offset_transform=axes.transData,
            facecolors="none",
            edgecolors="#1f4e8c",
            linewidths=0.6,
            zorder=2,
        )
        axes.add_collection(balls)

    if run.paths is not None:
        paths = LineCollection(list(run.paths), colors="#1f4e8c", linewidths=1.0, zorder=2)
        axes.add_collection(paths)

    number = np.arange(1, len(run.values) + 1)
    # The first points on top: they are the fewest, and show where the search began.
    points = axes.scatter(
        *run.points[::-1].T,
        c=number[::-1],
        cmap="plasma",
        norm=order,
        s=13,
        edgecolors="white",
        linewidths=0.35,
        zorder=4,
        clip_on=False,
    )
    outline = [withStroke(linewidth=1.6, foreground="white")]
    for i, (px, py) in enumerate(run.points[:_NUMBERED], start=1):
        right, top = px > x0 + 0.95 * (x1 - x0), py > y0 + 0.95 * (y1 - y0)  # the number stays in the frame
        axes.annotate(
            str(i),
            (px, py),
            xytext=(-2.5 if right else 2.5, -2.5 if top else 2.5),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top" if top else "bottom",
            fontsize=6.5,
            path_effects=outline,
            zorder=6,
        )
    minima = problem.minimisers.T
    axes.scatter(*minima, marker="+", s=70, c="white", linewidths=2.6, zorder=5)
    axes.scatter(*minima, marker="+", s=60, c="#c1121f", linewidths=1.2, zorder=5)
    axes.set_xlim(x0, x1)
    axes.set_ylim(y0, y1)
    axes.set_box_aspect(1)
    axes.tick_params(labelsize=8, width=0.5)
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)
    title = _TITLES.get(run.optimizer, run.optimizer)
    axes.set_title(f"{title}: {run.regret(len(run.values)):.2g} above the minimum", fontsize=9)
    return points
