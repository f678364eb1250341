"""Where checkpoints are, which version they are, and what is said of those that are not there."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from fractopt.objective.base import FETCH, AbsentError, UnusableError
from fractopt.objective.lora.files import TINY, TINY_DIRECTORY, hub_home
from fractopt.objective.lora.model_files import (
    choose_weights,
    conversion_of,
    downloaded_commit,
    find_checkpoint,
    model_home,
    model_version,
)

COMMIT = "0123456789" * 4


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def checkpoint(directory: Path, weights: str = "w") -> Path:
    """What looks like a litgpt checkpoint."""
    directory.mkdir(parents=True)
    for name in ("model_config.yaml", "tokenizer.model", "tokenizer_config.json"):
        (directory / name).touch()
    with zipfile.ZipFile(directory / "lit_model.pth", "w") as file:
        file.writestr("data/0", weights)
    return directory


def test_the_hub_says_where_its_home_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_home() == tmp_path / "hf"
    monkeypatch.setenv("HF_HOME", "$PLACE/~hf")
    monkeypatch.setenv("PLACE", "/scratch")
    assert hub_home() == Path("/scratch/~hf")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert hub_home() == tmp_path / "huggingface"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert hub_home() == Path.home() / ".cache" / "huggingface"


def test_a_model_that_was_not_fetched_is_said_with_the_command_and_its_size() -> None:
    with pytest.raises(AbsentError, match=r"'meta-llama/Llama-3\.2-1B' is not on this machine") as error:
        find_checkpoint("meta-llama/Llama-3.2-1B", None)
    absence = error.value.absence
    for place in (model_home("meta-llama/Llama-3.2-1B"), Path("checkpoints/meta-llama").absolute()):
        assert str(place) in absence.what
    assert absence.command == FETCH
    assert str(error.value).endswith(f"; run: {FETCH}")


def test_a_branch_means_the_commit_that_was_fetched(tmp_path: Path) -> None:
    place = checkpoint(model_home("org/model") / COMMIT)
    (place / "fractopt.json").write_text(json.dumps({"commit": COMMIT}))
    with pytest.raises(AbsentError):
        find_checkpoint("org/model", None, "main")
    (place.parent / "refs.json").write_text(json.dumps({"main": COMMIT, "v1": "../.."}))
    for revision in ("main", COMMIT):
        assert find_checkpoint("org/model", None, revision) == place
    assert model_version(place) == COMMIT
    for revision in ("v1", "../../..", "f" * 40):
        with pytest.raises(UnusableError, match=f"not on this machine at revision {revision}"):
            find_checkpoint("org/model", None, revision)


def test_a_name_is_found_where_litgpt_downloads_it(tmp_path: Path) -> None:
    place = checkpoint(Path("checkpoints") / "org" / "model")
    assert find_checkpoint("org/model", None).samefile(place)
    with pytest.raises(UnusableError, match=r"expected 0123, .* is of sha256:"):
        find_checkpoint("org/model", None, "0123")
    notes = place / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "config.json.metadata").write_text("0123\netag\n1.0\n")
    assert find_checkpoint("org/model", None, "0123").samefile(place)
    (notes / "model.safetensors.metadata").write_text("4567\netag\n1.0\n")  # of an update that broke off
    assert downloaded_commit(place) is None
    with pytest.raises(UnusableError, match="expected 0123"):
        find_checkpoint("org/model", None, "0123")


def test_what_is_incomplete_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match=r"none at .*nowhere"):
        find_checkpoint(None, str(tmp_path / "nowhere"))
    place = checkpoint(tmp_path / "model")
    (place / "fractopt.json").write_text(json.dumps({"files": {"tokenizer.model": 3}}))
    with pytest.raises(UnusableError, match=r"tokenizer.model has 0 bytes and was made with 3"):
        find_checkpoint(None, str(place))
    (place / "tokenizer.model").unlink()
    with pytest.raises(UnusableError, match=r"lacks tokenizer.json or tokenizer.model"):
        find_checkpoint(None, str(place))


def test_a_checkpoint_without_a_commit_is_known_by_its_weights(tmp_path: Path) -> None:
    one, same, other = (checkpoint(tmp_path / name, w) for name, w in (("a", "w"), ("b", "w"), ("c", "v")))
    version = model_version(one)
    assert version is not None
    assert version.startswith("sha256:")
    assert find_checkpoint(None, str(same), version) == same
    with pytest.raises(UnusableError, match=f"expected {version}, the checkpoint in {other} is of sha256:"):
        find_checkpoint(None, str(other), version)
    (one / "lit_model.pth").write_bytes(b"no checkpoint")
    assert model_version(one) is None


def test_the_tiny_model_comes_with_the_package() -> None:
    assert find_checkpoint(TINY, None) == TINY_DIRECTORY


def test_hugging_face_files_are_to_be_converted_first(tmp_path: Path) -> None:
    source = tmp_path / "My-Model"
    source.mkdir()
    (source / "config.json").write_text("{}")
    with pytest.raises(UnusableError, match=r"lacks lit_model\.pth"):
        find_checkpoint(None, str(source))
    (source / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(AbsentError, match="holds Hugging Face files, which are not converted") as error:
        find_checkpoint(None, str(source))
    assert (error.value.absence.command, error.value.absence.size) == (FETCH, 7)
    made = checkpoint(conversion_of(source))
    assert find_checkpoint(None, str(source)) == made
    # Other files than those that were converted.
    os.utime(source / "model.safetensors", ns=(0, 0))
    with pytest.raises(AbsentError, match="not converted"):
        find_checkpoint(None, str(source))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["consolidated.safetensors", "model.safetensors"], ["model.safetensors"]),
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["pytorch_model.bin", "training_args.bin"], ["pytorch_model.bin"]),
        (["other.bin", "training_args.bin"], ["other.bin"]),
        (["a.bin", "b.safetensors"], ["b.safetensors"]),
        (["model-1-of-2.safetensors", "model.safetensors.index.json"], ["x", "y"]),
        (["config.json"], []),
    ],
)
def test_one_set_of_weights_is_chosen(names: list[str], chosen: list[str]) -> None:
    def read(name: str) -> dict[str, object]:
        return {"weight_map": {"q": "y", "k": "x", "v": "y"}} if name in names else {}

    assert choose_weights(names, read) == chosen
