"""Fetching the data: alpaca's file, or a data set of the hub as lines of JSON."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path

from fractopt.durable import replace_file
from fractopt.objective.base import AbsentError, UnusableError
from fractopt.objective.lora.fetch.hub import Hub
from fractopt.objective.lora.fetch.job import Job, compared, named, remember, there
from fractopt.objective.lora.files import PACKAGED_DATA, home
from fractopt.objective.lora.records import (
    ALPACA,
    ALPACA_FILE,
    NAMES,
    data_home,
    data_version,
    find_data,
    read_records,
    record_of,
)
from fractopt.objective.lora.tables import Data

ALPACA_URL = f"https://raw.githubusercontent.com/tloen/alpaca-lora/main/{ALPACA_FILE}"  # litgpt's
# What `datasets` may need of a repository to find its records: data in its formats, and its card. No script.
FORMATS = (".json", ".jsonl", ".parquet", ".arrow", ".csv", ".tsv", ".txt", ".gz", ".zst", ".zip")
CARDS = ("README.md", ".huggingface.yaml")


def plan_data(data: Data, hub: Hub, update: bool) -> Job | str | None:
    """How to get the data; in words where they are, or None where they came with the package."""
    if data.name in PACKAGED_DATA:
        return None
    of_the_hub = None if data.name in (None, ALPACA) else NAMES.get(str(data.name), data.name)
    try:
        here = find_data(data.name, data.path, data.revision, data.subset)
    except AbsentError as error:
        if not error.absence.command:
            raise
    else:
        version = data_version(here)
        if of_the_hub is None:
            return there(str(data.name or data.path), here, version)
        if not update:
            said = compared(hub, "dataset", of_the_hub, data.revision, version)
            return there(of_the_hub, here, version) + said
    return _plan_alpaca() if of_the_hub is None else _from_hub(of_the_hub, data, hub)


def _from_hub(name: str, data: Data, hub: Hub) -> Job:
    repository = hub.find("dataset", name, data.revision)
    paths = [path for path in sorted(repository.files) if path.endswith(FORMATS) or path in CARDS]
    target = data_home(name) / repository.commit / f"{data.subset or 'default'}.jsonl"
    downloads = hub.missing_bytes(repository, paths)

    def do() -> str:
        if not target.is_file():
            for path in paths:
                hub.download(repository, path)
            _write_records(hub.snapshot(repository), name, data.subset, target)
        remember(data_home(name), data.revision, repository.commit)
        return there(name, target, repository.commit)

    return Job(
        f"the data set {name} at {named(data.revision, repository.commit)}, into {target}",
        # As records, and for a moment as tables.
        () if target.is_file() else ((hub.cache, downloads), (home(), 2 * downloads)),
        do,
    )


def _plan_alpaca() -> Job:
    target = data_home(ALPACA) / ALPACA_FILE

    def do() -> str:
        _download_alpaca(target)
        return there(ALPACA, target, data_version(target))

    return Job(f"alpaca's file, into {target}", (), do)


def _download_alpaca(target: Path) -> None:
    try:
        with urllib.request.urlopen(ALPACA_URL, timeout=60) as answer:
            content = answer.read()
    except OSError as error:  # urllib's own are of this kind
        raise UnusableError(
            f"alpaca's file cannot be had from {ALPACA_URL} ({error}): fetch on a login node, or download it "
            f"elsewhere and put it at {target}"
        ) from None
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f"aside-{target.name}")
    try:
        aside.write_bytes(content)
        read_records(aside)  # raises for half of it, or for a page that says something else
    finally:
        aside.unlink(missing_ok=True)
    replace_file(target, content)


def _write_records(snapshot: Path, name: str, subset: str | None, target: Path) -> None:
    """The records of the data set's train split, as lines of JSON in `target`."""
    import datasets  # type: ignore[import-untyped]

    datasets.disable_progress_bars()
    aside = home() / "datasets.tmp"
    try:
        try:
            splits = datasets.load_dataset(str(snapshot), name=subset, cache_dir=str(aside))
        except Exception as error:  # whatever its readers raise for a repository that is laid out otherwise
            reason = str(error).partition("\n")[0]
            raise UnusableError(
                f"the data set {name} cannot be read ({type(error).__name__}: {reason}); where it has "
                "subsets, say which in objective.data.subset"
            ) from error
        if "train" not in splits:
            raise UnusableError(
                f'the data set {name} has no split "train", but {", ".join(splits)}: put the records into a '
                "file and give its path"
            )
        rows = (record_of(row, f"{name}, record {n}") for n, row in enumerate(splits["train"], start=1))
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, lines.encode())
