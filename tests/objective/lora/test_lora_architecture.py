"""litgpt's models by name and their sizes, against litgpt itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fractopt.objective.lora import architecture

pytest.importorskip("litgpt")
pytestmark = pytest.mark.llm


def test_the_table_is_read_without_torch() -> None:
    program = (
        "import sys; from fractopt.objective.lora import architecture;"
        "assert architecture.find('meta-llama/Llama-3.2-1B').n_layer == 16;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_model_is_found_by_each_of_its_names() -> None:
    for name in ("meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-8B", "Llama-3.1-8B"):
        assert architecture.find(name).name == "Llama-3.1-8B"
    assert architecture.find("nobody/nothing") is None


def test_what_litgpt_does_not_know_is_said_with_the_nearest() -> None:
    assert architecture.unknown("meta-llama/Llama-3.2-1B", None, None) == ""
    assert architecture.unknown("nobody/nothing", None, "Llama-3.2-1B") == ""
    assert architecture.unknown(None, "models/Llama-3.2-1B/", None) == ""
    said = architecture.unknown("meta-llama/Lama-3.2-1B", None, None)
    assert "no model 'meta-llama/Lama-3.2-1B': did you mean meta-llama/Llama-3.2-1B" in said
    assert "objective.model.architecture" in architecture.unknown(None, "mine", None)
    said = architecture.unknown("nobody/nothing", None, "Llama-3.2-1")
    assert "did you mean meta-llama/Llama-3.2-1B" in said


@pytest.mark.parametrize("name", ["Llama-3.2-1B", "pythia-160m", "Gemma-2-2b", "Qwen3-30B-A3B", "phi-2"])
def test_sizes_are_those_of_litgpts_own_models(name: str) -> None:
    import torch
    from litgpt.lora import GPT, Config, mark_only_lora_as_trainable

    targets = ("query", "value", "projection", "mlp", "head")
    few = {"n_expert": 4, "n_expert_per_token": 2} if name.startswith("Qwen3-30B") else {}
    config = Config.from_name(
        name, n_layer=2, lora_r=3, **few, **{f"lora_{target}": True for target in targets}
    )
    with torch.device("meta"):
        model = GPT(config)
    mark_only_lora_as_trainable(model)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    others = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert architecture.parameters(config) == pytest.approx(others, rel=2e-3)
    assert architecture.adapter_parameters(config, 3, targets) == trainable
