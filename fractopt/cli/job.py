"""`fractopt job`: a script for a scheduler, made for one configuration and one shape of an allocation."""

from __future__ import annotations

import os
import re
import shlex
import sys
from importlib.resources import files
from pathlib import Path

import click

from fractopt.cli.allocation import GPUS, NODES, NOTICE_S, SCHEDULERS, WALLTIME, Allocation
from fractopt.cli.console import reporting

BESTEFFORT = {  # the line of such a job, and of any other
    "slurm": (
        "# Others may preempt it: SLURM says TERM, requeues it, and it goes on where it stood.",
        "# For a job that starts sooner, but that others may preempt, take one # away. The name is yours:\n"
        "##SBATCH --qos=preempt",
    ),
    "oar": (
        "#OAR -t besteffort",
        "# For a job that starts sooner, but that others may evict, take one # away:\n##OAR -t besteffort",
    ),
}
# What a site's jobs that may be preempted differ in.
_PREEMPTIBLE = re.compile(r"(--qos|--partition|-q|-p)\b")
CACHES = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE")  # where models, data and questions are
COMMANDS = {"slurm": "slurm.sh", "oar": "oar.sh"}


@click.command()
@click.argument("scheduler", type=click.Choice(SCHEDULERS))
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--nodes", type=click.IntRange(min=1), default=NODES, show_default=True)
@click.option("--gpus", type=click.IntRange(min=1), default=GPUS, show_default=True, help="Of each node.")
@click.option("--cores", type=click.IntRange(min=1), default=8, show_default=True, help="For each GPU.")
@click.option("--walltime", default=WALLTIME, show_default=True, help="Such as 90m, 12h, 2d.")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory. [default: runs/NAME of CONFIG]")
@click.option("--besteffort", is_flag=True, help="A job that others may evict, and that comes back.")
@click.option(
    "--site", multiple=True, metavar="OPTION", help="One more line for the scheduler, such as -p gpu."
)
@click.option(
    "--setup", multiple=True, metavar="LINE", help="A shell line that comes first, such as module load."
)
@reporting
def job(
    scheduler: str,
    config: Path,
    nodes: int,
    gpus: int,
    cores: int,
    walltime: str,
    out: Path | None,
    besteffort: bool,
    site: tuple[str, ...],
    setup: tuple[str, ...],
) -> None:
    """Print a job script for SCHEDULER that runs CONFIG to its end, however often it is interrupted."""
    from fractopt.config.read import read_config

    checked = read_config(config)  # a mistake is cheaper here than after a night in the queue
    allocation = Allocation.of(scheduler, nodes, gpus, walltime, checked.gpus_per_worker)
    if cut := allocation.cuts_off(checked):
        raise click.UsageError(cut)
    if besteffort and scheduler == "slurm" and not any(map(_PREEMPTIBLE.match, site)):
        raise click.UsageError(
            "--besteffort: in SLURM a partition or a QOS of the site says which jobs may be preempted; name "
            "it, such as --site '--qos=preempt'"
        )
    if bad := [option for option in site if not option.startswith("-") or "\n" in option]:
        raise click.UsageError(
            f"--site: expected one option of the scheduler, such as '-p gpu', got {bad[0]!r}"
        )
    click.echo(
        script(
            scheduler,
            config,
            out or Path("runs") / config.stem,
            nodes=nodes,
            gpus=gpus,
            each=allocation.each,
            cores=cores,
            walltime_s=allocation.walltime_s,
            besteffort=besteffort,
            site=site,
            setup=setup or active_environment(),
            command=" ".join(["fractopt", *map(shlex.quote, sys.argv[1:])]),
        ),
        nl=False,
    )


def script(
    scheduler: str,
    config: Path,
    out: Path,
    *,
    nodes: int,
    gpus: int,
    cores: int,
    walltime_s: int,
    besteffort: bool,
    site: tuple[str, ...],
    setup: tuple[str, ...],
    command: str,
    each: int = 1,
) -> str:
    """The text of a job script for `gpus` of every node, `each` of them a worker's, with `cores` for each.

    `site` are further options for the scheduler, `setup` lines of shell.
    """
    workers = gpus // each
    hours, minutes, rest = walltime_s // 3600, walltime_s // 60 % 60, walltime_s % 60
    values = {
        "config": shlex.quote(str(config)),
        "out": shlex.quote(str(out)),
        "name": re.sub(r"[^A-Za-z0-9_-]", "_", config.stem),
        "command": command,
        "nodes": nodes,
        "gpus": gpus,
        "cores": cores,
        "each": "a GPU" if each == 1 else f"{each} GPUs",
        "workers": nodes * workers,
        "workers_per_node": workers,
        "ranks": nodes * workers + 1,
        "ranks_per_node": workers + 1,
        # Never more than the node's share, which is all that a full node has.
        "cores_per_rank": max(1, gpus * cores // (workers + 1)),
        "resources": f"host={nodes}/gpu={gpus}",
        "walltime": f"{hours:02d}:{minutes:02d}:{rest:02d}",
        "notice_s": NOTICE_S,
        "besteffort": BESTEFFORT[scheduler][0 if besteffort else 1],
        "site": "\n".join(f"#{'SBATCH' if scheduler == 'slurm' else 'OAR'} {option}" for option in site),
        "setup": "\n".join(setup),
    }
    text = files("fractopt.cli").joinpath(COMMANDS[scheduler]).read_text()
    for name, value in values.items():
        # A line of its own that is empty leaves no gap.
        text = text.replace(f"{{{{{name}}}}}\n", f"{value}\n" if str(value) else "")
        text = text.replace(f"{{{{{name}}}}}", str(value))
    return text


def active_environment() -> tuple[str, ...]:
    """The lines that make this fractopt the one of the job, whose shell may start without our variables, and
    let it find what `fractopt fetch` brought here."""
    environment = os.environ.get("VIRTUAL_ENV")
    if environment:
        activate = f". {shlex.quote(environment)}/bin/activate"
    else:
        activate = f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"'
    places = (name for name in CACHES if os.environ.get(name))
    return (activate, *(f"export {name}={shlex.quote(os.path.abspath(os.environ[name]))}" for name in places))
