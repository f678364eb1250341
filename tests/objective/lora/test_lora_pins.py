"""A run keeps the versions of its model and data, and goes on with no others."""

from __future__ import annotations

import json
import tomllib
import zipfile
from pathlib import Path

import pytest

from fractopt.archive.journal import ArchiveError
from fractopt.archive.store import Archive, load
from fractopt.config.read import Config, read_config
from fractopt.objective.lora.model_files import model_home

FIRST, SECOND = "a" * 40, "b" * 40
CONFIG = """
[run]
budget = 3
[optimizer]
name = "random"
[space]
learning_rate = { type = "float", low = 1e-4, high = 1e-2 }
[objective]
kind = "lora"
metric = "tiny/acc"
model = { name = "org/model" }
data = { path = "data.json" }
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration and data; two commits of its model are here, main is the first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for commit in (FIRST, SECOND):
        place = model_home("org/model") / commit
        place.mkdir(parents=True)
        for name in ("model_config.yaml", "tokenizer.json", "tokenizer_config.json"):
            (place / name).touch()
        with zipfile.ZipFile(place / "lit_model.pth", "w") as file:
            file.writestr("data", commit)
        (place / "fractopt.json").write_text(json.dumps({"commit": commit}))
    main_is(FIRST)
    (tmp_path / "c.toml").write_text(CONFIG)
    (tmp_path / "data.json").write_text('[{"instruction": "a", "output": "b"}]')
    return tmp_path


def main_is(commit: str) -> None:
    (model_home("org/model") / "refs.json").write_text(json.dumps({"main": commit}))


def read(place: Path, *changes: str) -> Config:
    return read_config(place / "c.toml", changes)


def resume(place: Path, config: Config) -> None:
    Archive.resume(place / "run", config.manifest(), config.text, {}).abandon()


def test_a_run_is_archived_with_what_it_used_and_goes_on_with_nothing_else(place: Path) -> None:
    config = read(place)
    assert config.objective["model"]["revision"] == FIRST
    Archive.create(place / "run", config.manifest(), config.text, {}).abandon()
    resume(place, read(place))
    kept = load(place / "run").manifest.objective
    assert kept["model"]["revision"] == FIRST
    assert kept["data"]["revision"].startswith("sha256:")

    main_is(SECOND)
    with pytest.raises(ArchiveError) as error:
        resume(place, read(place))
    assert f"objective.model.revision: '{FIRST}' in the archive, now '{SECOND}'" in str(error.value)
    assert f"{place / 'run' / 'run.toml'} has" in str(error.value)
    resume(place, read(place, f"objective.model.revision={FIRST}"))
    # As the message says: the configuration that it was started with is in the run.
    resume(place, read_config(place / "run" / "run.toml"))

    (place / "data.json").write_text('[{"instruction": "a", "output": "c"}]')
    with pytest.raises(ArchiveError, match=r"objective\.data\.revision: 'sha256:\w+' in the archive, now"):
        resume(place, read(place, f"objective.model.revision={FIRST}"))


def test_the_configuration_that_is_kept_is_pinned(place: Path) -> None:
    kept = tomllib.loads(read(place).text)["objective"]
    assert kept["model"] == {"name": "org/model", "revision": FIRST}
    assert kept["data"]["path"] == "data.json"
    assert kept["data"]["revision"].startswith("sha256:")


def test_data_of_other_columns_are_a_mistake_of_the_configuration(place: Path) -> None:
    from fractopt.config.mistakes import ConfigError

    (place / "data.json").write_text('[{"question": "a", "answer": "b"}]')
    with pytest.raises(ConfigError, match=r"objective\.data: data\.json: .*; found question, answer"):
        read(place)
