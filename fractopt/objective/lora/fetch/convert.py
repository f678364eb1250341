"""Files of a model into a litgpt checkpoint, whole in its place or not there. Needs torch and litgpt.

Hugging Face files go through litgpt's own converter. Weights in torch's old format are read without running
what may be hidden in them: litgpt's converter would unpickle them.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint
from safetensors.torch import save_file

from fractopt.durable import replace_file, sync_directory
from fractopt.objective.base import UnusableError
from fractopt.objective.lora.checkpoint import write_checkpoint
from fractopt.objective.lora.gguf import GGUF
from fractopt.objective.lora.model_files import NOTE

ASIDE = ".tmp"  # what the name of a checkpoint that is being made ends with


def convert(
    weights: Sequence[Path], others: Sequence[Path], name: str, target: Path, note: Mapping[str, Any]
) -> None:
    """Make the litgpt checkpoint `target` of the files `weights`, with copies of the files `others`.

    `name` is litgpt's of the model, `note` is kept beside the checkpoint. Raises UnusableError for files that
    do not hold such a model.
    """
    with _making(target, note) as aside:
        for file in others:
            shutil.copyfile(file, aside / file.name)
        linked = [_as_safetensors(file, aside / file.name) for file in weights]
        said = io.StringIO()
        try:
            with redirect_stdout(said), redirect_stderr(said):
                convert_hf_checkpoint(aside, model_name=name)
        except Exception as error:  # a missing or an unexpected weight is a KeyError, and so on
            raise UnusableError(
                f"litgpt cannot convert {weights[0].parent} as a {name} ({type(error).__name__}: {error})"
            ) from error
        for file in linked:
            file.unlink()
        _check(aside, weights[0].parent)


def convert_gguf(source: Path, name: str, target: Path, note: Mapping[str, Any]) -> None:
    """Make the litgpt checkpoint `target` of the GGUF file `source`; `name` and `note` as above."""
    with _making(target, note) as aside:
        write_checkpoint(GGUF(source), name, aside)


@contextmanager
def _making(target: Path, note: Mapping[str, Any]) -> Iterator[Path]:
    """A directory to put files into; it becomes `target`, durably, unless somebody was faster."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*{ASIDE}"):
        shutil.rmtree(left, ignore_errors=True)  # of a conversion that was killed
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}{ASIDE}")
    aside.mkdir()
    try:
        yield aside
        sizes = {file.name: file.stat().st_size for file in sorted(aside.iterdir())}
        replace_file(aside / NOTE, json.dumps({**note, "files": sizes}, indent=1).encode() + b"\n")
        for file in aside.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        sync_directory(aside)
        try:
            aside.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            shutil.rmtree(aside)  # somebody else was faster
        sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _as_safetensors(source: Path, place: Path) -> Path:
    """What the converter is to find at `place`: a link to `source`, or its weights in safetensors."""
    if source.suffix == ".safetensors":
        place.symlink_to(source.resolve())
        return place
    try:
        state = torch.load(source, mmap=True, weights_only=True, map_location="cpu")
        copies = {key: weight.clone().contiguous() for key, weight in state.items()}
    except Exception as error:
        raise UnusableError(
            f"{source} does not hold weights alone; nothing of it was run ({type(error).__name__})"
        ) from error
    place = place.with_suffix(".safetensors")
    save_file(copies, place)
    return place


def _check(directory: Path, source: Path) -> None:
    """Raise UnusableError where a weight is missing or has another shape than litgpt's model."""
    config = Config.from_file(directory / "model_config.yaml")
    with torch.device("meta"):
        expected = GPT(config).state_dict()
    found = torch.load(directory / "lit_model.pth", mmap=True, weights_only=True, map_location="meta")
    wrong = [
        name
        for name in {**expected, **found}
        if name not in found or name not in expected or found[name].shape != expected[name].shape
    ]
    if wrong:
        raise UnusableError(
            f"{source} holds another model than litgpt's {config.name}: {', '.join(wrong[:3])} differ; say "
            "in objective.model.architecture which one it is built like"
        )
