"""The fine-tuning data, tokenised once and kept, and the order in which `litgpt finetune_lora` takes them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import torch
from litgpt.data import SFTDataset
from litgpt.prompts import prompt_styles
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, random_split

from fractopt.objective.base import UnusableError
from fractopt.objective.lora import records, tables
from fractopt.objective.lora.model import BaseModel
from fractopt.objective.lora.records import Record

Sample: TypeAlias = Mapping[str, torch.Tensor]  # "input_ids" (T,), "labels" (T,), and more of litgpt's
Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]  # token ids (b, T) and labels (b, T)
IGNORED = -100  # the label of a token that has no part in the loss


class Samples:
    """Tokenised samples, kept: those to train on, `count` of `lengths` tokens, and those set aside.

    `longest` is the length in tokens of the longest sample, the validation part included, as litgpt
    counts it. Raises UnusableError for data that are missing, malformed or too long for the model.
    """

    def __init__(self, data: tables.Data, base: BaseModel) -> None:
        if data.prompt_style not in prompt_styles:
            raise UnusableError(
                f"objective.data.prompt_style: expected one of {', '.join(prompt_styles)}, "
                f"got {data.prompt_style!r}"
            )
        train, validation = (_tokenised(part, data, base) for part in split(data))
        if not train:
            raise UnusableError("objective.data: there is no sample to train on")
        self.train, self.validation = train, validation
        self.count = len(train)
        self.lengths = [len(sample["input_ids"]) for sample in train]
        self._seed = data.split_seed
        self.longest = max(len(sample["input_ids"]) for sample in (*train, *validation))
        if self.longest > base.block_size:
            raise UnusableError(
                f"objective.data: the model takes {base.block_size} tokens, "
                f"the longest sample has {self.longest}"
            )

    @cached_property
    def digest(self) -> str:
        """Of all that is trained on, token by token."""
        found = hashlib.sha256()
        for sample in self.train:
            for tokens in (sample["input_ids"], sample["labels"]):
                found.update(tokens.numpy().tobytes() + b".")
        return found.hexdigest()

    def order(self, size: int, epochs: int) -> Iterator[list[int]]:
        """Indices of `size` samples at a time through `epochs` epochs, each in an order of its own.

        litgpt's order, a function of the split seed alone; the last batch of an epoch may be smaller.
        """
        loader: DataLoader[list[int]] = DataLoader(
            range(self.count),  # type: ignore[arg-type]
            batch_size=size,
            shuffle=True,
            generator=torch.Generator().manual_seed(self._seed),
            collate_fn=list,
            num_workers=0,  # workers would be forks of a process that may belong to an MPI job
        )
        for _ in range(epochs):
            yield from loader


def batch(samples: Sequence[Sample], indices: Iterable[int]) -> Batch:
    """Those of `samples`, padded at the right to the longest of them."""
    chosen = [samples[i] for i in indices]
    ids = pad_sequence([sample["input_ids"] for sample in chosen], batch_first=True)
    labels = [sample["labels"] for sample in chosen]
    return ids, pad_sequence(labels, batch_first=True, padding_value=IGNORED)


def split(data: tables.Data) -> tuple[Sequence[Record], Sequence[Record]]:
    """The records to train on and those set aside, divided by `split_seed` as litgpt divides them.

    litgpt divides alpaca-2k by another generator than its other data; here it is divided as they are.
    """
    where = records.find_data(data.name, data.path, data.revision, data.subset)
    if where.is_dir():
        if data.val_fraction is not None:
            raise UnusableError(
                f"objective.data.val_fraction: {where.absolute()} is a directory with its own validation "
                "file; leave val_fraction out"
            )
        train, validation = (records.read_part(where, part) for part in records.PARTS)
        return train, validation
    found = records.read_records(where)
    fraction = data.val_fraction
    if fraction is None:
        fraction = records.VAL_FRACTION.get(str(data.name), records.VAL_FRACTION_OF_OTHERS)
    generator = torch.Generator().manual_seed(data.split_seed)
    with warnings.catch_warnings():
        # The part that is set aside may be empty: only its longest sample counts here.
        warnings.filterwarnings("ignore", message="Length of split", category=UserWarning)
        shares = [1.0 - fraction, fraction]
        parts: Any = random_split(range(len(found)), shares, generator)  # type: ignore[arg-type]
    train, validation = ([found[i] for i in part.indices] for part in parts)
    return train, validation


def _tokenised(part: Sequence[Record], data: tables.Data, base: BaseModel) -> list[Sample]:
    dataset = SFTDataset(
        data=part,
        tokenizer=base.tokenizer,
        prompt_style=data.prompt_style,
        mask_prompt=data.mask_prompt,
        ignore_index=IGNORED,
    )
    return [dataset[i] for i in range(len(dataset))]
