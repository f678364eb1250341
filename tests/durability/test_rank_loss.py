"""One run that loses two ranks; `prove.py rank_loss` does it as often as you like."""

import random
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "parallel"))

from rank_loss import KILL, STOP, figures, lose_ranks
from ranks import needs_mpi

pytestmark = needs_mpi


def test_a_run_goes_on_without_a_killed_and_a_stopped_rank(tmp_path: Path) -> None:
    run = lose_ranks(tmp_path, [KILL, STOP], random.Random(0), workers=3, budget=20, within_s=2.0)
    assert run.breaches == []
    assert len(run.harmed) == 2
    assert [figure for figure in figures([run]) if figure.broken] == []
