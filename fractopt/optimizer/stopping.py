"""When a search may end before its budget: the target is reached, or nothing better is found any more."""

from __future__ import annotations

from dataclasses import dataclass

from fractopt.optimizer.study import Study
from fractopt.trial import Kind


@dataclass(frozen=True)
class StopRule:
    """Ends a search at the first value as good as `target`, or after `patience` trials without a better one.

    None: no such end. Trials count in the order in which they were asked, whatever order they came back in:
    those told with a later id than the best one, the anchors not among them.
    """

    target: float | None = None
    patience: int | None = None

    def reason(self, study: Study) -> str | None:
        """Why the search is over by now, None where it goes on."""
        try:
            best = study.best
        except ValueError:
            return None  # nothing has a value
        if self.target is not None:
            ahead = best.value - self.target
            if ahead == 0.0 or (ahead > 0.0) == (study.direction == "maximize"):
                return f"the target {self.target:g} is reached: trial {best.id} has {best.value:.6g}"
        if self.patience is None:
            return None
        # Ids given so far: without so many after the best one's there is nothing to count.
        given = study.told + study.repeats + len(study.running)
        if given - 1 - best.id >= self.patience:
            since = sum(e.id > best.id and e.trial.kind is Kind.SEARCH for e in study.evaluations)
            if since >= self.patience:
                return f"{since} trials brought nothing better than trial {best.id} with {best.value:.6g}"
        return None
