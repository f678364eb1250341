"""What racing saved: evaluations that stopped as clear losers, and the questions they were not asked."""

from __future__ import annotations

from dataclasses import dataclass

from fractopt.archive.history import History
from fractopt.trial import Status


@dataclass(frozen=True)
class Racing:
    """Of `raced` evaluations `stopped` ended early; `asked` of their `questions` were asked, all together."""

    raced: int
    stopped: int
    asked: int
    questions: int

    def __str__(self) -> str:
        spared = 100.0 * (1.0 - self.asked / self.questions)
        return (
            f"{self.stopped} of {self.raced} evaluations stopped early as clear losers; "
            f"{spared:.0f} % of all their questions were not asked"
        )


def racing(history: History) -> Racing | None:
    """None where no evaluation raced against another."""
    raced = [outcome for _, outcome in history.told if outcome.metrics.get("race/of", 0.0) >= 1.0]
    if not raced:
        return None
    asked, questions = (
        sum(int(outcome.metrics.get(name, 0.0)) for outcome in raced)
        for name in ("race/questions", "race/of")
    )
    return Racing(len(raced), sum(o.status is Status.PRUNED for o in raced), asked, questions)
