"""The base and the merged model as transformers has them, by the name maps of litgpt's own converter.

What a model of the Hugging Face hub is called, and how its weights are cut, is litgpt's knowledge
(litgpt/scripts/convert_lit_checkpoint.py). Families are used here that it maps weight by weight, and whose
adapters PEFT can express.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from litgpt.scripts import convert_lit_checkpoint as converter

from fractopt.objective.lora.export.saved import ExportError
from fractopt.objective.lora.export.tuned import EMBEDDING, HEAD, Tuned, logits, plain

DIRECTORY = "merged"
PACKAGES = ("transformers", "peft")


class Family(Enum):
    """How transformers names the layers of a model."""

    LLAMA = "model.layers with q_proj, k_proj and v_proj"
    NEOX = "gpt_neox.layers with query_key_value"


def family(configuration: Any) -> Family:
    """Raises ExportError for a model that is neither."""
    name = str(configuration.name).lower()
    if configuration.latent_attention or name.startswith("phi") or "falcon" in name:
        raise _inexpressible(configuration)
    if configuration.mlp_class_name in ("LLaMAMLP", "GemmaMLP"):
        return Family.LLAMA
    if configuration.mlp_class_name == "GptNeoxMLP":
        return Family.NEOX
    raise _inexpressible(configuration)


def _inexpressible(configuration: Any) -> ExportError:
    return ExportError(
        f"{configuration.name} ({configuration.mlp_class_name}) is of a family whose adapters are not "
        "expressed as PEFT's yet, which are Llama-like models and GPT-NeoX: use --format litgpt"
    )


def _copier(configuration: Any) -> Callable[..., None]:
    """litgpt's map of this family's weights, chosen as its `convert_lit_checkpoint` does."""
    name = str(configuration.name)
    if family(configuration) is Family.NEOX:
        return partial(converter.copy_weights_gpt_neox, configuration)
    lower = name.lower()
    for prefixes, copy in (
        (("gemma-2",), converter.copy_weights_gemma_2),
        (("gemma-3",), converter.copy_weights_gemma_3),
        (("qwen2.5", "qwq"), converter.copy_weights_qwen_2_5),
        (("olmo-2-",), converter.copy_weights_olmo2),
        (("qwen3",), converter.copy_weights_qwen_3),
        (("",), converter.copy_weights_llama),
    ):
        if lower.startswith(prefixes):
            return partial(copy, configuration, untie_weights=False)
    raise AssertionError


def _transformers() -> Any:
    """Imported late, and untyped: its types are those of its largest model."""
    return import_module("transformers")


def missing_packages() -> list[str]:
    return [package for package in PACKAGES if find_spec(package) is None]


def model_of(tuned: Tuned, weights: Mapping[str, torch.Tensor], *, untie: bool) -> Any:
    """The model that litgpt's `weights` are, as transformers builds it from the base's config.json.

    Where the base ties its head to the embedding the model does so too, unless the two differ: then only
    with `untie`. Raises ExportError where the files or the weights do not make a model.
    """
    transformers = _transformers()

    with quiet():
        configuration = _configuration(tuned.base.directory)
        try:
            kind = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(configuration)]
        except KeyError as error:
            name = type(configuration).__name__
            raise ExportError(f"transformers has no causal language model for a {name}") from error
        state: dict[str, torch.Tensor] = {}
        try:
            _copier(tuned.configuration)(state, weights)
        except KeyError as error:
            raise ExportError(f"litgpt has no name in transformers for the weight {error}") from error
        if getattr(configuration, "tie_word_embeddings", False):
            if torch.equal(weights[EMBEDDING], weights[HEAD]):
                state = {name: weight for name, weight in state.items() if name not in _heads(state)}
            elif untie:
                configuration.tie_word_embeddings = False
            else:
                raise ExportError(
                    f"config.json in {tuned.base.directory.absolute()} ties the head to the embedding, but "
                    "their weights in lit_model.pth differ: the checkpoint is not what was published"
                )
        try:
            model, info = kind.from_pretrained(
                None,
                config=configuration,
                state_dict=plain(state),
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # to be said below
                output_loading_info=True,
            )
        except Exception as error:  # whatever an architecture's own code raises
            raise ExportError(
                f"transformers makes no model of config.json in {tuned.base.directory.absolute()} "
                f"({type(error).__name__}: {error})"
            ) from error
        wrong = sorted(
            {str(key[0] if isinstance(key, tuple) else key) for keys in info.values() for key in keys}
        )
        if wrong:
            raise ExportError(
                f"config.json in {tuned.base.directory.absolute()} describes another model than "
                f"model_config.yaml: its weights differ, {', '.join(wrong[:3])} for example"
            )
        return model.eval()


def _heads(state: Mapping[str, torch.Tensor]) -> set[str]:
    return {"lm_head.weight", "embed_out.weight"} & set(state)


def _configuration(directory: Path) -> Any:
    transformers = _transformers()

    if not (directory / "config.json").is_file():
        raise ExportError(
            f"{directory.absolute()} has no config.json, without which transformers knows no model: put the "
            "one of the Hugging Face hub there, or use --format litgpt"
        )
    try:
        return transformers.AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever an architecture's own checks raise
        raise ExportError(
            f"transformers does not read config.json in {directory.absolute()}: {error}"
        ) from error


class TransformersMerged:
    """merged/: the whole model for `AutoModelForCausalLM.from_pretrained`, in 32 bits."""

    name = "transformers merged"

    def write(self, tuned: Tuned, place: Path) -> None:
        model = model_of(tuned, tuned.merged(), untie=True)
        directory = place / DIRECTORY
        with quiet():
            model.save_pretrained(directory)
        for path in directory.iterdir():  # safetensors keeps what it writes from all others
            path.chmod((directory / "config.json").stat().st_mode)
        copy_tokenizer(tuned.base.directory, directory)

    def logits(self, tuned: Tuned, place: Path, prompts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        transformers = _transformers()

        with quiet():
            model = transformers.AutoModelForCausalLM.from_pretrained(
                place / DIRECTORY, dtype=torch.float32, local_files_only=True, trust_remote_code=False
            )
            return logits(model.eval(), prompts)


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def copy_tokenizer(base: Path, directory: Path) -> None:
    """The files beside the weights, as far as the base has them."""
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, directory / name)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what transformers and peft say to people who are at work with them."""
    logging: Any = import_module("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
