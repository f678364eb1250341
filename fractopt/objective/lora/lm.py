"""Log-likelihoods of a model in memory, as lm-eval wants them.

lm-eval builds the requests, splits context from continuation and judges the answers; requests are
encoded once, and only the forward passes are repeated for each model. Continuations that
differ in their last token alone share one forward pass, as in lm-eval's own Hugging Face model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from litgpt.lora import GPT
from lm_eval.api.model import TemplateLM

from fractopt.objective.lora.model import BaseModel
from fractopt.space import IntArray

# Text pair, tokens of the context, tokens of the continuation: lm-eval's encoded request.
Request: TypeAlias = tuple[tuple[str, str], list[int], list[int]]


@dataclass(frozen=True)
class Forward:
    """One batch of a scoring pass.

    ids (b, T) are the contexts with all but the last token of the continuations, padded at the right.
    row, position, token (on the device) and request (n,) list every token to be scored: the
    log-probability of `token` at [row, position] belongs to the request of that index.
    """

    ids: torch.Tensor
    row: torch.Tensor
    position: torch.Tensor
    token: torch.Tensor
    request: IntArray


def plan(requests: list[Request], batch: int, longest: int, device: torch.device) -> list[Forward]:
    """The batches that score `requests`: longest first, ties by tokens, as lm-eval orders them.

    A request of more than `longest` + 1 tokens loses the first ones.
    """
    shared: dict[tuple[int, ...], list[int]] = {}
    for index, (_, context, continuation) in enumerate(requests):
        shared.setdefault(tuple(context + continuation[:-1]), []).append(index)

    def leader(indices: list[int]) -> Request:
        return requests[max(indices, key=lambda i: len(requests[i][2]))]

    def order(indices: list[int]) -> tuple[int, tuple[int, ...]]:
        _, context, continuation = leader(indices)
        return -len(context + continuation), tuple(context + continuation)

    groups = sorted(shared.values(), key=order)
    forwards = []
    for start in range(0, len(groups), batch):
        chunk = groups[start : start + batch]
        inputs = []
        scored: list[tuple[int, int, int, int]] = []  # row, position, token, request
        for row, indices in enumerate(chunk):
            _, context, continuation = leader(indices)
            tokens = (context + continuation)[-(longest + 1) :][:-1]
            inputs.append(torch.tensor(tokens))
            for index in indices:
                last = requests[index][2]
                first = len(tokens) - len(last)
                scored += [(row, first + k, token, index) for k, token in enumerate(last)]
        ids = torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True).to(device)
        columns = torch.tensor(scored).T  # (4, n)
        rows, positions, targets = columns[:3].to(device).unbind()
        forwards.append(Forward(ids, rows, positions, targets, columns[3].numpy()))
    return forwards


class InMemoryLM(TemplateLM):  # type: ignore[misc]
    """lm-eval's view of a litgpt model in memory; `model` is whatever is to be scored now."""

    def __init__(self, base: BaseModel, batch: int, clock: Callable[[], float]) -> None:
        super().__init__()
        self._base = base
        self._batch = batch
        self._clock = clock
        self.model: GPT | None = None
        self.seconds = 0.0  # in forward passes, since the last reset

    @property
    def eot_token_id(self) -> int:
        return int(self._base.tokenizer.eos_id)

    @property
    def prefix_token_id(self) -> int:
        bos = self._base.tokenizer.bos_id
        return self.eot_token_id if bos is None else int(bos)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        tokenizer = self._base.tokenizer
        if tokenizer.backend == "huggingface":
            # The file's own rule for special tokens, as the Hugging Face model has it in lm-eval;
            # litgpt's `encode` has another rule for some models.
            special = add_special_tokens is not False
            if special and add_special_tokens is None and string.startswith(self._prefix()):
                special = False
            ids: list[int] = tokenizer.processor.encode(string, add_special_tokens=special).ids
            return ids
        bos = None if add_special_tokens is None else add_special_tokens
        encoded: list[int] = tokenizer.encode(string, bos=bos).tolist()
        return encoded

    def _prefix(self) -> str:
        return str(self._base.tokenizer.processor.id_to_token(self.prefix_token_id))

    def encode(self, instances: list[Any]) -> list[Request]:
        """lm-eval's instances as token lists, split by its own rule."""
        requests: list[Request] = []
        for context, continuation in (instance.args for instance in instances):
            if context:
                pair = self._encode_pair(context, continuation)
            else:  # as in lm-eval's `loglikelihood`
                tokens = self.tok_encode(continuation, add_special_tokens=False)
                begins = tokens[0] == self.prefix_token_id
                pair = (tokens[:1], tokens[1:]) if begins else ([self.prefix_token_id], tokens)
            requests.append(((context, continuation), *pair))
        return requests

    def plan(self, requests: list[Request]) -> list[Forward]:
        return plan(requests, self._batch, self._base.block_size, self._base.device)

    def _loglikelihood_tokens(self, requests: list[Request], **kwargs: Any) -> list[tuple[float, bool]]:
        return self.run(self.plan(requests), len(requests))

    @torch.no_grad()
    def run(
        self, forwards: list[Forward], count: int, progress: Callable[[int, int], None] | None = None
    ) -> list[tuple[float, bool]]:
        """(log-likelihood, is the greedy continuation) of each of `count` requests."""
        assert self.model is not None
        self.model.eval()
        # Summed on the host, in order: a GPU's scattered sums differ from one time to the next.
        likelihood = np.zeros(count)
        greedy = np.ones(count, dtype=bool)
        for done, f in enumerate(forwards, start=1):
            started = self._clock()
            with self._base.forward_precision():
                logits = self.model(f.ids)  # (b, T, vocabulary)
            scored = logits[f.row, f.position].float()  # (n, vocabulary)
            picked = torch.log_softmax(scored, dim=-1).gather(1, f.token[:, None])[:, 0]
            missed = scored.argmax(dim=-1) != f.token
            np.add.at(likelihood, f.request, picked.double().cpu().numpy())
            greedy[f.request[missed.cpu().numpy()]] = False
            self.seconds += self._clock() - started
            if progress is not None:
                progress(done, len(forwards))
        return list(zip(likelihood.tolist(), greedy.tolist(), strict=True))

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError("only multiple-choice tasks are scored")

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        raise NotImplementedError("only multiple-choice tasks are scored")
