"""The verdict on a run: which configuration, what is it worth, and is it better than where we started?

Three errors are never mixed, and each printed one names its own: the sampling of questions (how far
another set of questions would move an accuracy), the paired difference (the same questions asked of two
models, so what they agree on cancels), and the training seed (from replicates). A value that took part
in the choice is flattered by it (the winner's curse); it is never printed without these words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from fractopt.archive.history import History, Row
from fractopt.choice import recommend
from fractopt.optimizer.replicates import Recommended, Standing, account
from fractopt.report.comparison import Comparison, comparisons, sampling_error
from fractopt.report.racing import racing
from fractopt.trial import Kind

FLATTERED = ", one evaluation that took part in the choice, which flatters it"
WIDTH = 17  # of the words that a line of the verdict begins with


def recommended(history: History) -> Recommended | None:
    """What the master recommended once all results were in; None where it did not come so far."""
    record = history.recommended
    if record is None:
        return None
    sign = history.manifest.sign
    standing = Standing(record["trial"], sign * float(record["mean"]), float(record["sd"]))
    return account(standing, sign, history.told)


def recommended_now(history: History) -> Recommended | None:
    """The same; for a run without one on record it is computed from the results that are there.

    An archive does not say whether its objective has noise: here it is taken to have some.
    """
    return recommended(history) or recommend(history.space, history.manifest.sign, history.told)


def error_source(history: History) -> str:
    """What the standard error of a single value is about: only a fine-tune is asked questions."""
    return "of sampling the questions" if _asks_questions(history) else "told by the objective"


def _asks_questions(history: History) -> bool:
    return history.manifest.objective.get("kind") == "lora"


def verdict_lines(history: History, directory: Path, found: Recommended | None) -> Iterator[str]:
    """The end of a run in words: what was found, how sure it is, and what it cost.

    `found` is the recommendation, None where there is none yet: then it is about the best observed.
    """
    best = history.best
    if best is None:
        yield "no configuration has a value"
    else:
        if found is not None:
            yield from _recommendation(history, directory, found)
        if found is None or found.id != best.id or (found.confirmations and found.sd > 0.0):
            yield f"{'best observed':{WIDTH}}trial {best.id}: {_observed(history, best)}{FLATTERED}"
            if found is None or found.id != best.id:
                yield " " * WIDTH + _params(best)
        for c in comparisons(history, directory, best.id if found is None else found.id):
            yield f"{'against ' + c.against.value:{WIDTH}}{comparison_text(c)}"
    counts = ", ".join(f"{n} {status}" for status, n in sorted(history.counts().items()))
    replicates = sum(row.kind.is_replicate for row in history.evaluations)
    among = f"; {replicates} of them replicates" if replicates else ""
    repeated = f"; {history.repeats} repeated points answered without one" if history.repeats else ""
    total = f" of {history.budget}" if history.budget else ""  # nothing was proposed yet
    told = len(history.evaluations)
    yield f"{'budget':{WIDTH}}{told}{total} evaluations: {counts or 'none'}{among}{repeated}"
    if (race := racing(history)) is not None:
        yield f"{'racing':{WIDTH}}{race}"
    yield (
        f"{'time':{WIDTH}}{history.wall_s:.0f} s of wall time; workers busy {100 * history.busy_share:.0f} % "
        f"from ready to last result"
    )


def _recommendation(history: History, directory: Path, found: Recommended) -> Iterator[str]:
    """The recommended configuration: its value, then its parameters, then what the model thinks of it."""
    metric, row = history.manifest.metric, history.rows[found.id]
    head = f"{'recommended':{WIDTH}}trial {found.id}: "
    if found.sd == 0.0:
        yield f"{head}{metric} {found.mean:.6g}, the best observed: the objective has no noise"
    elif found.confirmations:
        seeds = "" if math.isnan(found.stderr) else f" ± {found.stderr:.4g} (standard error by training seed)"
        many = f"the mean of {found.confirmations} replicates" if found.confirmations > 1 else "one replicate"
        yield f"{head}{metric} {found.value:.6g}{seeds}, {many} that took no part in the choice"
        if _asks_questions(history):
            error = sampling_error(history, directory, found.id)
            if not math.isnan(error):
                yield " " * WIDTH + f"± {error:.4g} (standard error of sampling the questions)"
    else:
        yield f"{head}{_observed(history, row)}{FLATTERED}"
    yield " " * WIDTH + _params(row)
    if found.sd > 0.0:
        own = 1 + found.replicates - found.confirmations
        yield " " * WIDTH + (
            f"posterior mean {found.mean:.6g}, standard deviation {found.sd:.4g}, from its own "
            f"{f'{own} evaluations' if own > 1 else 'evaluation'} in the choice and from all others"
        )
    if found.diverged or found.failed:
        ends = [f"{n} {word}" for n, word in ((found.diverged, "diverged"), (found.failed, "failed")) if n]
        all_of_it = found.replicates + found.diverged + found.failed
        yield " " * WIDTH + f"of its {all_of_it} replicates {' and '.join(ends)}: they are in no mean"


def _observed(history: History, row: Row) -> str:
    """The value of one evaluation, with the error that is known of it."""
    assert row.outcome is not None
    error = row.outcome.stderr
    named = "" if error is None else f" ± {error:.4g} (standard error {error_source(history)})"
    return f"{history.manifest.metric} {row.value:.6g}{named}"


def _params(row: Row) -> str:
    return ", ".join(f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.params.items())


def comparison_text(c: Comparison) -> str:
    text = f"{c.metric} {c.value:.4f} - {c.anchor:.4f} = {c.difference:+.4f}"
    if not math.isnan(c.stderr):
        text += f" ± {c.stderr:.4f} (standard error of the paired difference, {c.questions} questions)"
    if not math.isnan(c.seed_stderr):
        text += f" ± {c.seed_stderr:.4f} (by training seed)"
    if c.flattered:
        return f"{text}; {c.flattered}, which flatters it"
    unseen = "; on questions that no choice saw" if c.unseen else ""
    return text + unseen + (f"; {c.word}" if c.word else "")


def best_as_json(history: History, directory: Path, found: Recommended | None) -> dict[str, object]:
    """The recommended and the best observed configuration, and what the former was compared with."""
    best = history.best
    if best is None or best.outcome is None:
        raise ValueError("no configuration has a value yet")
    anchors = {kind: history.anchor(kind) for kind in (Kind.BASE, Kind.DEFAULT)}
    subject = best.id if found is None else found.id
    return {
        "metric": history.manifest.metric,
        "recommended": None if found is None else recommended_as_json(found),
        "best": {
            "trial": best.id,
            "params": dict(best.params),
            "value": best.value,
            "stderr": best.outcome.stderr,
        },
        **{kind.value: None if row is None else row.value for kind, row in anchors.items()},
        "comparisons": [
            {**asdict(c), "against": c.against.value} for c in comparisons(history, directory, subject)
        ],
        "evaluations": len(history.evaluations),
        "budget": history.budget,
    }


def recommended_as_json(found: Recommended) -> dict[str, object]:
    record = asdict(found)
    return {"trial": record.pop("id"), **record, "params": dict(found.params)}
