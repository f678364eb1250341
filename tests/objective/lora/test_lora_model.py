"""The base model: what does not depend on where its checkpoint lies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fractopt.objective.lora.files import TINY_DIRECTORY
from fractopt.objective.lora.tables import Model

pytestmark = pytest.mark.llm


def test_which_models_begin_with_bos_is_litgpts_own_rule(tmp_path: Path) -> None:
    from litgpt.config import name_to_config
    from litgpt.tokenizer import Tokenizer

    from fractopt.objective.lora.model import begins_with_bos

    litgpts = Tokenizer.check_if_bos_token_used
    found = {}
    for name in name_to_config:
        directory = tmp_path / name
        directory.mkdir()
        (directory / "tokenizer_config.json").write_text("{}")
        found[name] = litgpts(None, directory)
    assert found == {name: begins_with_bos(name) for name in found}
    assert {True, False} == set(found.values())


def test_samples_begin_with_bos_wherever_the_checkpoint_lies(tmp_path: Path) -> None:
    from fractopt.objective.lora.model import BaseModel

    directory = tmp_path / ("0" * 40)  # as `fractopt fetch` calls it
    shutil.copytree(TINY_DIRECTORY, directory)
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | {"add_bos_token": False}))
    begins = {}
    for name in ("fractopt-tiny", "Llama-3.2-1B"):
        text = (TINY_DIRECTORY / "model_config.yaml").read_text()
        assert text.count("name: fractopt-tiny") == 1
        (directory / "model_config.yaml").write_text(text.replace("name: fractopt-tiny", f"name: {name}"))
        tokenizer = BaseModel(Model(path=str(directory), precision="32-true")).tokenizer
        begins[name] = bool(tokenizer.encode("Tell")[0] == tokenizer.bos_id)
    assert begins == {"fractopt-tiny": False, "Llama-3.2-1B": True}
