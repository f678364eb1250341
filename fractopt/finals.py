"""The last tests: what the best configurations and the anchors are scored on once the search is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fractopt.archive.history import History
from fractopt.trial import Kind, Outcome, Part, Trial


@dataclass(frozen=True)
class TestPlan:
    """Which evaluations are scored on the test metrics: none, all, or the best at the end.

    The questions that the search left out are asked at the end in either case, of the best, base and default.
    """

    __test__ = False  # not a test case, whatever its name suggests to pytest

    when: Literal["never", "finalists", "all"] = "never"
    finalists: int = 3


class Finals:
    """The tests of one run by `plan`. `pending` are the trials whose test is under way, or waits."""

    def __init__(self, plan: TestPlan, history: History) -> None:
        self._plan = plan
        self._history = history
        self._drawn = False
        self.pending: set[int] = set()

    @property
    def finalists(self) -> int:
        """How many configurations beside the anchors are tested; 0 where nothing is left for the end."""
        return self._plan.finalists if self._last_parts else 0

    def parts(self, trial: Trial) -> tuple[Part, ...]:
        """What the trial is scored on in its next attempt."""
        if trial.id in self.pending:
            return self._last_parts
        every = (Part.TEST,) if self._plan.when == "all" else ()
        if trial.kind is Kind.CONFIRM:
            # A replicate that took no part in the choice is worth testing as it is: it is not run again.
            return (Part.SEARCH, *every, *self._last_parts)
        return (Part.SEARCH, *every)

    def draw(self) -> list[int]:
        """Once the search is over, and once only: the best configurations and the anchors still to be tested.

        Not those of which replicates were tested as they were. They are `pending` from now on.
        """
        parts = self._last_parts
        if self._drawn or not parts:
            return []
        self._drawn = True
        manifest = self._history.manifest
        wanted = {*manifest.test_metrics} if Part.TEST in parts else set()
        wanted |= {manifest.unseen_metric} if manifest.unseen_metric else set()
        drawn = []
        for row in self._history.finalists(self._plan.finalists):
            replicates = self._history.confirmations(row.id)
            known = any(r.outcome is not None and wanted <= set(r.outcome.metrics) for r in replicates)
            if not known and row.id not in self._history.tests:
                drawn.append(row.id)
        self.pending.update(drawn)
        return drawn

    def line(self, trial: int, outcome: Outcome) -> str:
        """What came out, in one line of the log."""
        manifest = self._history.manifest
        names = [*([manifest.unseen_metric] if manifest.unseen_metric else []), *manifest.test_metrics]
        found = [f"{name} {outcome.metrics[name]:.6g}" for name in names if name in outcome.metrics]
        note = f" [{outcome.reason}]" if found and outcome.message else ""
        said = ", ".join(found) or outcome.reason or outcome.status
        return f"          trial {trial:3d} tested: {said}{note}"

    @property
    def _last_parts(self) -> tuple[Part, ...]:
        """What is left for the finalists."""
        if self._plan.when == "never":
            return ()
        parts = (Part.TEST,) if self._plan.when == "finalists" else ()
        return (*parts, Part.UNSEEN) if self._history.manifest.unseen_metric else parts
