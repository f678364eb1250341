"""Log-likelihoods of a model in memory, as lm-eval wants them.

lm-eval builds the requests, splits context from continuation and judges the answers; requests are
encoded once, and only the forward passes are repeated for each model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from litgpt.lora import GPT
from litgpt.model import do_softcapping
from lm_eval.api.model import TemplateLM

from fractopt.objective.lora.model import BaseModel
from fractopt.objective.lora.plan import Forward, Request, plan
from fractopt.objective.lora.shortcuts import Counted

# Numbers in the logits of the positions that are looked at together: an eighth of a gigabyte of them.
MOST_LOGITS = 1 << 25


class InMemoryLM(TemplateLM):  # type: ignore[misc]
    """lm-eval's view of a litgpt model in memory; `model` is whatever is to be scored now."""

    def __init__(self, base: BaseModel, batch: int, clock: Callable[[], float]) -> None:
        super().__init__()
        self._base = base
        self._batch = batch
        self._clock = clock
        self.model: GPT | None = None
        self.passes: list[
            tuple[float, int]
        ] = []  # seconds and tokens of each forward pass since the last reset

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

    def plan(self, questions: Sequence[Sequence[Request]]) -> list[Forward]:
        """The forward passes for the requests of each question; see `plan.plan`."""
        return plan(questions, self._batch, self._base.block_size, self._base.maskable, self._base.device)

    def _loglikelihood_tokens(self, requests: list[Request], **kwargs: Any) -> list[tuple[float, bool]]:
        return self.run(self.plan([[request] for request in requests]), len(requests))

    @torch.no_grad()
    def run(
        self, forwards: list[Forward], count: int, progress: Callable[[int], None] | None = None
    ) -> list[tuple[float, bool]]:
        """(log-likelihood, is the greedy continuation) of each of `count` requests."""
        assert self.model is not None
        self.model.eval()
        # Summed on the host, in order: a GPU's scattered sums differ from one time to the next.
        likelihood = np.zeros(count)
        greedy = np.ones(count, dtype=bool)
        for done, forward in enumerate(forwards, start=1):
            started = self._clock()
            picked, missed = self._scored(self.model, forward)
            np.add.at(likelihood, forward.request, picked.double().cpu().numpy())
            greedy[forward.request[missed.cpu().numpy()]] = False
            self.passes.append((self._clock() - started, forward.tokens))
            if progress is not None:
                progress(done)
        return list(zip(likelihood.tolist(), greedy.tolist(), strict=True))

    def _scored(self, model: GPT, forward: Forward) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability (n,) of each token to be scored, and whether (n,) another token is likelier."""
        picked = torch.empty(len(forward.token), device=forward.token.device)
        missed = torch.empty(len(forward.token), dtype=torch.bool, device=forward.token.device)
        with self._base.forward_precision():
            states = _states(model, forward)  # (p, width)
            most = max(1, MOST_LOGITS // model.config.padded_vocab_size)
            for first in range(0, len(states), most):
                logits = model.lm_head(states[first : first + most])  # (at most `most`, vocabulary)
                if model.config.final_logit_softcapping is not None:
                    logits = do_softcapping(logits, model.config.final_logit_softcapping)
                logits = logits.float()
                here = ((forward.place >= first) & (forward.place < first + most)).nonzero()[:, 0]
                place, token = forward.place[here] - first, forward.token[here]
                picked[here] = logits[place, token] - logits.logsumexp(dim=-1)[place]
                missed[here] = logits.argmax(dim=-1)[place] != token
        return picked, missed

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError("only multiple-choice tasks are scored")

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        raise NotImplementedError("only multiple-choice tasks are scored")


def _states(model: GPT, forward: Forward) -> torch.Tensor:
    """The hidden states (p, width) that `forward` looks at: litgpt's own forward pass as far as its head.

    Of the last block only what leads to them is computed. A row that is a tree brings its own positions and
    mask, which litgpt's pass has no room for.
    """
    counted = Counted(model)
    counted.at = forward.row * forward.ids.shape[1] + forward.column
    try:
        if forward.depth is None:
            length = forward.ids.shape[1]
            cos, sin = model.cos[None, :length], model.sin[None, :length]
        else:
            cos, sin = model.cos[forward.depth], model.sin[forward.depth]  # (b, T, n[, kinds of tables])
        x = model.transformer.wte(forward.ids)
        if model.config.scale_embeddings:
            x = x * torch.tensor(model.config.n_embd**0.5, dtype=x.dtype)
        mask = forward.visible()
        if mask is not None and model.config.attention_logit_softcapping is not None:
            # litgpt adds it to the scores, where torch's own attention knows what a truth value means.
            mask = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill_(
                ~mask, torch.finfo(x.dtype).min
            )
        tables = model.config.rope_indices
        for index, block in enumerate(model.transformer.h):
            if tables is None:
                x = block(x, cos, sin, mask)
            else:
                x = block(x, cos[..., tables[index]], sin[..., tables[index]], mask)
        states: torch.Tensor = model.transformer.ln_f(x)[0]
        return states
    finally:
        counted.remove()
