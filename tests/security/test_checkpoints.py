"""Model directories from elsewhere: what is hidden in them is not run."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("litgpt")

from fractopt.objective.base import UnusableError
from fractopt.objective.lora.files import TINY_DIRECTORY
from fractopt.objective.lora.tables import Model

pytestmark = pytest.mark.llm


class Hidden:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    shutil.copytree(TINY_DIRECTORY, directory)
    return directory


def load(directory: Path) -> object:
    from fractopt.objective.lora import runtime

    runtime.prepare()
    from fractopt.objective.lora.model import BaseModel

    return BaseModel(Model(path=str(directory), precision="32-true"))


@pytest.mark.parametrize("form", ["zip", "pickle", "inside"])
def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(
    planted: Path, tmp_path: Path, form: str
) -> None:
    import torch

    hidden = Hidden(f"touch {tmp_path / 'ran'}")
    weights = planted / "lit_model.pth"
    if form == "zip":
        torch.save(hidden, weights)
    elif form == "pickle":
        weights.write_bytes(pickle.dumps({"model": hidden}))
    else:
        known = torch.load(weights, weights_only=True)
        torch.save({**known, "more": hidden}, weights)
    with pytest.raises(UnusableError, match="does not hold a litgpt checkpoint") as error:
        load(planted)
    assert "nothing of it was run" in str(error.value)
    # torch's own text says how to run it all the same.
    assert "weights_only" not in str(error.value)
    assert len(str(error.value)) < 400
    assert not (tmp_path / "ran").exists()


def test_a_model_configuration_with_code_in_it_is_refused_and_not_run(planted: Path, tmp_path: Path) -> None:
    text = (planted / "model_config.yaml").read_text()
    (planted / "model_config.yaml").write_text(
        f"{text}\nmore: !!python/object/apply:os.system ['touch {tmp_path / 'ran'}']\n"
    )
    with pytest.raises(UnusableError, match=r"model_config\.yaml is no configuration of litgpt"):
        load(planted)
    assert not (tmp_path / "ran").exists()


def test_data_are_never_allowed_to_bring_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from fractopt.objective.lora import runtime

    monkeypatch.setenv("HF_DATASETS_TRUST_REMOTE_CODE", "1")
    runtime.prepare()
    assert "HF_DATASETS_TRUST_REMOTE_CODE" not in os.environ
