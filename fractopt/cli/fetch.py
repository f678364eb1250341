"""`fractopt fetch`: what a run needs, brought to this machine before it."""

from __future__ import annotations

from pathlib import Path

import click

from fractopt.cli.console import Exit, fail, reporting
from fractopt.text import shown


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of CONFIG.")
@click.option("--trust-code", is_flag=True, help="Allow an objective that runs Python code of yours.")
@click.option("--update", is_flag=True, help="Take what a branch is on the hub by now.")
@reporting
def fetch(config: Path, overrides: tuple[str, ...], trust_code: bool, update: bool) -> None:
    """Bring model, data and questions of CONFIG to this machine: on a login node, before a run.

    They go where HF_HOME says; a token comes from HF_TOKEN. What is there is looked at and left alone, what
    broke off goes on. Exit codes: 0 all is there, 1 something cannot be had.
    """
    from fractopt.config.read import read_config
    from fractopt.objective.base import UnusableError

    checked = read_config(config, (*overrides, *(["trust.code=true"] if trust_code else [])))
    try:
        checked.settings.fetch(lambda text: click.echo(shown(text)), update)
    except UnusableError as error:
        fail(Exit.FAILED, str(error))
