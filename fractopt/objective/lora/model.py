"""The base model: its litgpt checkpoint on this machine, kept in memory, and GPTs built around it.

Every GPT shares the resident base weights; only adapters are new. Nothing is merged and nothing is
written. Imported in the evaluation process only, after `runtime.prepare`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from litgpt.lora import GPT, Config, LoRALinear, lora_filter, mark_only_lora_as_trainable
from litgpt.tokenizer import Tokenizer

from fractopt.objective.base import UnusableError
from fractopt.objective.lora import tables
from fractopt.objective.lora.hyperparameters import Hyperparameters
from fractopt.objective.lora.model_files import find_checkpoint
from fractopt.objective.lora.shortcuts import quicken

DTYPES = {"32-true": torch.float32, "bf16-true": torch.bfloat16, "bf16-mixed": torch.float32}


def begins_with_bos(name: str) -> bool:
    """Whether litgpt has every sample of its model `name` begin with the token BOS, whatever its files say.

    litgpt goes by the name of the checkpoint's directory, which is a commit's where the model was fetched.
    """
    smollm = name.startswith("SmolLM2") and name.endswith("Instruct")
    return smollm or name.startswith(("Meta-Llama-3", "Llama-3"))


class BaseModel:
    """The untuned model's weights and tokenizer, resident on `device`: a GPU where there is one.

    Raises UnusableError where the checkpoint cannot be used.
    """

    def __init__(self, model: tables.Model, device: torch.device | None = None) -> None:
        self.directory = find_checkpoint(model.name, model.path, model.revision)
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = model.precision
        if self.precision == "auto":
            on_gpu = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
            self.precision = "bf16-true" if on_gpu else "32-true"
        self.dtype = DTYPES[self.precision]
        self.configuration = configuration = self._configuration()
        self.block_size = int(configuration.block_size)
        self.vocabulary = int(configuration.padded_vocab_size)
        # litgpt's sliding windows and latent attention have masks of their own.
        self.maskable = configuration.sliding_window_size is None and not configuration.latent_attention
        self.tokenizer = Tokenizer(self.directory)
        self.tokenizer.use_bos |= begins_with_bos(configuration.name)
        self.weights = self._load()
        self._check_names()

    def _load(self) -> dict[str, torch.Tensor]:
        path = self.directory / "lit_model.pth"
        try:
            weights = torch.load(path, mmap=True, weights_only=True, map_location="cpu")
            weights = weights.get("model", weights)
            return {
                name: weight.to(device=self.device, dtype=self.dtype, copy=True)
                for name, weight in weights.items()
            }
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # torch's own text goes on to explain how to run what is in the file.
            reason = str(error).partition("\n")[0].partition(". ")[0]
            raise UnusableError(
                f"objective.model: {path} does not hold a litgpt checkpoint but something else; "
                f"nothing of it was run ({type(error).__name__}: {reason})"
            ) from error

    def _check_names(self) -> None:
        # The load below is lenient because adapters are not in the checkpoint; a base weight that is
        # missing would then stay random without a word.
        with torch.device("meta"):
            gpt = GPT(self._configuration())
        keys = gpt.load_state_dict(self.weights, strict=False, assign=True)
        missing = [name for name in keys.missing_keys if "lora_" not in name]
        if missing or keys.unexpected_keys:
            raise UnusableError(
                f"objective.model: the weights in {self.directory.absolute()} do not fit its "
                f"model_config.yaml: missing {missing[:3]}, unexpected {keys.unexpected_keys[:3]}"
            )

    def _configuration(self, **adapter: Any) -> Config:
        path = self.directory / "model_config.yaml"
        try:
            return Config.from_file(path, **adapter)
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise UnusableError(
                f"objective.model: {path} is no configuration of litgpt ({type(error).__name__}: {reason})"
            ) from error

    def untuned(self) -> GPT:
        """The model without adapters."""
        return self.built(self._configuration(), {})

    def tuned(self, hyperparameters: Hyperparameters, adapter: Mapping[str, torch.Tensor]) -> GPT:
        """The model with adapters that were trained before; raises ValueError where these do not fit."""
        gpt = self.built(self._adapted(hyperparameters), adapter)
        for name, weight in gpt.named_parameters():
            weight.requires_grad_(name in adapter)  # as after training: they are counted by it
        return gpt

    def built(self, configuration: Config, adapter: Mapping[str, torch.Tensor]) -> GPT:
        """The model of `configuration`, its adapters being `adapter`, not to be trained.

        Raises ValueError where these have other names or shapes.
        """
        gpt = self._bare(configuration)
        expected = {name: w.shape for name, w in gpt.state_dict().items() if lora_filter(name, w)}
        if {name: weight.shape for name, weight in adapter.items()} != expected:
            raise ValueError("its weights have other names or shapes than the model's adapters")
        own = {name: w.to(device=self.device, dtype=self.dtype) for name, w in adapter.items()}
        gpt.load_state_dict(own, strict=False, assign=True)
        quicken(gpt)  # as in training: to the bit
        return gpt.requires_grad_(False)

    def with_adapters(self, hyperparameters: Hyperparameters, seed: int, *, as_litgpt: bool = False) -> GPT:
        """The model with fresh adapters, which change no logit until they are trained.

        With `as_litgpt` they are those of `litgpt finetune_lora` for the same seed. It draws random base
        weights in between, which are dropped for the real ones: one second in twenty of an evaluation of
        SmolLM2.
        """
        configuration = self._adapted(hyperparameters)
        torch.manual_seed(seed)
        if as_litgpt:
            with self.device, _default_dtype(self.dtype):
                gpt = GPT(configuration)
            gpt.load_state_dict(self.weights, strict=False, assign=True)
        else:
            gpt = self._bare(configuration)
            for layer in gpt.modules():
                if isinstance(layer, LoRALinear) and hasattr(layer, "lora_A"):
                    layer.to_empty(device=self.device, recurse=False)
                    layer.reset_parameters()
        mark_only_lora_as_trainable(gpt)
        quicken(gpt)
        return gpt

    def _bare(self, configuration: Config) -> GPT:
        """The model of `configuration` with the resident weights; its adapters have shapes only."""
        with torch.device("meta"), _default_dtype(self.dtype):
            gpt = GPT(configuration)
        gpt.load_state_dict(self.weights, strict=False, assign=True)
        # The rotary tables are no part of a checkpoint and were made on the meta device.
        gpt.cos, gpt.sin = gpt.rope_cache(device=self.device)
        return gpt

    def _adapted(self, hyperparameters: Hyperparameters) -> Config:
        return self._configuration(
            lora_r=hyperparameters.lora_rank,
            lora_alpha=hyperparameters.litgpt_alpha,
            lora_dropout=hyperparameters.lora_dropout,
            **{f"lora_{layer}": True for layer in hyperparameters.targets},
        )

    @contextmanager
    def forward_precision(self) -> Iterator[None]:
        """Autocast around a forward pass, where the precision is a mixed one."""
        mixed = self.precision == "bf16-mixed"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
            yield


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
