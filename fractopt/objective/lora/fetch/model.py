"""Fetching the base model: from the hub, or from Hugging Face files on this machine, into litgpt's format."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from fractopt.objective.base import FETCH, AbsentError, UnusableError
from fractopt.objective.lora import architecture
from fractopt.objective.lora.fetch.hub import PUBLIC, Hub
from fractopt.objective.lora.fetch.job import Job, compared, named, remember, there
from fractopt.objective.lora.files import PACKAGED_MODELS, SMOLLM2, home
from fractopt.objective.lora.model_files import (
    GGUF_GROWS,
    DamagedError,
    choose_weights,
    conversion_of,
    downloaded_commit,
    find_checkpoint,
    gguf_of,
    is_ours,
    model_home,
    model_version,
    weight_files,
)
from fractopt.objective.lora.tables import Model

# Beside its weights, what makes a checkpoint of a model: for litgpt, and for those it is exported to.
BESIDE = (
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
TOKENIZER = "tokenizer"  # what the names of further ones begin with


def plan_model(model: Model, hub: Hub, update: bool) -> Job | str | None:
    """How to get the model; in words where it is, or None where it came with the package."""
    if model.name in PACKAGED_MODELS:
        return None
    try:
        here = find_checkpoint(model.name, model.path, model.revision)
    except DamagedError as error:
        if not is_ours(error.directory):
            raise
        shutil.rmtree(error.directory)  # ours, and made again in a moment
    except AbsentError as error:
        if error.absence.command != FETCH:
            raise
    else:
        version = model_version(here)
        if model.name in (None, SMOLLM2):
            return there(str(model.name or model.path), here, version)
        if not update:
            said = compared(hub, "model", model.name, model.revision, version)
            return there(model.name, here, version) + said
    gguf = gguf_of(model.name, model.path)
    if gguf is not None:
        source, target = gguf
        return _from_gguf(
            source, model.architecture or (model.name or source.stem).rpartition("/")[2], target
        )
    config = _architecture(model)
    return _from_files(model, config) if model.name is None else _from_hub(model.name, model, config, hub)


def _from_hub(name: str, model: Model, config: str, hub: Hub) -> Job:
    repository = hub.find("model", name, model.revision)
    target = model_home(name) / repository.commit
    names = sorted(path for path in repository.files if "/" not in path)
    weights = choose_weights(names, lambda path: hub.read_json(repository, path))
    if not weights:
        raise UnusableError(
            f"the model {name} has no weights in safetensors or torch's format: {PUBLIC}/{name}/tree/main"
        )
    beside = [path for path in names if path in BESIDE or path.startswith(TOKENIZER)]
    downloads = hub.missing_bytes(repository, [*beside, *weights])
    converts = _conversion_bytes(weights, sum(repository.files[path].size for path in weights))

    def do() -> str:
        if not target.is_dir():
            small, large = ([hub.download(repository, path) for path in paths] for paths in (beside, weights))
            _convert(large, small, config, target, {"name": name, "commit": repository.commit})
        remember(model_home(name), model.revision, repository.commit)
        return there(name, target, repository.commit)

    return Job(
        f"the model {name} at {named(model.revision, repository.commit)}, into {target}",
        () if target.is_dir() else ((hub.cache, downloads), (home(), converts)),
        do,
    )


def _from_files(model: Model, config: str) -> Job:
    source = Path(os.path.expanduser(str(model.path)))
    target = conversion_of(source)
    weights = weight_files(source)
    if absent := [file.name for file in weights if not file.is_file()]:
        raise UnusableError(f"objective.model.path: {source} lacks {', '.join(absent)} of its index")
    beside = [
        file
        for file in sorted(source.iterdir())
        if file.is_file() and (file.name in BESIDE or file.name.startswith(TOKENIZER))
    ]
    commit = downloaded_commit(source)
    note = {"source": str(source.resolve())} if commit is None else {"commit": commit}

    def do() -> str:
        _convert(weights, beside, config, target, note)
        return there(str(source), target, model_version(target))

    size = sum(file.stat().st_size for file in weights)
    converts = _conversion_bytes([file.name for file in weights], size)
    return Job(f"the model in {source}, converted into {target}", ((home(), converts),), do)


def _from_gguf(source: Path, name: str, target: Path) -> Job:
    def do() -> str:
        from fractopt.objective.lora.fetch.convert import convert_gguf  # with torch

        convert_gguf(source, name, target, {"source": str(source.resolve())})
        return there(name, target, model_version(target))

    size = GGUF_GROWS * source.stat().st_size
    return Job(f"the model in {source}, converted into {target}", ((home(), size),), do)


def _architecture(model: Model) -> str:
    """litgpt's name of the model."""
    unknown = architecture.unknown(model.name, model.path, model.architecture)
    if unknown:
        raise UnusableError(unknown)
    name = model.architecture or model.name or os.path.basename(os.path.realpath(str(model.path)))
    config = architecture.find(name)
    if config is None:
        raise UnusableError(
            "a model is converted by litgpt, which is not installed: pip install 'fractopt[llm]'"
        )
    return str(config.name)


def _conversion_bytes(weights: Sequence[str], size: int) -> int:
    """What a conversion writes: pickled weights twice, as safetensors in between."""
    return size * (2 if any(not name.endswith(".safetensors") for name in weights) else 1)


def _convert(
    weights: Sequence[Path], beside: Sequence[Path], config: str, target: Path, note: Mapping[str, str]
) -> None:
    from fractopt.objective.lora.fetch.convert import convert  # with torch

    convert(weights, beside, config, target, note)
