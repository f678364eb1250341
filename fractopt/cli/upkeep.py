"""`fractopt repair`, `unlock` and `doctor`: what to do when a run directory does not let one go on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fractopt.cli.console import Exit, fail, reporting

if TYPE_CHECKING:
    from fractopt.archive.repair import Findings

DIRECTORY = click.Path(path_type=Path)


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--yes", is_flag=True, help="Do it. What is damaged is kept beside it.")
@reporting
def repair(directory: Path, yes: bool) -> None:
    """Say what is damaged in the run in DIRECTORY and what can be saved; with --yes save it.

    Exit codes: 0 whole or repaired, 4 damaged.
    """
    from fractopt.archive.repair import inspect
    from fractopt.archive.repair import repair as repair_now

    if not directory.is_dir():
        fail(Exit.ARCHIVE, f"there is no run at {directory}: give the directory of one")
    found = repair_now(directory) if yes else inspect(directory)
    for damage in (found.journal_damage, found.archive_damage):
        if damage:
            click.echo(damage)
    done = len(found.history.evaluations)
    if found.is_whole:
        click.echo(f"{directory} is whole: {done} evaluations, nothing to repair")
        return
    click.echo(_saved(found))
    if not yes:
        fail(
            Exit.ARCHIVE,
            f"nothing was changed. fractopt repair {directory} --yes does it, and keeps what is damaged.",
        )
    click.echo(f"{directory} is repaired: {done} evaluations. Go on with fractopt run ... --resume", err=True)


def _saved(found: Findings) -> str:
    kept = len(found.history.records)
    text = f"saved: {kept} records with {len(found.history.evaluations)} evaluations"
    if found.recovered:
        text += f", {found.recovered} records of them out of archive.h5"
    if not found.journal_damage:
        return f"{text}; the journal is whole, nothing is lost"
    if not found.lost:
        end = "nothing is lost" if found.ends_in_journal else "what came after the last snapshot is lost"
        return f"{text}; {end}"
    text += (
        f"\nlost: record {kept + 1} is in neither, so {len(found.lost)} whole records behind it have no use"
    )
    numbers = ", ".join(map(str, found.gone))
    return f"{text}\nlost evaluations: {numbers}" if found.gone else f"{text}; they tell of no evaluation"


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--yes", is_flag=True, help="Remove it although its owner cannot be seen from here.")
@reporting
def unlock(directory: Path, yes: bool) -> None:
    """Say who holds the run in DIRECTORY, and remove the LOCK of a master that is gone.

    Exit codes: 0 not locked any more, 4 left as it is.
    """
    from fractopt.archive.lock import is_alive, read_owner, remove

    if not directory.is_dir():
        fail(Exit.ARCHIVE, f"there is no run at {directory}: give the directory of one")
    path = directory / "LOCK"
    if not os.path.lexists(path):
        click.echo(f"{directory} is not locked")
        return
    owner = read_owner(path)
    alive = None if owner is None else is_alive(owner)
    ago = time.time() - path.lstat().st_mtime
    who = f"held by {owner.describe()}" if owner else "not a lock of fractopt's"
    click.echo(f"{path} is {who}; last written {ago:.0f} s ago")
    if alive:
        fail(Exit.ARCHIVE, "that process is alive: stop it with SIGTERM, it gives the directory back itself")
    if alive is None and not yes:
        where = (
            f"its process cannot be seen from here: look on {owner.host}. If it is certainly gone"
            if owner
            else "look at it. If nobody needs it"
        )
        fail(Exit.ARCHIVE, f"{where}: fractopt unlock {directory} --yes")
    if not remove(path, owner):
        fail(Exit.ARCHIVE, "another master has just taken it; it was left alone")
    click.echo(f"{directory} is free: go on with fractopt run ... --resume", err=True)


@click.command()
@click.argument("directory", type=DIRECTORY, default=Path())
@reporting
def doctor(directory: Path) -> None:
    """Try whether the file system of DIRECTORY keeps what a run needs; leaves nothing behind.

    Exit codes: 0 it does, 1 it does not.
    """
    from fractopt.archive.probe import probe

    if not directory.is_dir():
        raise click.UsageError(f"{directory} is not a directory: give the one that run directories go into")
    bad = 0
    for finding in probe(directory):
        bad += not finding.good
        click.echo(f"{'ok ' if finding.good else 'BAD'} {finding.name:<12}{finding.text}")
    if bad:
        fail(Exit.FAILED, f"do not run in {directory}: choose a directory on another file system with --out")
