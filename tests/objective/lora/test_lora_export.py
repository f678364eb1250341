"""Exported adapters: loaded by the program that it is for, each form gives the tuned model's logits."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toys

from fractopt.objective.lora.export.saved import ExportError, Saved
from fractopt.objective.lora.settings import LoraSettings

pytestmark = [
    pytest.mark.llm,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(package) for package in ("transformers", "peft")),
        reason="needs pip install 'fractopt[export]'",
    ),
]

TRIAL, SEED = 7, 1337
LLAMA_HEAD = {"targets": "query+key+value+head"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], toys.Toy]:
    made: dict[str, toys.Toy] = {}

    def get(name: str) -> toys.Toy:
        if name not in made:
            place = tmp_path_factory.mktemp(name)
            made[name] = toys.neox(place) if name == "neox" else toys.llama(place, tied=name == "tied")
        return made[name]

    return get


def tuned(settings: LoraSettings, params: dict[str, Any], **options: Any) -> Any:
    from fractopt.objective.lora.export.save import load_base, load_tuned

    params = toys.PARAMS | params
    data = toys.kept(settings, TRIAL, SEED, params, **options)
    return load_tuned(data, TRIAL, SEED, params, settings, load_base(settings))


def save(model: Any, settings: LoraSettings, out: Path, form: Any = "both", merge: bool = True) -> Saved:
    from fractopt.objective.lora.export.save import save

    return save(model, settings, out, form, merge, lambda saved: "the card\n")


def difference(model: Any, other: Any) -> float:
    """From the tuned model's logits, of another model's."""
    from fractopt.objective.lora.export.transformers_form import quiet
    from fractopt.objective.lora.export.tuned import largest, logits

    with quiet():
        return largest(logits(model.model, model.prompts()), logits(other.eval(), model.prompts()))


@pytest.mark.parametrize(
    ("name", "precision", "params"),
    [
        ("tied", "32-true", LLAMA_HEAD),
        ("untied", "bf16-true", {"targets": "all", "rslora": True}),
        ("neox", "32-true", {"targets": "query+value+mlp+head"}),
    ],
)
def test_every_form_computes_what_the_tuned_model_does(
    toy: Callable[[str], toys.Toy], tmp_path: Path, name: str, precision: Any, params: dict[str, Any]
) -> None:
    import safetensors.torch
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from fractopt.objective.lora.export.transformers_form import quiet

    settings = toy(name).settings()
    settings = replace(settings, model=replace(settings.model, precision=precision))
    model = tuned(settings, params)
    out = tmp_path / "new" / "out"
    saved = save(model, settings, out)
    assert list(saved.differences) == [
        *("litgpt adapter", "litgpt merged", "PEFT adapter", "transformers merged")
    ]
    assert max(saved.differences.values()) < 1e-5 * max(saved.scale, 1.0) < saved.effect / 1000
    assert (saved.tied, saved.precision) == (name == "tied", precision)
    assert (out / "README.md").read_text() == "the card\n"
    kept = safetensors.torch.load_file(out / "adapter_model.safetensors").values()
    assert {weight.dtype for weight in kept} == {torch.bfloat16 if "bf16" in precision else torch.float32}
    # As a user has them: the published model, and PEFT on top; the merged model by itself.
    with quiet():
        published = AutoModelForCausalLM.from_pretrained(toy(name).published)
        assert difference(model, published) > saved.effect / 2
        assert difference(model, PeftModel.from_pretrained(published, out)) < 1e-5
        merged = AutoModelForCausalLM.from_pretrained(out / "merged")
    assert difference(model, merged) < 1e-5
    embedding = model.base.weights["transformer.wte.weight"]
    assert torch.equal(merged.get_input_embeddings().weight, embedding)
    assert not merged.config.tie_word_embeddings


def test_a_tied_model_whose_head_was_not_tuned_stays_tied(
    toy: Callable[[str], toys.Toy], tmp_path: Path
) -> None:
    import safetensors.torch

    settings = toy("tied").settings()
    save(tuned(settings, {"targets": "query"}), settings, tmp_path / "out", "peft")
    merged = tmp_path / "out" / "merged"
    assert json.loads((merged / "config.json").read_text())["tie_word_embeddings"]
    assert "lm_head.weight" not in safetensors.torch.load_file(merged / "model.safetensors")
    assert not (tmp_path / "out" / "litgpt").exists()


def test_litgpts_own_merge_takes_the_directory_and_comes_to_the_same(
    toy: Callable[[str], toys.Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from lightning.fabric.plugins.environments import MPIEnvironment
    from litgpt.prompts import Alpaca, load_prompt_style
    from litgpt.scripts.merge_lora import merge_lora

    # It would start MPI in this process.
    monkeypatch.setattr(MPIEnvironment, "detect", staticmethod(lambda: False))
    settings = toy("untied").settings()
    save(tuned(settings, {"targets": "all", "rslora": True}), settings, tmp_path / "out", "litgpt")
    directory = tmp_path / "out" / "litgpt"
    ours = torch.load(directory / "lit_model.pth", weights_only=True)
    (directory / "lit_model.pth").unlink()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        merge_lora(directory)
    theirs = torch.load(directory / "lit_model.pth", weights_only=True)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-7) for name in ours)
    assert isinstance(load_prompt_style(directory), Alpaca)


def test_a_tied_head_goes_to_litgpt_merged_or_not_at_all(
    toy: Callable[[str], toys.Toy], tmp_path: Path
) -> None:
    import torch
    from litgpt.lora import GPT, merge_lora_weights

    settings = toy("tied").settings()
    model = tuned(settings, LLAMA_HEAD)
    for form in ("litgpt", "both"):
        with pytest.raises(ExportError, match="would change the embedding with it"):
            save(model, settings, tmp_path / form, form, False)
    save(model, settings, tmp_path / "peft", "peft", False)
    save(model, settings, tmp_path / "merged", "litgpt")
    assert (tmp_path / "merged" / "litgpt" / "lit_model.pth").is_file()

    # Why: what `litgpt merge_lora` does with a checkpoint as litgpt's own converter makes it. Where this
    # does not hold any more, the refusal has no reason.
    base = dict(model.base.weights)
    base["lm_head.weight"] = base["transformer.wte.weight"]
    before = base["transformer.wte.weight"].clone()
    merging = GPT(model.model.config)
    merging.load_state_dict({**base, **model.adapter.weights}, assign=True)
    merge_lora_weights(merging)
    assert not torch.equal(merging.transformer.wte.weight, before)


def test_litgpt_begins_texts_as_it_does_for_the_base_model(
    toy: Callable[[str], toys.Toy], tmp_path: Path
) -> None:
    from litgpt.tokenizer import Tokenizer

    settings = toy("untied").settings()
    for bos in (True, False):  # as for a base whose directory is called Llama-3, or not
        model = tuned(settings, {})
        model.base.tokenizer.use_bos = bos
        save(model, settings, tmp_path / str(bos), "litgpt", False)
        assert Tokenizer(tmp_path / str(bos) / "litgpt").use_bos is bos


# --- what disagrees is not written


def spoil(form: str) -> tuple[str, Callable[[Any], Any]]:
    """A method of a form, and what puts something wrong into the files that it writes."""

    def alpha(path: Path) -> None:
        said = json.loads((path / "adapter_config.json").read_text())
        (path / "adapter_config.json").write_text(json.dumps(said | {"lora_alpha": 12.1}))

    def ties(path: Path) -> None:  # as transformers 4.47 reads it, whatever the file says
        config = path / "merged" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": True}))
        weights = safetensors.torch.load_file(path / "merged" / "model.safetensors")
        del weights["lm_head.weight"]
        safetensors.torch.save_file(weights, path / "merged" / "model.safetensors", {"format": "pt"})

    def rank(path: Path) -> None:
        file = path / "litgpt" / "hyperparameters.yaml"
        file.write_text(file.read_text().replace("lora_alpha: 12", "lora_alpha: 13"))

    def weight(path: Path) -> None:
        weights = torch.load(path / "litgpt" / "lit_model.pth", weights_only=True)
        weights["transformer.h.1.attn.qkv.weight"][:3] = 0.0
        torch.save(weights, path / "litgpt" / "lit_model.pth")

    def nothing(path: Path) -> None:
        weights = safetensors.torch.load_file(path / "adapter_model.safetensors")
        weights = {name.replace("q_proj", "Q_proj"): weight for name, weight in weights.items()}
        safetensors.torch.save_file(weights, path / "adapter_model.safetensors")

    import safetensors.torch
    import torch

    return {
        "alpha": ("PeftAdapter", alpha),
        "names": ("PeftAdapter", nothing),
        "ties": ("TransformersMerged", ties),
        "rank": ("LitgptAdapter", rank),
        "weight": ("LitgptMerged", weight),
    }[form]


@pytest.mark.parametrize("what", ["alpha", "names", "ties", "rank", "weight"])
def test_what_computes_something_else_is_refused_and_nothing_is_left(
    toy: Callable[[str], toys.Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    from fractopt.objective.lora.export import save as module

    name, change = spoil(what)
    kind = "litgpt" if "Litgpt" in name else "peft"
    form = getattr(module, name)
    write = form.write

    def spoilt(self: Any, model: Any, place: Path) -> None:
        write(self, model, place)
        change(place)

    monkeypatch.setattr(form, "write", spoilt)
    settings = toy("tied").settings()
    with pytest.raises(ExportError, match=f"the {form.name} computes something else than the tuned model"):
        save(tuned(settings, LLAMA_HEAD), settings, tmp_path / "new" / "out", kind)
    assert list(tmp_path.iterdir()) == []


# --- what cannot be exported


@pytest.mark.parametrize(
    "changes",
    [
        {"mlp_class_name": "LLaMAMoE"},
        {"name": "Phi-4"},
        {"name": "falcon-7b"},
        {"latent_attention": {"q_lora_rank": 8}},
    ],
)
def test_a_family_that_peft_cannot_have_is_refused_with_a_sentence(
    toy: Callable[[str], toys.Toy], changes: dict[str, Any]
) -> None:
    from litgpt.config import Config

    from fractopt.objective.lora.export.transformers_form import family

    configuration = Config.from_file(toy("untied").checkpoint / "model_config.yaml")
    for key, value in changes.items():
        setattr(configuration, key, value)
    with pytest.raises(ExportError, match=r"is of a family whose adapters .* use --format litgpt"):
        family(configuration)


def test_the_adapter_of_another_trial_or_base_is_refused(toy: Callable[[str], toys.Toy]) -> None:
    from fractopt.objective.lora.export.save import load_base, load_tuned

    settings = toy("untied").settings()
    data, base = toys.kept(settings, TRIAL, SEED, toys.PARAMS), load_base(settings)
    for trial, seed, params, says in (
        (8, SEED, {}, "another trial"),
        (TRIAL, 1, {}, "another seed"),
        (TRIAL, SEED, {"lora_alpha": 13.0}, r"another hyperparameters\.lora_alpha"),
    ):
        with pytest.raises(ExportError, match=says):
            load_tuned(data, trial, seed, toys.PARAMS | params, settings, base)
    with pytest.raises(ExportError, match="is damaged"):
        load_tuned(data[:-9], TRIAL, SEED, toys.PARAMS, settings, base)
    other = toy("tied").settings()
    with pytest.raises(ExportError, match=r"another model\.path"):
        load_tuned(data, TRIAL, SEED, toys.PARAMS, other, base)
    with pytest.raises(ExportError, match="is not the one that the run tuned"):
        load_tuned(data, TRIAL, SEED, toys.PARAMS, settings, load_base(other))


def test_a_base_whose_files_do_not_fit_together_is_refused(
    toy: Callable[[str], toys.Toy], tmp_path: Path
) -> None:
    shutil.copytree(toy("untied").checkpoint, tmp_path / "model")
    base = toys.Toy(tmp_path, tmp_path / "model")
    config = base.checkpoint / "config.json"
    said = json.loads(config.read_text())
    for changes, says in (
        ({"tie_word_embeddings": True}, "ties the head to the embedding, but their weights"),
        ({"num_hidden_layers": 1}, "describes another model than model_config.yaml"),
        ({"model_type": "t5"}, "no causal language model for a T5Config"),
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}},
            "does not read config.json",  # and does not run mine.py either
        ),
        (None, "has no config.json"),
    ):
        config.unlink() if changes is None else config.write_text(json.dumps(said | changes))
        settings = base.settings()
        with pytest.raises(ExportError, match=says):
            save(tuned(settings, LLAMA_HEAD), settings, tmp_path / "out", "peft", False)
        assert not (tmp_path / "out").exists()
    save(tuned(settings, LLAMA_HEAD), settings, tmp_path / "out", "litgpt")  # which needs none


def test_without_its_packages_it_says_what_to_install(
    toy: Callable[[str], toys.Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fractopt.objective.lora.export import transformers_form

    monkeypatch.setattr(transformers_form, "find_spec", lambda name: None)
    settings = toy("untied").settings()
    with pytest.raises(ExportError, match=r"needs transformers and peft .*fractopt\[export\]"):
        save(tuned(settings, {}), settings, tmp_path / "out")
