"""`fractopt best`: what a run recommends, and its adapter in the forms that other programs read."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fractopt.cli.console import Exit, as_json_text, fail, log_to_stderr, reporting
from fractopt.text import shown

if TYPE_CHECKING:
    from fractopt.archive.history import History, Row
    from fractopt.objective.lora.export.save import Format
    from fractopt.objective.lora.settings import LoraSettings
    from fractopt.optimizer.replicates import Recommended

log = logging.getLogger("fractopt.best")
PATH = click.Path(path_type=Path)
MAX_META = 1 << 20  # bytes of meta.json


@click.command()
@click.argument("directory", type=PATH)
@click.option("--json", "json_", is_flag=True, help="JSON instead of text.")
@click.option("--save", type=PATH, metavar="DIR", help="Write its adapter to DIR, with a model card.")
@click.option("--trial", type=int, metavar="N", help="With --save: the adapter of another evaluation.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["litgpt", "peft", "both"]),
    help="With --save: for which programs. [default: both]",
)
@click.option("--merge", is_flag=True, help="With --save: also the whole model, the adapter merged into it.")
@click.option("--retrain", is_flag=True, help="With --save: fine-tune it again where it was not kept.")
@reporting
def best(
    directory: Path,
    json_: bool,
    save: Path | None,
    trial: int | None,
    form: Format | None,
    merge: bool,
    retrain: bool,
) -> None:
    """The recommended and the best observed configuration of the run in DIRECTORY.

    With --save its adapter goes to a new directory, for peft and transformers at the top of it, for litgpt
    in litgpt/; merged ones in merged/ and litgpt/. Each is loaded again and compared with the tuned model,
    logit by logit; nothing is left where one disagrees. This needs the base model on this machine.
    """
    from fractopt.archive.store import load
    from fractopt.report.verdict import best_as_json, recommended_now, verdict_lines

    given = {
        "--trial": trial is not None,
        "--format": form is not None,
        "--merge": merge,
        "--retrain": retrain,
    }
    if save is None and any(given.values()):
        names = [name for name, was in given.items() if was]
        say = "say" if len(names) > 1 else "says"
        raise click.UsageError(
            f"{' and '.join(names)} {say} how an adapter is saved: say where to, with --save DIR"
        )
    history = load(directory)
    if history.best is None:
        fail(Exit.FAILED, f"{directory}: no configuration has a value yet")
    found = recommended_now(history)
    if save is not None:
        number = trial if trial is not None else history.best.id if found is None else found.id
        _save(history, directory, found, number, save.expanduser(), form or "both", merge, retrain)
    elif json_:
        click.echo(as_json_text(best_as_json(history, directory, found)))
    else:
        for line in verdict_lines(history, directory, found):
            click.echo(shown(line))


def _save(
    history: History,
    directory: Path,
    found: Recommended | None,
    number: int,
    place: Path,
    form: Format,
    merge: bool,
    retrain: bool,
) -> None:
    from fractopt.objective.base import UnusableError
    from fractopt.objective.lora import runtime
    from fractopt.objective.lora.export.saved import ExportError
    from fractopt.objective.lora.settings import LoraSettings
    from fractopt.objective.registry import settings_from
    from fractopt.report.card import card

    objective = dict(history.manifest.objective)
    if objective.pop("kind", None) != "lora":
        fail(Exit.FAILED, f"{directory} is no run of LoRA fine-tunes: there is no adapter to save")
    row = _row(history, directory, number)
    _refuse_taken(place)
    log_to_stderr()
    try:
        settings: LoraSettings = settings_from(LoraSettings, objective)
        point = settings.train.hyperparameters(row.params)
    except (LookupError, ValueError, TypeError, AttributeError) as error:  # anybody may have written it
        fail(Exit.ARCHIVE, f"{directory}: its objective cannot be read ({type(error).__name__}: {error})")
    try:
        runtime.prepare()
        from fractopt.objective.lora.export import save as export

        base = export.load_base(settings)
        export.check(base, point, form, merge)
        seed = _seed(history, row, settings)
        data, again = _weights(history, directory, row, settings, seed, retrain)
        tuned = export.load_tuned(data, row.id, seed, row.params, settings, base)
        saved = export.save(
            tuned,
            settings,
            place,
            form,
            merge,
            lambda saved: card(
                history, directory, row, found, settings, saved, versions=_versions(directory), again=again
            ),
        )
    except (ExportError, UnusableError) as error:
        fail(Exit.FAILED, str(error))
    click.echo(f"trial {row.id} is in {place}")
    for name, difference in saved.differences.items():
        click.echo(f"  {name}: the logits of the tuned model, to {difference:.2g}")
    if saved.effect <= max(saved.differences.values()):
        log.warning("this adapter changes no logit by more than rounding: it says that it is as good as none")


def _row(history: History, directory: Path, number: int) -> Row:
    row = history.rows.get(number)
    if row is None:
        fail(Exit.FAILED, f"{directory} has no evaluation {number}; it has 0 to {max(history.rows)}")
    if row.kind.is_replicate:
        fail(Exit.FAILED, f"trial {number} repeats trial {row.of} and kept no adapter: say --trial {row.of}")
    if not row.kind.is_configuration:
        fail(Exit.FAILED, f"trial {number} is the untuned model: it has no adapter")
    if not row.complete:
        fail(Exit.FAILED, f"trial {number} has no value of its own: it kept no adapter")
    return row


def _refuse_taken(place: Path) -> None:
    if place.is_symlink() or (place.exists() and (not place.is_dir() or any(place.iterdir()))):
        fail(
            Exit.FAILED, f"{place} is there already, and was left as it is: give a new or an empty directory"
        )


def _seed(history: History, row: Row, settings: LoraSettings) -> int:
    """The training seed of `row`, which is no replicate."""
    from fractopt.optimizer.base import trial_seed

    fixed = settings.train.seed
    return trial_seed(history.manifest.seed, row.id) if fixed == "per-trial" else fixed


def _weights(
    history: History, directory: Path, row: Row, settings: LoraSettings, seed: int, retrain: bool
) -> tuple[bytes, bool]:
    """What `row` kept, else what a fine-tune now makes; whether it is this."""
    from fractopt.archive.adapters import FILE, read_adapter
    from fractopt.archive.result import evaluation_directory

    data = read_adapter(evaluation_directory(directory, row.id))
    if data is not None:
        return data, False
    if not retrain:
        kept = [n for n in history.rows if (evaluation_directory(directory, n) / FILE).is_file()]
        others = (
            f"there are those of {', '.join(map(str, sorted(kept)))}, for --trial" if kept else "no other was"
        )
        fail(
            Exit.FAILED,
            f"the adapter of trial {row.id} was not kept ({others}); --retrain fine-tunes it again, with the "
            "same seed, on this machine",
        )
    from fractopt.objective.lora.export.retrain import retrain as fine_tune

    log.info("trial %d is fine-tuned again, with the seed %d", row.id, seed)
    return fine_tune(row.id, row.kind, seed, row.params, settings, _Steps()), True


class _Steps:
    """A line of the log for each tenth of a fine-tune."""

    def __init__(self) -> None:
        self._tenth = 0

    def __call__(self, phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
        tenth = 10 * step // total if total else 0
        if tenth > self._tenth and loss is not None:
            self._tenth = tenth
            log.info("%s %d/%d, loss %.4f", phase, step, total, loss)


def _versions(directory: Path) -> Mapping[str, str]:
    """Of the packages that the run was made with, as far as it says so; and of those that export."""
    from importlib.metadata import PackageNotFoundError, version

    from fractopt.foreign import read_file

    found: dict[str, str] = {}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        said: Any = json.loads(read_file(directory / "meta.json", MAX_META))["versions"]
        found = {str(name): str(number) for name, number in said.items() if number}
    for name in ("transformers", "peft"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
