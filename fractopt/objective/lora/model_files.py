"""The base model's files on this machine: litgpt checkpoints, and the files they are made of.

Imports no torch. What is not there, or not what was asked for, raises UnusableError in words.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from os.path import isdir, isfile  # which say no where a Path raises: names too long for any file
from pathlib import Path
from typing import Any

from fractopt.objective.base import FETCH, Absence, AbsentError, UnusableError
from fractopt.objective.lora import architecture, smollm2
from fractopt.objective.lora.files import MAIN, PACKAGED_MODELS, SMOLLM2, home, read_json, resolved

NOTE = "fractopt.json"  # beside the files of a checkpoint that we made: its commit, and their sizes
# What a litgpt checkpoint is made of: a label, and the names any of which will do.
CHECKPOINT_FILES = {
    "lit_model.pth": ("lit_model.pth",),
    "model_config.yaml": ("model_config.yaml",),
    "tokenizer.json or tokenizer.model": ("tokenizer.json", "tokenizer.model"),
    "tokenizer_config.json": ("tokenizer_config.json",),
}
GGUF = ".gguf"  # what the name of such a file ends with
GGUF_GROWS = 6  # times, from 4 or 8 bits for most weights to 32
_SAFE, _PICKLED = ".safetensors", ".bin"  # what the weights of Hugging Face files end with


class DamagedError(AbsentError):
    """The checkpoint in `directory` is not whole; one of ours is made again by a fetch."""

    def __init__(self, what: str, directory: Path) -> None:
        super().__init__(Absence(what, FETCH if is_ours(directory) else ""))
        self.directory = directory


def is_ours(directory: Path) -> bool:
    """Whether `fractopt fetch` made what is in `directory`."""
    return home() in directory.parents


def model_home(name: str) -> Path:
    """Where the checkpoints of the hub's model `name` are, one directory a commit."""
    return home() / "models" / name


def find_checkpoint(name: str | None, path: str | None, revision: str = MAIN) -> Path:
    """The directory of the litgpt checkpoint that a hub `name` or a `path` means.

    `revision` is a branch, a tag, a commit, or what `model_version` says; "main" takes what is at `path`.
    """
    if name in PACKAGED_MODELS:
        return PACKAGED_MODELS[name]
    gguf = gguf_of(name, path)
    if gguf is not None:
        return _converted(*gguf, "is a GGUF file, which is", GGUF_GROWS, revision)
    if path is not None:
        return _at_path(Path(os.path.expanduser(path)), revision)
    place = model_home(str(name))
    commit = resolved(place, revision)
    if commit is not None and isdir(place / commit):
        _refuse_incomplete(place / commit)
        return place / commit
    downloaded = Path("checkpoints") / str(name)
    if isdir(downloaded):
        _refuse_incomplete(downloaded)
        _refuse_another(downloaded, revision)
        return downloaded
    at = "" if revision == MAIN else f" at revision {revision}"
    config = architecture.find(str(name))
    raise AbsentError(
        Absence(
            f"objective.model.name: {name!r} is not on this machine{at}, neither in {place} nor in "
            f"{downloaded.absolute()}",
            FETCH,
            # Once as it was published, and once as litgpt reads it.
            0 if config is None else 2 * architecture.BYTES * architecture.parameters(config),
        )
    )


def _at_path(directory: Path, revision: str) -> Path:
    if not isdir(directory):
        raise AbsentError(
            Absence(
                "objective.model.path: expected the directory of a litgpt checkpoint or of Hugging Face "
                f"files, or a file *{GGUF}, there is none at {directory.absolute()}"
            )
        )
    if not isfile(directory / "lit_model.pth") and is_hugging_face(directory):
        made = conversion_of(directory)
        return _converted(directory, made, "holds Hugging Face files, which are", 1, revision)
    _refuse_incomplete(directory)
    _refuse_another(directory, revision)
    return directory


def _converted(source: Path, directory: Path, what: str, grows: int, revision: str) -> Path:
    """The checkpoint `directory`, made of `source`; `what` it is, and it has `grows` times its size."""
    if not isdir(directory):
        raise AbsentError(
            Absence(
                f"objective.model.path: {source.absolute()} {what} not converted to litgpt's yet (it will be "
                f"in {directory})",
                FETCH,
                grows * sum(file.stat().st_size for file in _source_files(source) if file.is_file()),
            )
        )
    _refuse_incomplete(directory)
    _refuse_another(directory, revision)
    return directory


