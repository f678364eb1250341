"""The settings of a command: what is refused, with which key, and what its arguments may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fractopt.config.mistakes import ConfigError
from fractopt.config.read import Config, read_config
from fractopt.objective.command.settings import CommandSettings, expand

FILE = """
[run]
budget = 5
[optimizer]
name = "random"
[space]
lr = { type = "float", low = 1e-5, high = 1, log = true }
opt.name = { type = "categorical", values = ["adam", "sgd"] }
[objective]
kind = "command"
argv = ["true", "--lr={lr}"]
direction = "maximize"
metric = "acc"
"""
TRUST = "trust.code=true"


def read(tmp_path: Path, *overrides: str) -> Config:
    path = tmp_path / "c.toml"
    path.write_text(FILE.replace("opt.name", '"opt.name"'))
    return read_config(path, overrides)


def test_it_reaches_every_part(tmp_path: Path) -> None:
    config = read(
        tmp_path, TRUST, "test.metrics=['test/acc']", "objective.base=['true']", "run.anchors=['base']"
    )
    assert config.objective == {
        "kind": "command", "argv": ["true", "--lr={lr}"], "base": ["true"], "test_metrics": ["test/acc"]
    }  # fmt: skip
    assert (config.metric, config.direction) == ("acc", "maximize")
    assert config.foreign_code == "the program true '--lr={lr}'"
    assert config.settings.absences() == []
    assert read_config_again(tmp_path, config).manifest() == config.manifest()


def read_config_again(tmp_path: Path, config: Config) -> Config:
    (tmp_path / "again.toml").write_text(config.text)
    return read_config(tmp_path / "again.toml")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("", 'objective.kind: "command" runs code of yours: allow it with --trust-code'),
        ("objective.argv=true", "objective.argv: expected a list in brackets, got True"),
        ("objective.argv=[]", "objective.argv: expected a program and its arguments, got []"),
        ("objective.argv=['']", "objective.argv: expected a program and its arguments, got ['']"),
        ("objective.argv=['true', 3]", "objective.argv.1: expected text in quotes, got 3"),
        ("objective.argv=['./train.sh']", "objective.argv: the program runs in the evaluation's own dir"),
        ("objective.argv=['true', '{rate}']", "objective.argv: nothing stands for {rate}, expected one"),
        ("objective.argv=['true', '{\"a\": 1}']", "objective.argv: nothing stands for {\"a\": 1}, exp"),
        ("objective.argv=['true', '{}']", "objective.argv: expected the name of a parameter in braces"),
        ("objective.argv=['true', 'a}']", "objective.argv: expected the name of a parameter in braces"),
        ("objective.argv=['true', \"a\\u0000b\"]", "objective.argv: an argument holds a zero byte"),
        ("objective.base=[]", "objective.base: expected a program and its arguments, got []"),
        ("objective.base=['true', '{lr}']", "objective.base: nothing stands for {lr}, expected one of start"),
        ("run.anchors=['base']", 'run.anchors: "base" is the untuned model: objective.base, the command'),
        ("test.metrics=['a', 'a']", "test.metrics: expected the names of metrics, each once, got ['a', 'a']"),
        ("objective.shell=true", "objective.shell: unknown key; expected one of argv, base, test_metrics"),
        ("space.c={type='categorical', values=[\"a\\u0000\", 'b']}", "space.c: 'a\\x00' holds a zero byte"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_with_its_key(tmp_path: Path, override: str, says: str) -> None:
    overrides = [override, TRUST] if override else []
    with pytest.raises(ConfigError) as error:
        read(tmp_path, *overrides)
    assert any(line.startswith(says) for line in error.value.mistakes), error.value.mistakes
    assert len(error.value.mistakes) <= 2


def test_a_parameter_named_as_something_else_is_refused_only_where_it_is_used(tmp_path: Path) -> None:
    seed = "space.seed={type='int', low=1, high=9}"
    read(tmp_path, TRUST, seed)
    with pytest.raises(ConfigError, match=r"objective\.argv: {seed} has a meaning already"):
        read(tmp_path, TRUST, seed, "objective.argv=['true', '{seed}']")


def test_a_program_that_is_not_there_is_an_absence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = read(tmp_path, TRUST, "objective.argv=['no-such-program']", "objective.base=['{start}/prog']")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prog").write_text("#!/bin/true\n")
    said = "objective.argv: there is no program 'no-such-program' that can be run"
    assert [str(absence) for absence in config.settings.absences()][:1] == [said]
    (tmp_path / "prog").chmod(0o755)
    assert CommandSettings(("{start}/prog",)).absences() == []


@pytest.mark.parametrize(
    ("argument", "values", "expected"),
    [
        ("{a}{b}", {"a": 1, "b": 2.0}, "12.0"),
        ("{{a}} {a}", {"a": "x"}, "{a} x"),
        ("{{{a}}}", {"a": True}, "{true}"),
        ("{a}", {"a": "{b}", "b": 1}, "{b}"),
        ("{a-b.c}", {"a-b.c": 1e-7}, "1e-07"),
        ("plain", {}, "plain"),
    ],
)
def test_arguments(argument: str, values: dict[str, Any], expected: str) -> None:
    assert expand(argument, values) == expected
