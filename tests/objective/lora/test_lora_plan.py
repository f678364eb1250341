"""Requests that share tokens get the numbers that each gets by itself, from models of every kind."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.llm

VOCABULARY = 4
# What litgpt's models differ in, as far as a forward pass goes.
LLAMA = {"norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP", "n_query_groups": 2, "bias": False}
NEOX = {"parallel_residual": True, "rotary_percentage": 0.25, "bias": True, "shared_attention_norm": False}
CAPPED = LLAMA | {
    "attention_logit_softcapping": 5.0,
    "final_logit_softcapping": 3.0,
    "scale_embeddings": True,
    "post_attention_norm": True,
    "post_mlp_norm": True,
}
TWO_TABLES = LLAMA | {"rope_local_base_freq": 100.0, "rope_indices": [0, 1], "norm_qk": True}
KINDS = {"llama": LLAMA, "neox": NEOX, "capped": CAPPED, "two tables": TWO_TABLES}


def model(kind: str) -> Any:
    """A small random GPT whose adapters change it."""
    import torch
    from litgpt.lora import GPT, Config

    fields = {"parallel_residual": False, "rotary_percentage": 1.0, "intermediate_size": 48} | KINDS[kind]
    adapters = {"lora_r": 2, "lora_alpha": 4, "lora_query": True, "lora_value": True, "lora_head": True}
    config = Config(
        name="",
        n_layer=2,
        n_embd=32,
        n_head=4,
        block_size=64,
        padded_vocab_size=VOCABULARY,
        **fields,
        **adapters,
    )
    torch.manual_seed(0)
    gpt = GPT(config)
    for weight in gpt.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return gpt.requires_grad_(False).eval()


def question(rng: np.random.Generator, contexts: int = 1, longest: int = 12) -> list[Any]:
    """Four choices, or one behind each of several contexts, of few different tokens: much is shared."""
    tokens = lambda low, high: rng.integers(0, VOCABULARY, rng.integers(low, high)).tolist()  # noqa: E731
    common = tokens(1, longest)
    if contexts > 1:
        last = tokens(1, 6)
        return [(("", ""), common + tokens(0, 6), last) for _ in range(contexts)]
    return [(("", ""), common, tokens(1, 8)) for _ in range(4)]


def planned(questions: list[Any], batch: int, longest: int, trees: bool) -> Any:
    import torch

    from fractopt.objective.lora.plan import plan

    return plan(questions, batch, longest, trees, torch.device("cpu"))


def alone(gpt: Any, request: Any, longest: int) -> tuple[float, bool]:
    """The log-likelihood of one request, and whether it is the greedy continuation, by definition."""
    import torch

    _, context, continuation = request
    tokens = torch.tensor((context + continuation)[-(longest + 1) :])
    logits = gpt(tokens[None, :-1])[0, -len(continuation) :]
    expected = tokens[-len(continuation) :]
    log_probability = torch.log_softmax(logits, -1)[torch.arange(len(expected)), expected]
    return float(log_probability.sum()), bool((logits.argmax(-1) == expected).all())


def greedy(gpt: Any, context: list[int]) -> list[int]:
    """The three tokens that the model itself goes on with."""
    import torch

    tokens = list(context)
    for _ in range(3):
        tokens.append(int(gpt(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(context) :]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_shared_changes_no_number(objective: Any, kind: str) -> None:
    from fractopt.objective.lora.lm import InMemoryLM

    gpt = model(kind)
    rng = np.random.default_rng(3)
    questions = [question(rng, contexts) for contexts in (1, 1, 1, 1, 1, 3, 2)]
    questions += [questions[0], [questions[1][0]]]  # the same again, and a part of it
    questions.append([(("", ""), [1, 2, 3], ending) for ending in ([0], greedy(gpt, [1, 2, 3]), [1, 1])])
    requests = [request for requests in questions for request in requests]
    lm = InMemoryLM(objective._base, 4, time.perf_counter)
    lm.model = gpt
    for longest in (64, 9):  # the latter loses tokens of some contexts
        forwards = planned(questions, 4, longest, trees=True)
        assert any(forward.depth is not None for forward in forwards)
        expected = [alone(gpt, request, longest) for request in requests]
        for way in (forwards, planned(questions, 4, longest, trees=False)):
            found = lm.run(way, len(requests))
            np.testing.assert_allclose([f[0] for f in found], [e[0] for e in expected], rtol=2e-6, atol=1e-5)
            assert [f[1] for f in found] == [e[1] for e in expected]
    assert expected[-2][1]


def test_logits_of_a_large_vocabulary_are_looked_at_piece_by_piece(
    objective: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fractopt.objective.lora import lm as module

    rng = np.random.default_rng(5)
    questions = [question(rng) for _ in range(6)]
    lm = module.InMemoryLM(objective._base, 8, time.perf_counter)
    lm.model = model("llama")
    whole = lm.run(planned(questions, 8, 64, True), 24)
    monkeypatch.setattr(module, "MOST_LOGITS", 3 * VOCABULARY + 1)  # three positions at once
    pieces = lm.run(planned(questions, 8, 64, True), 24)
    np.testing.assert_allclose([p[0] for p in pieces], [w[0] for w in whole], rtol=1e-6)
    assert [p[1] for p in pieces] == [w[1] for w in whole]


@pytest.mark.parametrize("seed", range(5))
def test_every_token_is_scored_once_in_its_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    questions = [question(rng, contexts) for contexts in rng.integers(1, 4, 20).tolist()]
    requests = [request for requests in questions for request in requests]
    forwards = planned(questions, 7, 64, trees=True)
    scored: Counter[int] = Counter()
    for forward in forwards:
        visible = forward.visible()
        for place, token, request in zip(forward.place, forward.token, forward.request, strict=True):
            row, column = forward.row[place], forward.column[place]
            seen = range(column + 1) if visible is None else visible[row, 0, column].nonzero()[:, 0].tolist()
            before = forward.ids[row, list(seen)].tolist()
            _, context, continuation = requests[request]
            assert before[: len(context)] == context
            said = before[len(context) :]
            assert continuation[: len(said) + 1] == [*said, token]
            depth = column if forward.depth is None else forward.depth[row, column]
            assert depth == len(before) - 1
            scored[request] += 1
    assert [scored[i] for i in range(len(requests))] == [len(request[2]) for request in requests]
    lengths = [forward.ids.shape[1] for forward in forwards]
    assert lengths == sorted(lengths, reverse=True)


def test_choices_share_their_context_and_one_token_costs_nothing_more() -> None:
    context = list(range(20, 50))
    endings = [[i, i, i] for i in range(4)]
    (tree,) = planned([[(("", ""), context, ending) for ending in endings]], 4, 64, trees=True)
    assert tree.tokens == 30 + 4 * 2
    assert tree.ids.shape == (1, 38)
    (rows,) = planned([[(("", ""), context, ending) for ending in endings]], 4, 64, trees=False)
    assert rows.tokens == 4 * 32
    # Of one token each, of two questions with the same context: an ordinary sequence for both.
    single = [
        [(("", ""), context, [i]) for i in range(4)],
        [(("", ""), context, [i]) for i in range(9, 5, -1)],
    ]
    (sequence,) = planned(single, 4, 64, trees=True)
    assert sequence.depth is None
    assert sequence.ids.tolist() == [context]
    # Where hardly anything is shared a mask is not worth its price.
    apart = [[(("", ""), [7], [i] * 20) for i in range(4)]]
    (forward,) = planned(apart, 4, 64, trees=True)
    assert forward.depth is None
    assert len(forward.ids) == 4
