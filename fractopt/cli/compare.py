"""`fractopt compare`: several runs side by side, as a table and as figures."""

from __future__ import annotations

from pathlib import Path

import click

from fractopt.cli.console import Exit, as_json_text, fail, reporting
from fractopt.text import shown

DIRECTORY = click.Path(path_type=Path)


@click.command()
@click.argument("directories", metavar="RUN...", type=DIRECTORY, nargs=-1, required=True)
@click.option("--out", type=DIRECTORY, help="Write the figures and comparison.json to this directory.")
@click.option(
    "--chance",
    type=click.FloatRange(),
    help="What guessing scores in the metric. [default: as many tasks of lm-eval have it]",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@reporting
def compare(directories: tuple[Path, ...], out: Path | None, chance: float | None, as_json: bool) -> None:
    """Compare runs: what each found, how sure that is, what it cost and how soon it was found."""
    from fractopt.archive.store import load
    from fractopt.durable import replace_file
    from fractopt.report.runs import Run, named, table_lines

    try:
        names = named(directories)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # what cannot be written is said before, not after
    runs = [
        Run.of(name, directory, load(directory), chance)
        for name, directory in zip(names, directories, strict=True)
    ]
    text = as_json_text([run.to_json() for run in runs])
    if as_json:
        click.echo(text)
    else:
        for line in table_lines(runs):
            click.echo(shown(line))
    if out is None:
        return
    from fractopt.report.figures import draw

    replace_file(out / "comparison.json", text.encode() + b"\n", durable=False)
    try:
        for what, path in draw(runs, out):
            click.echo(shown(f"{path}: {what}" if path is not None else what), err=True)
    except ImportError as error:
        fail(Exit.FAILED, f"{error}; the results are in {out / 'comparison.json'}")
