"""Where the base model and the data are on this machine; imports no torch, downloads nothing.

Each function raises UnusableError in words for what it does not find.
"""

from __future__ import annotations

import importlib.util
import os
from os.path import isdir, isfile  # which say no where a Path raises: names too long for any file
from pathlib import Path

from fractopt.objective.base import UnusableError

TINY = "fractopt/tiny"  # the model and the data that come with the package
TINY_DIRECTORY = Path(__file__).parent / "tiny" / "data"
ALPACA_FILE = "alpaca_data_cleaned_archive.json"
PACKAGES = ("torch", "litgpt", "lm_eval")

# What a litgpt checkpoint is made of: a label, and the names any of which will do.
CHECKPOINT_FILES = {
    "lit_model.pth": ("lit_model.pth",),
    "model_config.yaml": ("model_config.yaml",),
    "tokenizer.json or tokenizer.model": ("tokenizer.json", "tokenizer.model"),
    "tokenizer_config.json": ("tokenizer_config.json",),
}


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fractopt"


def checkpoint_roots() -> list[Path]:
    """Where a hub name is looked up: litgpt's own place below the current directory, then the cache."""
    return [Path("checkpoints"), _cache() / "checkpoints"]


def alpaca_places() -> list[Path]:
    """Where alpaca's file is looked up: litgpt's own place below the current directory, then the cache."""
    return [Path("data") / "alpaca", _cache() / "data" / "alpaca"]


def find_checkpoint(name: str | None, path: str | None, revision: str) -> Path:
    """The directory of the litgpt checkpoint that a hub `name` or a `path` means.

    Raises UnusableError where it is missing, incomplete, or not of the commit `revision`.
    """
    if name == TINY:
        return TINY_DIRECTORY
    if path is not None:
        directory = Path(path).expanduser()
        if not isdir(directory):
            raise UnusableError(
                f"objective.model.path: expected the directory of a litgpt checkpoint, "
                f"there is none at {directory.absolute()}"
            )
    else:
        roots = checkpoint_roots()
        found = [root / str(name) for root in roots if isdir(root / str(name))]
        if not found:
            raise UnusableError(
                f"objective.model.name: {name!r} is not on this machine, neither in "
                f"{' nor in '.join(str((root / str(name)).absolute()) for root in roots)}. A run downloads "
                f"nothing; where there is a network, run: litgpt download {name} --checkpoint_dir {roots[-1]}"
            )
        directory = found[0]
    absent = [
        label
        for label, names in CHECKPOINT_FILES.items()
        if not any(isfile(directory / file) for file in names)
    ]
    if absent:
        raise UnusableError(
            f"objective.model: {directory.absolute()} is no complete litgpt checkpoint, it lacks "
            f"{', '.join(absent)}; for Hugging Face files, run: litgpt convert_to_litgpt {directory}"
        )
    commit = downloaded_commit(directory)
    if revision not in ("main", commit):
        raise UnusableError(
            f"objective.model.revision: expected commit {revision}, the checkpoint in "
            f"{directory.absolute()} is of {commit or 'an unknown commit'}"
        )
    return directory


def downloaded_commit(directory: Path) -> str | None:
    """The commit that the hub's client noted beside the files it downloaded, where it did."""
    for note in sorted(directory.glob(".cache/huggingface/download/*.metadata")):
        lines = note.read_text(encoding="utf-8").splitlines()
        if lines:
            return lines[0].strip()
    return None


def find_data(name: str | None, path: str | None) -> Path:
    """The JSON file, or the directory with train.json and val.json, of fine-tuning data."""
    if name == TINY:
        return TINY_DIRECTORY
    if name == "alpaca":
        places = alpaca_places()
        for place in places:
            if isfile(place / ALPACA_FILE):
                return place / ALPACA_FILE
        raise UnusableError(
            f"objective.data.name: alpaca's file {ALPACA_FILE} is not on this machine, neither in "
            f"{' nor in '.join(str(place.absolute()) for place in places)}. A run downloads nothing; "
            "litgpt fetches it at its first fine-tune where there is a network, or put it there yourself"
        )
    where = Path(str(path)).expanduser()
    if isfile(where):
        if where.suffix not in (".json", ".jsonl"):
            raise UnusableError(
                f"objective.data.path: expected a file *.json or *.jsonl, got {where.absolute()}"
            )
        return where
    for part in ("train", "val"):
        if not any(isfile(where / (part + suffix)) for suffix in (".json", ".jsonl")):
            raise UnusableError(
                f"objective.data.path: expected a JSON file, or a directory with train.json and val.json; "
                f"{where.absolute()} {f'has no {part}.json' if isdir(where) else 'does not exist'}"
            )
    return where


def missing_packages() -> list[str]:
    """Which of the packages that the objective needs are not installed."""
    return [package for package in PACKAGES if importlib.util.find_spec(package) is None]
