"""The fine-tuning data, tokenised once and kept; batches in the order `litgpt finetune_lora` takes them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from litgpt.data import JSON, Alpaca
from litgpt.prompts import prompt_styles
from torch.utils.data import DataLoader

from fractopt.objective.base import UnusableError
from fractopt.objective.lora import files, settings
from fractopt.objective.lora.model import BaseModel

Batch = tuple[torch.Tensor, torch.Tensor]  # token ids (b, T) and labels (b, T)


class Samples:
    """Tokenised samples, and the batches made of them.

    `longest` is the length in tokens of the longest sample, the validation part included, as litgpt
    counts it. Raises UnusableError for data that are missing, malformed or too long for the model.
    """

    def __init__(self, data: settings.Data, base: BaseModel) -> None:
        if data.prompt_style not in prompt_styles:
            raise UnusableError(
                f"objective.data.prompt_style: expected one of {', '.join(prompt_styles)}, "
                f"got {data.prompt_style!r}"
            )
        self._module = _module(data)
        self._module.connect(base.tokenizer, batch_size=1, max_seq_length=None)
        try:
            with warnings.catch_warnings():
                # The validation part may be empty: only its longest sample counts here.
                warnings.filterwarnings("ignore", message="Length of split", category=UserWarning)
                self._module.setup()
            train = [self._module.train_dataset[i] for i in range(len(self._module.train_dataset))]
            validation = self._module.test_dataset
            lengths = [len(sample["input_ids"]) for sample in train]
            lengths += [len(validation[i]["input_ids"]) for i in range(len(validation))]
        except (KeyError, TypeError, AttributeError, ValueError, FileNotFoundError) as error:
            raise UnusableError(
                'objective.data: expected JSON records with text under "instruction" and "output", in one '
                f"file or in train.json and val.json; got {type(error).__name__}: {error}"
            ) from error
        if not train:
            raise UnusableError("objective.data: there is no sample to train on")
        self._module.train_dataset = train
        self.count = len(train)
        self.longest = max(lengths)
        if self.longest > base.block_size:
            raise UnusableError(
                f"objective.data: the model takes {base.block_size} tokens, "
                f"the longest sample has {self.longest}"
            )

    def batches(self, size: int, epochs: int) -> Iterator[Batch]:
        """Batches of `size` samples through `epochs` epochs, each epoch in an order of its own.

        The order is a function of the split seed alone, never of the training's random numbers.
        """
        loader = self._loader(size)
        for _ in range(epochs):
            for batch in loader:
                yield batch["input_ids"], batch["labels"]

    def longest_batch(self, size: int) -> Batch:
        """A batch of `size` copies of the longest training sample: no batch needs more memory."""
        sample = max(self._module.train_dataset, key=lambda sample: len(sample["input_ids"]))
        return sample["input_ids"].repeat(size, 1), sample["labels"].repeat(size, 1)

    def batches_per_epoch(self, size: int) -> int:
        return -(-self.count // size)

    def _loader(self, size: int) -> DataLoader[Any]:
        self._module.batch_size = size
        loader: DataLoader[Any] = self._module.train_dataloader()
        return loader


def _module(data: settings.Data) -> Any:
    shared: dict[str, Any] = {
        "prompt_style": data.prompt_style,
        "mask_prompt": data.mask_prompt,
        "seed": data.split_seed,
        "num_workers": 0,  # workers would be forks of a process that may belong to an MPI job
    }
    path = files.find_data(data.name, data.path)
    if data.name == "alpaca":
        if data.val_fraction is not None:
            shared["val_split_fraction"] = data.val_fraction
        return Alpaca(download_dir=path.parent, file_name=path.name, **shared)
    fraction = data.val_fraction
    if path.is_file() and fraction is None:
        fraction = 0.05  # litgpt's own, which it announces by a warning
    if path.is_dir() and fraction is not None:
        raise UnusableError(
            f"objective.data.val_fraction: {path.absolute()} is a directory with its own validation file; "
            "leave val_fraction out"
        )
    return JSON(json_path=path, val_split_fraction=fraction, **shared)
