"""The command line. stdout carries data, everything else goes to stderr.

Commands import what they need when they run: `fractopt --help` answers at once.
"""

from __future__ import annotations

from pathlib import Path

import click

from fractopt.cli.best import best
from fractopt.cli.check import check
from fractopt.cli.compare import compare
from fractopt.cli.console import Exit, as_json_text, fail, reporting, resumable
from fractopt.cli.fetch import fetch
from fractopt.cli.job import job
from fractopt.cli.run import run
from fractopt.cli.upkeep import doctor, repair, unlock
from fractopt.text import shown

DIRECTORY = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="fractopt")
def main() -> None:
    """Optimise expensive black boxes, LoRA fine-tunes first, alone or under mpirun."""


for command in (run, check, fetch, best, compare, job, repair, unlock, doctor):
    main.add_command(command)


@main.command()
@click.argument("path", type=DIRECTORY, default=Path("fractopt.toml"))
@reporting
def init(path: Path) -> None:
    """Write a commented configuration to PATH (default: fractopt.toml)."""
    from importlib.resources import files

    from fractopt.durable import create_file

    if not path.name:
        fail(Exit.FAILED, f"{path} is a directory; give the path of a file to write")
    text = files("fractopt.cli").joinpath("template.toml").read_bytes()
    try:
        create_file(path, text)
    except FileExistsError:
        fail(Exit.FAILED, f"{path} exists already and was left as it is; give another path")
    click.echo(f"wrote {path}; next: fractopt check {path}, fractopt run {path}", err=True)


@main.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@click.option(
    "--check",
    "check_",
    is_flag=True,
    help="Only the exit code: 0 complete, 75 resumable (99 in a job of OAR), 1 failed.",
)
@reporting
def status(directory: Path, as_json: bool, check_: bool) -> None:
    """What the run in DIRECTORY does just now, from its files alone."""
    from fractopt.report.status import status as read_status
    from fractopt.report.status import status_lines

    report = read_status(directory)
    if as_json:
        click.echo(as_json_text(report))
    elif not check_:
        for line in status_lines(report):
            click.echo(shown(line))
    if check_:
        codes = {"complete": Exit.DONE, "failed": Exit.FAILED}
        raise SystemExit(codes.get(report["state"], resumable()))


@main.command()
@click.argument("directory", type=DIRECTORY)
@click.argument("id", type=int)
@reporting
def show(directory: Path, id: int) -> None:
    """All that is known of evaluation ID: parameters, outcome, attempts, where its logs are."""
    from fractopt.archive.store import load
    from fractopt.report.tables import row_lines

    history = load(directory)
    if id not in history.rows:
        known = f"0 to {max(history.rows)}" if history.rows else "none yet"
        fail(Exit.FAILED, f"{directory} has no evaluation {id}; it has {known}")
    for line in row_lines(history, history.rows[id], directory):
        click.echo(shown(line))


@main.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--format", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True)
@reporting
def export(directory: Path, form: str) -> None:
    """Every evaluation of the run in DIRECTORY, on stdout."""
    from fractopt.archive.store import load
    from fractopt.report.tables import as_csv, as_records

    history = load(directory)
    click.echo(as_json_text(as_records(history)) if form == "json" else as_csv(history), nl=form == "json")


@main.command()
@click.argument("name")
@click.option("--optimizers", default="random,lhs,sobol,soo", show_default=True, help="Comma-separated.")
@click.option("--budget", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--out", type=DIRECTORY, help="Write the picture and the results here.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@reporting
def bench(name: str, optimizers: str, budget: int, seeds: int, out: Path | None, as_json: bool) -> None:
    """Compare optimizers on the synthetic function NAME at equal budget and seeds."""
    from fractopt.report.benchmark import run_benchmark, table_lines

    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # what cannot be written is said before, not after
    try:
        result = run_benchmark(name, [o.strip() for o in optimizers.split(",")], budget, seeds)
    except ValueError as error:
        raise click.UsageError(str(error).removeprefix("function: ")) from None
    if as_json:
        click.echo(as_json_text(result.to_json()))
    else:
        for line in table_lines(result):
            click.echo(line)
    if out is not None:
        (out / f"{name}.json").write_text(as_json_text(result.to_json()) + "\n")
        if result.dimension == 2:
            from fractopt.report.picture import draw

            try:
                draw(result, out / f"{name}.png")
            except ImportError as error:
                fail(Exit.FAILED, f"{error}; the results are in {out / f'{name}.json'}")
            click.echo(f"picture: {out / f'{name}.png'}", err=True)
