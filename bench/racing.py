"""What racing and question subsets save, and what they cost: recorded answers replayed in other orders.

    python bench/racing.py record random 34     # real fine-tunes of the tiny task: 3 CPU minutes
    python bench/racing.py record gp 34
    python bench/racing.py replay [--write bench/results/racing.md]

`record` keeps every evaluation's answers to all 512 questions in bench/results/racing/. `replay` plays each
run again, as it would have gone with another order of the questions and of the arrivals.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.stats import norm

from fractopt.objective import registry
from fractopt.objective.base import Evaluation, silent
from fractopt.objective.lora.answers import paired_difference, read_answers
from fractopt.objective.lora.race import Race, blocks
from fractopt.optimizer.study import Study
from fractopt.space import BoolArray, FloatArray, Space
from fractopt.trial import Status

HERE = Path(__file__).parent
JOB = HERE.parent / "jobs" / "tiny.toml"
RECORDED = HERE / "results" / "racing"


def record(optimizer: str, budget: int) -> None:
    """One run of `optimizer` on the tiny task; anchors first, as a run has them."""
    job = tomllib.loads(JOB.read_text(encoding="utf-8"))
    job["objective"].pop("direction")
    objective = registry.build(job["objective"])
    space = Space.from_dict(job["space"])
    study = Study(
        space,
        optimizer,
        budget,
        seed=0,
        direction="maximize",
        anchors=("base", "default"),
        default=job["default"],
    )
    rows, answers = [], []
    with tempfile.TemporaryDirectory() as place:
        while study.told < budget:
            (trial,) = study.ask(1)
            outcome = objective(
                Evaluation(trial.id, trial.kind, trial.params, trial.seed, directory=Path(place)), silent
            )
            study.tell(trial, outcome)
            rows.append(
                {"kind": trial.kind.value, "status": outcome.status.value, "params": dict(trial.params)}
            )
            right = read_answers(Path(place))["tiny/acc"] if outcome.status is Status.OK else None
            answers.append(np.zeros_like(answers[0]) if right is None else right)
            print(trial.id, outcome.status.value, f"{outcome.value:.4f}", flush=True)
    RECORDED.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        RECORDED / f"{optimizer}.npz", rows=np.array(json.dumps(rows)), answers=np.packbits(answers, axis=1)
    )


@dataclass
class Replay:
    """What one replayed run asked and chose. `asked` of `questions` answers; `stopped` lists the losers'
    number of answers, and the errors of three estimates of what they would have had."""

    asked: int = 0
    questions: int = 0
    chosen: int = -1
    stopped: list[int] = field(default_factory=list)
    errors: list[tuple[float, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Rules:
    """How a run is replayed: `subset` questions of all are asked, racing from a first `block` on or not."""

    subset: int | None = None
    block: int | None = None
    error: float = 0.01
    workers: int = 1


def replay(right: BoolArray, rules: Rules, seed: int) -> Replay:
    """The run whose evaluations answered `right` (n, N), base and default first, in other orders.

    The questions come in an order of `seed`; the search's evaluations arrive in another one, all of them
    asked in the order of arrival by so many workers: an evaluation races against the best of those that
    ended before it began.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(right.shape[1])[: rules.subset]
    answers = right[:, drawn].astype(np.float64)
    count = answers.shape[1]
    order = [0, 1, *(2 + rng.permutation(len(right) - 2)).tolist()]
    found = Replay(questions=count * len(right))
    complete: list[int] = []  # the default and others that answered everything, in the order of their ends
    cut = blocks(count, rules.block or count, seed)
    for position, number in enumerate(order):
        known = [other for other in complete if order.index(other) <= position - rules.workers]
        asked = count
        if rules.block is not None and position > 1 and known:
            best = max(known, key=lambda other: answers[other].mean())
            race = Race(best, "acc", answers[best], 1.0, len(cut) - 1, rules.error)
            asked = ran(race, answers[number], cut)
            if asked < count:
                found.stopped.append(asked)
                found.errors.append(estimates(race, answers[number], np.concatenate(cut)[:asked]))
        found.asked += asked
        if asked == count and position > 0:
            complete.append(number)
    found.chosen = max(complete, key=lambda other: answers[other].mean())
    return found


