"""Scores are lm-eval's: against its own Hugging Face model, and against its own evaluation loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fractopt.objective.base import UnusableError, silent
from fractopt.objective.lora.files import TINY_DIRECTORY
from fractopt.objective.lora.hyperparameters import Hyperparameters
from fractopt.objective.lora.settings import LoraSettings
from fractopt.trial import Part

pytestmark = pytest.mark.llm

POINT = Hyperparameters(1e-2, 8, 16, 0.1, 0.01)


@pytest.fixture(scope="module")
def huggingface() -> Any:
    """The tiny model as lm-eval's Hugging Face model, converted by litgpt in memory."""
    pytest.importorskip("accelerate")
    import json

    import torch
    from litgpt.config import Config
    from litgpt.scripts.convert_lit_checkpoint import copy_weights_llama
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    weights = torch.load(TINY_DIRECTORY / "lit_model.pth", weights_only=True)
    config = Config.from_file(TINY_DIRECTORY / "model_config.yaml")
    converted: dict[str, Any] = {}
    copy_weights_llama(config, converted, {name: weight.float() for name, weight in weights.items()})
    model = LlamaForCausalLM(LlamaConfig(**json.loads((TINY_DIRECTORY / "config.json").read_text())))
    model.load_state_dict(converted)
    return HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(TINY_DIRECTORY), batch_size=64)


def instances(pairs: list[tuple[str, str]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance("loglikelihood", {}, pair, idx=i) for i, pair in enumerate(pairs)]


def test_log_likelihoods_are_those_of_the_hugging_face_model(objective: Any, huggingface: Any) -> None:
    contexts = ["Tell the hue of", "The home of Bola is the", "Answer:\n", "  ", ""]
    endings = [" amber", " black", " green river", " castle.", " castle and a tower"]
    requests = instances([(context, ending) for context in contexts for ending in endings])
    lm = objective._scorer._lm
    lm.model = objective._base.untuned()
    ours = lm.loglikelihood(requests, disable_tqdm=True)
    theirs = huggingface.loglikelihood(requests, disable_tqdm=True)
    np.testing.assert_allclose([o[0] for o in ours], [t[0] for t in theirs], rtol=0, atol=2e-4)
    assert [o[1] for o in ours] == [t[1] for t in theirs]

    # What the objective itself does: a question's requests share what they have in common.
    encoded = lm.encode(requests)
    questions = [encoded[i : i + len(endings)] for i in range(0, len(encoded), len(endings))]
    planned = lm.run(lm.plan(questions), len(requests))
    np.testing.assert_allclose([p[0] for p in planned], [t[0] for t in theirs], rtol=0, atol=2e-4)
    assert [p[1] for p in planned] == [t[1] for t in theirs]


def test_answers_of_the_base_are_those_of_the_hugging_face_model(objective: Any, huggingface: Any) -> None:
    from lm_eval import simple_evaluate

    questions = searched(objective)
    answers = questions.answer(objective._base.untuned(), silent)
    (numbers,) = questions._numbers
    result = reference(simple_evaluate, huggingface, numbers.tolist())
    for score, right in answers.items():
        assert [sample[score] for sample in result["samples"]["tiny"]] == right.tolist()
        assert result["results"]["tiny"][f"{score},none"] == np.mean(right)


def test_answers_of_a_fine_tuned_model_are_those_of_lm_evals_own_loop(objective: Any) -> None:
    from lm_eval import simple_evaluate

    model = objective._trainer(POINT, 1337, silent).model
    questions = searched(objective)
    answers = questions.answer(model, silent)
    objective._scorer._lm.model = model
    result = reference(simple_evaluate, objective._scorer._lm, questions._numbers[0].tolist())
    for score, right in answers.items():
        assert [sample[score] for sample in result["samples"]["tiny"]] == right.tolist()


def searched(objective: Any) -> Any:
    return objective._scorer._questions[Part.SEARCH][0]


def reference(simple_evaluate: Any, lm: Any, numbers: list[int]) -> Any:
    from lm_eval.tasks import TaskManager

    from fractopt.objective.lora.tiny.questions import TinyTask

    return simple_evaluate(
        model=lm,
        tasks=[TinyTask("tiny", TINY_DIRECTORY)],
        task_manager=TaskManager(include_defaults=False),
        samples={"tiny": numbers},
        bootstrap_iters=0,
    )


def test_choices_of_one_token_share_a_forward_pass(objective: Any) -> None:
    questions = searched(objective)
    assert len(questions) == 64
    # Two questions of one context, with other choices, share it as well.
    assert sum(len(forward.ids) for block in questions._forwards for forward in block) <= len(questions)


def test_a_score_that_the_task_does_not_give_is_unusable(
    short: Callable[..., LoraSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.api.metrics import mean

    from fractopt.objective.lora.objective import LoraObjective
    from fractopt.objective.lora.tiny.questions import TinyTask

    monkeypatch.setattr(TinyTask, "aggregation", lambda self: {"acc": mean, "acc_norm": None})
    with pytest.raises(UnusableError, match="the task 'tiny' gives acc, got 'tiny/acc_norm'"):
        LoraObjective(short(metric="tiny/acc_norm", test_metrics=()))


def test_an_unknown_task_is_unusable(tmp_path: Any) -> None:
    from fractopt.objective.lora.tasks import load_tasks

    with pytest.raises(UnusableError, match=r"no task '.*nothing.yaml'"):
        load_tasks(str(tmp_path / "nothing.yaml"), 0)
