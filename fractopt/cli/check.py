"""`fractopt check`: what a configuration would run, and what this machine lacks for it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fractopt.cli.console import reporting
from fractopt.text import shown

if TYPE_CHECKING:
    from fractopt.config.read import Config
    from fractopt.objective.base import Absence


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of CONFIG.")
@click.option("--trust-code", is_flag=True, help="Allow an objective that runs Python code of yours.")
@reporting
def check(config: Path, overrides: tuple[str, ...], trust_code: bool) -> None:
    """Check CONFIG, say what it would run and what this machine lacks for it; all mistakes at once.

    Needs neither a GPU nor a network. Exit codes: 0 CONFIG is right, whatever is missing, 3 it is not.
    """
    from fractopt.config.read import read_config

    changes = (*overrides, *(["trust.code=true"] if trust_code else []))
    checked = read_config(config, changes)
    _say(config, checked)
    missing: dict[str, list[str]] = {}  # by the command that gets it
    for absence in checked.settings.absences(thorough=True):
        missing.setdefault(command_of(absence, config, changes), []).append(absence.what)
    for command, what in missing.items():
        for text in what:
            click.echo(shown(f"missing    {text}"), err=True)
        if command:
            click.echo(shown(f"  get {'it' if len(what) == 1 else 'them'}   {command}"), err=True)


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


def command_of(absence: Absence, config: Path, overrides: Sequence[str]) -> str:
    """The command that gets what is missing, for this configuration file and these changes of it."""
    ours = " ".join([shlex.quote(str(config)), *(f"--set {shlex.quote(change)}" for change in overrides)])
    return absence.command.replace("CONFIG", ours)


def said_with(absence: Absence, config: Path, overrides: Sequence[str]) -> str:
    """What is missing and the command that gets it, in one line."""
    command = command_of(absence, config, overrides)
    return f"{absence.what}; run: {command}" if command else absence.what