def ran(race: Race, ours: FloatArray, cut: Sequence[np.ndarray]) -> int:
    """How many questions are asked before the race ends."""
    seen = np.full(len(ours), math.nan)
    for index, block in enumerate(cut):
        if index and race.lost({race.score: seen}):
            break
        seen[block] = ours[block]
    return int((~np.isnan(seen)).sum())


def estimates(race: Race, ours: FloatArray, asked: np.ndarray) -> tuple[float, float, float]:
    """Errors of three estimates of a loser's share of right answers to all questions.

    The share among those asked; the incumbent's share of all plus the difference on those asked; and what
    a run records, a regression on the incumbent's answers, which is something between the two.
    """
    seen = np.full(len(ours), math.nan)
    seen[asked] = ours[asked]
    truth = float(ours.mean())
    paired = float(race.theirs.mean()) + race.standing(seen).difference
    return float(ours[asked].mean()) - truth, paired - truth, race.estimate(seen)[0] - truth


def recorded(optimizer: str) -> BoolArray:
    """The answers (n, 512) of a recorded run; one that diverged answered nothing right."""
    with np.load(RECORDED / f"{optimizer}.npz", allow_pickle=False) as file:
        return np.unpackbits(file["answers"], axis=1, count=512).astype(bool)


def simulated(diverged: float, spread: float, seed: int) -> BoolArray:
    """Answers (52, 10042) as to HellaSwag: base and default, and 50 fine-tunes of the same model.

    A question has a difficulty that all of them share (tetrachoric correlation 0.95: two models of equal
    accuracy differ in a tenth of the questions, as fine-tunes of one model do). The untuned model has 0.4776;
    a share `diverged` answers by chance, 0.25; the others lose the absolute value of a normal deviate with
    deviation `spread` against the best possible, 0.479.
    """
    rng = np.random.default_rng(seed)
    shared, own = rng.standard_normal(10_042), rng.standard_normal((52, 10_042))
    level = 0.479 - np.abs(spread * rng.standard_normal(52))
    level[:2] = 0.4776
    chance = rng.random(52) < diverged
    chance[:2] = False
    level[chance] = 0.25
    correlation = np.where(chance, 0.0, 0.95)[:, np.newaxis]
    latent = np.sqrt(correlation) * shared + np.sqrt(1.0 - correlation) * own
    return np.asarray(latent < norm.ppf(level)[:, np.newaxis])


@dataclass(frozen=True)
class Summary:
    """Over the seeds: the share of answers saved; in how many the same configuration was chosen, or one as
    good up to one and to two standard errors of their paired difference on all questions, and how far behind
    the chosen one is; how many evaluations stopped, and after how many answers (median); root mean square
    errors of three estimates, and the recorded one's bias."""

    saved: float
    same: int
    tied: tuple[int, int]
    behind: float
    stopped: float
    answers: float
    rmse: tuple[float, float, float]
    bias: float


def summary(runs: Sequence[BoolArray], rules: Rules) -> Summary:
    same, tied = 0, [0, 0]
    saved, behind, stopped, answers = [], [], [], []
    errors: list[tuple[float, float, float]] = []
    for seed, right in enumerate(runs):
        found = replay(right, rules, seed)
        best = 1 + int(np.argmax(right[1:].mean(axis=1)))
        difference, stderr = paired_difference(right[best], right[found.chosen])
        saved.append(1.0 - found.asked / right.size)
        behind.append(difference)
        same += difference == 0.0
        tied[0] += difference <= stderr
        tied[1] += difference <= 2.0 * stderr
        stopped.append(len(found.stopped))
        answers += found.stopped
        errors += found.errors
    table = np.array(errors) if errors else np.full((1, 3), math.nan)
    rmse = np.sqrt((table**2).mean(axis=0)).tolist()
    return Summary(
        float(np.mean(saved)),
        same,
        (tied[0], tied[1]),
        float(np.mean(behind)),
        float(np.mean(stopped)),
        float(np.median(answers)) if answers else math.nan,
        (rmse[0], rmse[1], rmse[2]),
        float(table[:, 2].mean()),
    )