def _refuse_incomplete(directory: Path) -> None:
    absent = [
        label
        for label, names in CHECKPOINT_FILES.items()
        if not any(isfile(directory / file) for file in names)
    ]
    if absent:
        raise DamagedError(
            f"objective.model: {directory.absolute()} is no complete litgpt checkpoint, it lacks "
            f"{', '.join(absent)}",
            directory,
        )
    sizes = read_json(directory / NOTE).get("files")
    for file, size in sizes.items() if isinstance(sizes, dict) else ():
        found = os.path.getsize(directory / file) if isfile(directory / file) else 0
        if found != size:
            raise DamagedError(
                f"objective.model: {directory / file} has {found} bytes and was made with {size}", directory
            )


def _refuse_another(directory: Path, revision: str) -> None:
    version = model_version(directory)
    if revision not in (MAIN, version):
        raise UnusableError(
            f"objective.model.revision: expected {revision}, the checkpoint in {directory.absolute()} is of "
            f"{version or 'an unknown commit'}"
        )


def model_version(directory: Path) -> str | None:
    """What tells the checkpoint in `directory` from others: its commit on the hub, else a checksum.

    The checksum is of the list of its tensors' CRC-32, which torch's format keeps: nothing large is read.
    """
    commit = downloaded_commit(directory)
    if commit is not None:
        return commit
    try:
        with zipfile.ZipFile(directory / "lit_model.pth") as file:
            entries = sorted((e.filename, e.file_size, e.CRC) for e in file.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return None
    return f"sha256:{hashlib.sha256(repr(entries).encode()).hexdigest()}"


def downloaded_commit(directory: Path) -> str | None:
    """The commit that `fractopt fetch`, or the hub's client, noted beside the files it downloaded.

    None where there is no note, or where the files are of several commits.
    """
    commit = read_json(directory / NOTE).get("commit")
    if isinstance(commit, str):
        return commit
    commits = set()
    for note in directory.glob(".cache/huggingface/download/*.metadata"):
        lines = note.read_text(encoding="utf-8", errors="replace").splitlines()
        commits.add(lines[0].strip() if lines else "")
    return commits.pop() or None if len(commits) == 1 else None


# --- GGUF and Hugging Face files


def gguf_of(name: str | None, path: str | None) -> tuple[Path, Path] | None:
    """The GGUF file that a model is made of, and where its checkpoint is kept; None for another model.

    Raises AbsentError where the file comes with a package that is not installed.
    """
    if name == SMOLLM2:
        file, version = smollm2.gguf_file()
        return file, model_home(SMOLLM2) / version
    file = Path(os.path.expanduser(path or ""))
    return (file, conversion_of(file)) if file.suffix == GGUF and isfile(file) else None


def _source_files(source: Path) -> list[Path]:
    return [source] if isfile(source) else weight_files(source)


def is_hugging_face(directory: Path) -> bool:
    """Whether `directory` holds a model as `transformers` saves it."""
    return isfile(directory / "config.json") and bool(weight_files(directory))


def weight_files(directory: Path) -> list[Path]:
    """The files in `directory` that hold the model's weights."""
    names = sorted(entry.name for entry in directory.iterdir())
    return [directory / name for name in choose_weights(names, lambda name: read_json(directory / name))]


def choose_weights(names: Sequence[str], read: Callable[[str], dict[str, Any]]) -> list[str]:
    """Which of the files `names` hold the weights of a model, safetensors where there are any.

    `read` gives the table of a JSON file. Of several sets only the one that an index lists, or that has
    the usual name: repositories may hold the weights once more in another format.
    """
    for usual in ("model" + _SAFE, "pytorch_model" + _PICKLED):
        index = f"{usual}.index.json"
        if index in names and isinstance(listed := read(index).get("weight_map"), dict) and listed:
            return sorted({str(name) for name in listed.values()})
        if usual in names:
            return [usual]
    safe = [name for name in names if name.endswith(_SAFE)]
    return safe or [name for name in names if name.endswith(_PICKLED) and name != "training_args.bin"]


def conversion_of(source: Path) -> Path:
    """Where the litgpt checkpoint made of `source`, a GGUF file or Hugging Face directory, is kept."""
    files = [(file.name, file.stat()) for file in _source_files(source) if file.is_file()]
    where = source.resolve()
    state = (str(where), [(name, found.st_size, found.st_mtime_ns) for name, found in files])
    return (
        home() / "models" / "local" / f"{where.name}-{hashlib.sha256(repr(state).encode()).hexdigest()[:12]}"
    )
