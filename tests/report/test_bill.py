"""The cost of a run, against sums made by hand."""

from __future__ import annotations

import pytest

from fractopt.report.bill import Bill, Times, bill_lines, duration

HOUR = 3600.0


def times(minutes: float, startup: float = 0.0, last: float | None = 0.0) -> Times:
    return Times(60 * minutes, "said", startup, last)


def test_the_paper_on_eight_workers() -> None:
    bill = Bill(evaluations=52, finalists=5, workers=8, times=times(43, startup=60, last=600))
    assert bill.waves == 7
    cost = bill.cost()
    assert cost is not None
    assert cost.jobs == 1
    assert cost.makespan == pytest.approx(60 + 7 * 43 * 60 + 600)
    assert cost.held == pytest.approx(8 * cost.makespan)
    assert cost.busy == pytest.approx((52 * 43 * 60 + 5 * 600) / cost.held)


def test_jobs_that_end_are_counted_with_their_start_ups() -> None:
    # 2 h hold two of 50 minutes after 10 of start-up, so 5 waves need 3 jobs.
    cost = Bill(10, 0, 2, times(50, startup=600), usable_s=2 * HOUR).cost()
    assert cost is not None
    assert (cost.jobs, cost.per_job) == (3, 2)
    assert cost.makespan == pytest.approx(3 * 600 + 5 * 3000)


def test_what_is_wasted_is_said() -> None:
    assert [*Bill(8, 0, 4, times(1)).warnings()] == []
    one, two = (Bill(8, 0, 4, times(1), gpus_per_worker=each).cost() for each in (1, 2))
    assert one is not None
    assert two is not None
    assert (two.held, two.busy, two.makespan) == (2 * one.held, one.busy, one.makespan)
    (idle,) = Bill(3, 0, 8, times(1), gpus_per_worker=2).warnings()
    assert "10 GPUs would do nothing" in idle
    (idle,) = Bill(3, 0, 8, times(1)).warnings()
    assert idle == "8 workers for 3 evaluations: 5 GPUs would do nothing"
    (rest,) = Bill(9, 0, 4, times(1)).warnings()
    assert rest == "the last of 3 waves has 1 evaluation for 4 workers: a budget of 12 takes no longer"
    long = Bill(4, 0, 4, times(60, startup=120), usable_s=HOUR)
    (cut,) = long.warnings()
    assert cut.startswith(
        "no evaluation fits into a job: one takes 62 min with its start-up, a job leaves 60 min"
    )
    assert long.cost() is None


def test_the_lines_say_what_is_known() -> None:
    unknown = [*bill_lines(Bill(20, 3, 4, None))]
    assert unknown == ["run        20 evaluations in 5 waves of 4, then 3 configurations once more"]
    said = "\n".join(bill_lines(Bill(20, 3, 4, times(6, startup=30, last=None), usable_s=HOUR)))
    assert "evaluation 6 min (said), after 30 s of start-up in each job" in said
    assert "makespan   30.5 min, without the time in queues and that of the last configurations" in said
    assert "GPU hours  2.03, of which evaluations take 98%" in said
    more = "\n".join(bill_lines(Bill(40, 0, 4, times(6), usable_s=0.5 * HOUR)))
    assert "makespan   60 min in 2 jobs of at most 5 waves" in more


def test_durations_are_said_in_their_unit() -> None:
    assert [duration(s) for s in (5.04, 119, 3000, 86400)] == ["5.04 s", "119 s", "50 min", "24 h"]
