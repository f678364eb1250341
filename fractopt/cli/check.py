"""`fractopt check`: what a configuration would run, what this machine lacks for it, and what it will cost."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fractopt.cli.allocation import GPUS, NODES, SCHEDULERS, WALLTIME, Allocation
from fractopt.cli.console import Exit, fail, reporting
from fractopt.text import shown

if TYPE_CHECKING:
    from fractopt.config.read import Config
    from fractopt.objective.base import Absence


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of CONFIG.")
@click.option("--trust-code", is_flag=True, help="Allow an objective that runs Python code of yours.")
@click.option("--for", "scheduler", type=click.Choice(SCHEDULERS), help="Say what a run in its jobs costs.")
@click.option("--nodes", type=click.IntRange(min=1), help=f"[default: {NODES}]")
@click.option("--gpus", type=click.IntRange(min=1), help=f"Of each node. [default: {GPUS}]")
@click.option("--walltime", help=f"Of a job, such as 90m, 12h, 2d. [default: {WALLTIME}]")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="That an evaluation takes.")
@click.option("--measure", is_flag=True, help="Find them out on this device, from a small part of one.")
@click.option("--out", type=click.Path(path_type=Path), help="A run of it. [default: runs/NAME of CONFIG]")
@reporting
def check(
    config: Path,
    overrides: tuple[str, ...],
    trust_code: bool,
    scheduler: str | None,
    nodes: int | None,
    gpus: int | None,
    walltime: str | None,
    minutes: float | None,
    measure: bool,
    out: Path | None,
) -> None:
    """Check CONFIG, say what it would run and what this machine lacks for it; all mistakes at once.

    Needs neither a GPU nor a network. Exit codes: 0 CONFIG is right, whatever is missing, 3 it is not.
    """
    from fractopt.cli.cost import say_cost
    from fractopt.config.read import read_config

    if scheduler is None and (nodes, gpus, walltime) != (None, None, None):
        raise click.UsageError("--nodes, --gpus and --walltime are of a job: say --for slurm or --for oar")
    changes = (*overrides, *(["trust.code=true"] if trust_code else []))
    checked = read_config(config, changes)
    allocation = None
    if scheduler is not None:
        each = checked.gpus_per_worker
        allocation = Allocation.of(scheduler, nodes or NODES, gpus or GPUS, walltime or WALLTIME, each)
    _say(config, checked)
    absences = checked.settings.absences(thorough=True)
    _say_missing(absences, config, changes)
    if measure and absences:
        fail(Exit.FAILED, "nothing can be measured before what is missing is there")
    if measure or minutes is not None or scheduler is not None:
        say_cost(config, checked, allocation, minutes, measure, out)


def _say(path: Path, checked: Config) -> None:
    from fractopt.config.read import parameter_lines

    click.echo(f"{path} is valid")
    click.echo(f"objective  {checked.objective['kind']}: {checked.direction} {checked.metric}")
    click.echo(f"optimizer  {checked.optimizer} {dict(checked.optimizer_settings)}")
    anchors = f", of which anchors: {', '.join(checked.run.anchors)}" if checked.run.anchors else ""
    click.echo(f"budget     {checked.run.budget} evaluations{anchors}")
    if checked.replicates:
        click.echo(f"replicates {checked.replicate_line()}")
    for line in parameter_lines(checked.space):
        click.echo(f"space      {line}")
    for name, given in checked.projected.items():
        used = (checked.default or {})[name]
        click.echo(
            f"warning    default.{name} = {given!r} lies outside the space, {used!r} is used", err=True
        )
    for advice in checked.advice:
        click.echo(f"warning    {advice}", err=True)


def _say_missing(absences: Sequence[Absence], config: Path, changes: Sequence[str]) -> None:
    from fractopt.units import amount

    by_command: dict[str, list[Absence]] = {}
    for absence in absences:
        by_command.setdefault(command_of(absence, config, changes), []).append(absence)
    for command, missing in by_command.items():
        for absence in missing:
            size = f" (about {amount(absence.size)} to be written)" if absence.size else ""
            click.echo(shown(f"missing    {absence.what}{size}"), err=True)
        if command:
            click.echo(shown(f"  get {'it' if len(missing) == 1 else 'them'}   {command}"), err=True)


def command_of(absence: Absence, config: Path, overrides: Sequence[str]) -> str:
    """The command that gets what is missing, for this configuration file and these changes of it."""
    ours = " ".join([shlex.quote(str(config)), *(f"--set {shlex.quote(change)}" for change in overrides)])
    return absence.command.replace("CONFIG", ours)


def said_with(absence: Absence, config: Path, overrides: Sequence[str]) -> str:
    """What is missing and the command that gets it, in one line."""
    command = command_of(absence, config, overrides)
    return f"{absence.what}; run: {command}" if command else absence.what