HEAD = (
    "| questions | racing | saved | same best | or a tie | behind | stopped | after | errors | bias |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def row(label: str, rules: Rules, runs: Sequence[BoolArray]) -> str:
    found, n = summary(runs, rules), len(runs)
    raced = "no" if rules.block is None else f"block {rules.block}, error {rules.error:g}"
    raced += f", {rules.workers} workers" if rules.workers > 1 else ""
    end = "| - | - | - | - |"
    if found.stopped:
        errors = " / ".join(f"{error:.3f}" for error in found.rmse)
        losers = f"{found.stopped:.1f} of {len(runs[0]) - 2}"
        end = f"| {losers} | {found.answers:.0f} | {errors} | {found.bias:+.3f} |"
    chosen = f"{found.same}/{n} | {found.tied[0]}, {found.tied[1]} | {found.behind:.4f}"
    return f"| {label} | {raced} | {100 * found.saved:.0f} % | {chosen} {end}"


def table(runs: Sequence[BoolArray], subsets: Sequence[int]) -> list[str]:
    every = runs[0].shape[1]
    ways = (Rules(block=64), Rules(block=64, workers=8), Rules(block=64, error=0.05), Rules(block=32))
    lines = [*HEAD, *(row(f"all {every}", rules, runs) for rules in ways)]
    for count in subsets:
        lines += [row(str(count), Rules(count, block), runs) for block in (None, 64)]
    return lines


def page(seeds: int) -> str:
    parts = [TEXT.format(seeds=seeds)]
    for optimizer in ("random", "gp"):
        right = recorded(optimizer)
        shares = right[1:].mean(axis=1)
        parts += [
            f"## `{optimizer}`, recorded: {len(right)} evaluations of the tiny task",
            f"Shares of right answers: base {right[0].mean():.3f}, default {shares[0]:.3f}, best "
            f"{shares.max():.3f}, median {np.median(shares):.3f}; "
            f"{int((shares > shares.max() - 0.02).sum())} within 0.02 of the best.",
            "\n".join(table([right] * seeds, (128, 256, 384))),
        ]
    for name, diverged, spread in (("space-filling", 0.46, 0.02), ("model-based", 0.1, 0.006)):
        runs = [simulated(diverged, spread, seed) for seed in range(seeds)]
        parts += [
            f"## Simulated: a {name} run of 52 evaluations with 10,042 questions",
            f"{100 * diverged:.0f} % of the fine-tunes answer by chance; the others lose "
            f"|normal(0, {spread:g})| against the best possible, 0.479.",
            "\n".join(table(runs, (2000, 5000))),
        ]
    return "\n\n".join(parts) + "\n"


TEXT = """# Racing and question subsets, replayed

`python bench/racing.py replay` writes this page: each run below is played again {seeds} times, each time with
another order of its questions (and another choice of them, for a subset) and of the arrival of its search's
evaluations. `saved` is the share of all answers that were not asked for, anchors included. `same best`: the
configuration that a replay ends with has as many right answers to all questions as the best of the whole run;
`or a tie`: it is behind by no more than one, and than two standard errors of their paired difference on all
questions; `behind`: by how much it is, on the average.
`stopped`: evaluations of the search that were given up, and the median number of their answers by then. The
errors are root mean squares of a stopped configuration's estimate against its share of right answers to all
questions it would have been asked: by the answers it gave / by the incumbent's share plus the difference / by
the regression on the incumbent's answers, which a run records. The bias is the latter's: a race ends where a
configuration looks bad. In earnest the optimizer would be told the estimates, and go on from them: what it
would have asked for then is not replayed.

The recorded answers are those of real fine-tunes (jobs/tiny.toml, 512 questions, in
bench/results/racing/). The simulated ones are stated below: difficulties that all models share, such that two
fine-tunes of equal accuracy differ in a tenth of the questions; accuracies as in the founding paper's Latin
hypercube (46 % of them at chance) and as in a search that has settled. What a simulation shows is what racing
does at that size, not what HellaSwag's answers look like."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("optimizer")
    recording.add_argument("budget", type=int)
    replaying = commands.add_parser("replay")
    replaying.add_argument("--seeds", type=int, default=20)
    replaying.add_argument("--write", type=Path, help="write the page to this file as well")
    arguments = parser.parse_args()
    if arguments.command == "record":
        record(arguments.optimizer, arguments.budget)
        return
    text = page(arguments.seeds)
    print(text)
    if arguments.write:
        arguments.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
