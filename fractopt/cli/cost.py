"""The cost of a run before it begins, and where the minutes of an evaluation are known from."""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fractopt.cli.allocation import Allocation
from fractopt.cli.console import Exit, fail
from fractopt.text import shown

if TYPE_CHECKING:
    from fractopt.config.read import Config
    from fractopt.objective.base import Measured
    from fractopt.report.bill import Times

_MOST_BYTES = 1_000_000  # of what was kept


def say_cost(
    path: Path,
    checked: Config,
    allocation: Allocation | None,
    minutes: float | None,
    measure: bool,
    out: Path | None,
) -> None:
    """What the run of `checked` costs: on one worker, or in `allocation`.

    The time of an evaluation is that of --minutes, else of a measurement now, of the run in `out`, or of an
    earlier measurement.
    """
    from fractopt.config.read import NOTICE_S
    from fractopt.objective.base import UnusableError
    from fractopt.report.bill import Bill, Times, bill_lines

    for heading, words in checked.settings.needs(checked.space).items():
        click.echo(f"{heading:<11}{words}")
    times: Times | None = None
    if measure:
        try:
            measured = checked.settings.measure(checked.default or {})
        except UnusableError as error:
            fail(Exit.FAILED, str(error))
        for line in _measured_lines(measured):
            click.echo(line)
        _keep(path, checked, measured)
        times = _times(checked, measured, "by this measurement")
    if minutes is not None:
        times = Times(60 * minutes, "--minutes")
    directory = (out or Path("runs") / path.stem).expanduser()
    times = times or _of_run(directory, checked) or _kept(path, checked)
    if allocation is not None:
        click.echo(f"for        {allocation}")
    bill = Bill(
        evaluations=checked.run.budget,
        finalists=_finalists(checked),
        workers=1 if allocation is None else allocation.workers,
        times=times,
        usable_s=None if allocation is None else allocation.walltime_s - NOTICE_S,
        gpus_per_worker=checked.gpus_per_worker,
    )
    for line in bill_lines(bill):
        click.echo(line)
    if times is None:
        click.echo("evaluation of unknown length: say --minutes N, or on a node with a GPU --measure")
    warnings = [*bill.warnings()]
    if allocation is not None and (cut := allocation.cuts_off(checked)):
        warnings.append(cut)
    for warning in warnings:
        click.echo(f"warning    {warning}", err=True)


def _finalists(checked: Config) -> int:
    """Configurations that are looked at once more at the end, base and default among them."""
    some = checked.objective.get("score", {}).get("questions", "all") != "all"
    if checked.tests.when == "finalists" or (checked.tests.when == "all" and some):
        return min(checked.tests.finalists + len(checked.run.anchors), checked.run.budget)
    return 0


def _times(checked: Config, measured: Measured, source: str) -> Times:
    from fractopt.report.bill import Times

    each = measured.training + measured.scoring + measured.other
    last = measured.unseen
    if checked.tests.when == "all":
        each += measured.test
    elif checked.tests.when == "finalists":
        last += measured.test
    return Times(each, source, measured.startup, last)


def _measured_lines(measured: Measured) -> Iterator[str]:
    from fractopt.report.bill import duration
    from fractopt.units import amount

    yield f"measured   {measured.what} on {measured.device}"
    parts = {
        "training": measured.training,
        "scoring": measured.scoring,
        "the rest": measured.other,
        "start-up": measured.startup,
        "unseen questions": measured.unseen,
        "test": measured.test,
    }
    yield "           " + ", ".join(f"{name} {duration(s)}" for name, s in parts.items() if s)
    yield f"           peak memory {amount(measured.peak)}"


def _of_run(directory: Path, checked: Config) -> Times | None:
    """What the evaluations of a run that is there took, where it is one of this objective."""
    from fractopt.archive.journal import ArchiveError
    from fractopt.archive.store import load
    from fractopt.report.bill import Times

    try:
        history = load(directory)
    except (ArchiveError, OSError):
        return None
    if history.typical_seconds is None:
        return None
    if history.manifest.objective != checked.objective:
        click.echo(shown(f"the run in {directory} is of another objective and says nothing of this one"))
        return None
    return Times(history.typical_seconds, f"the median in {directory}")


def _place(path: Path) -> Path:
    return path.with_suffix(".measured.json")


def _keep(path: Path, checked: Config, measured: Measured) -> None:
    """Beside the configuration, for a login node that sees it too."""
    from fractopt.durable import replace_file

    kept = {
        "measured": dataclasses.asdict(measured),
        "objective": checked.objective,
        "host": platform.node(),
        "date": time.strftime("%Y-%m-%d"),
    }
    try:
        replace_file(_place(path), json.dumps(kept, indent=1).encode() + b"\n")
        click.echo(f"kept in {_place(path)}", err=True)
    except OSError as error:
        click.echo(f"warning    it could not be kept in {_place(path)}: {error.strerror}", err=True)


def _kept(path: Path, checked: Config) -> Times | None:
    from fractopt.foreign import read_file
    from fractopt.objective.base import Measured

    place = _place(path)
    try:
        kept = json.loads(read_file(place, _MOST_BYTES))
        measured = Measured(**kept["measured"])
        if kept["objective"] != checked.objective:
            click.echo(shown(f"what {place} holds was measured with another objective; measure again"))
            return None
        source = f"measured on {measured.device} of {kept['host']}, {kept['date']}"
        return _times(checked, measured, shown(source))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        click.echo(shown(f"{place} holds no measurement; measure again"))
        return None
