"""How the tiny task's accuracy depends on its hyperparameters: a Latin hypercube in the paper's space.

    python bench/tiny_landscape.py [--points 24] [--low 1e-10] [--write bench/results/tiny_landscape.md]

`--low` raises the lower bound of the learning rate, where two thirds of the space learn nothing.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from pathlib import Path

import numpy as np
from scipy.stats import qmc, spearmanr

from fractopt.objective import registry
from fractopt.objective.base import Evaluation, silent
from fractopt.space import Space
from fractopt.trial import Kind

JOB = Path(__file__).parents[1] / "jobs" / "tiny.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--points", type=int, default=24)
    parser.add_argument("--low", type=float, default=1e-10, help="lower bound of the learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path, help="append the result to this file as well")
    arguments = parser.parse_args()

    job = tomllib.loads(JOB.read_text(encoding="utf-8"))
    job["space"]["learning_rate"]["low"] = arguments.low
    space = Space.from_dict(job["space"])
    job["objective"].pop("direction")
    objective = registry.build(job["objective"])
    base = objective(Evaluation(0, Kind.BASE, {}, 0), silent).value
    default = objective(Evaluation(1, Kind.DEFAULT, job["default"], 0), silent).value

    unit = qmc.LatinHypercube(space.dimension, seed=arguments.seed).random(arguments.points)
    rows, seconds = [], []
    for index, point in enumerate(unit):
        params = space.decode(point)
        started = time.process_time()
        outcome = objective(Evaluation(index + 2, Kind.SEARCH, params, 0), silent)
        seconds.append(time.process_time() - started)
        rows.append((params, outcome.status.value, outcome.value))
    value = np.array([row[2] for row in rows])
    found = value[np.isfinite(value)]
    lines = [
        f"## {arguments.points} points, learning rate from {arguments.low:g}, seed {arguments.seed}",
        "",
        f"Base {base:.3f}, default {default:.3f}; min {found.min():.3f}, median {np.median(found):.3f}, "
        f"max {found.max():.3f}; {np.isnan(value).sum()} diverged. "
        f"CPU seconds per evaluation: mean {np.mean(seconds):.1f}, {min(seconds):.1f} to {max(seconds):.1f}.",
        "",
        "Spearman's correlation with the accuracy: "
        + ", ".join(
            f"{name} {spearmanr(unit[np.isfinite(value), axis], found).statistic:+.2f}"
            for axis, name in enumerate(space.names)
        )
        + ".",
        "",
        f"| {' | '.join(space.names)} | accuracy |",
        "|---" * (space.dimension + 1) + "|",
    ]
    for params, status, accuracy in sorted(rows, key=lambda row: row[0]["learning_rate"]):
        cells = [f"{number:.2g}" if isinstance(number, float) else str(number) for number in params.values()]
        lines.append(f"| {' | '.join(cells)} | {f'{accuracy:.3f}' if status == 'ok' else status} |")
    page = "\n".join(lines) + "\n"
    print(page)
    if arguments.write:
        with arguments.write.open("a", encoding="utf-8") as stream:
            stream.write(page + "\n")


if __name__ == "__main__":
    main()
