"""outcome.json: what a program may say, and that of everything else it is said what was expected."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fractopt.objective.command.reply import MAX_BYTES, read_outcome
from fractopt.trial import Outcome, Status


def read(tmp_path: Path, text: str | bytes, *tests: str, asked: bool = False) -> Outcome:
    path = tmp_path / "outcome.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_outcome(path, tests, asked)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"value": 1}', Outcome(Status.OK, 1.0)),
        (' {"value": -2.5e-3, "status": "ok", "stderr": 0}\n', Outcome(Status.OK, -0.0025, stderr=0.0)),
        ('{"value": 1, "stderr": null, "message": "é"}', Outcome(Status.OK, 1.0, message="é")),
        ('{"status": "pruned", "value": 3}', Outcome(Status.PRUNED, 3.0)),
        ('{"status": "diverged", "value": null}', Outcome(Status.DIVERGED)),
        ('{"status": "oom", "metrics": {"a/b": 2}}', Outcome(Status.OOM, metrics={"a/b": 2.0})),
    ],
)
def test_an_outcome(tmp_path: Path, text: str, expected: Outcome) -> None:
    found = read(tmp_path, text)
    assert repr(found) == repr(expected)  # a value that is missing is nan


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no JSON: Expecting value"),
        ('{"value": 1', "is no JSON"),
        ('{"value": 1} {"value": 2}', "is no JSON: Extra data"),
        ("{'value': 1}", "is no JSON"),
        ("1", 'expected an object such as {"value": 0.5}, got 1'),
        ('[{"value": 1}]', "expected an object"),
        ("null", "expected an object such as .* got null"),
        (b'{"value": 1, "message": "\xff"}', "is not UTF-8 text: invalid start byte at byte 25"),
        ("{}", 'value: is missing; where there is none, "status" says why'),
        ('{"value": null}', "value: expected a number, got null"),
        ('{"value": "0.5"}', 'value: expected a number, got "0.5"'),
        ('{"value": true}', "value: expected a number, got true"),
        ('{"value": [1]}', r"value: expected a number, got \[1\]"),
        ('{"value": NaN}', 'NaN is no number; a run without a value says "status": "diverged"'),
        ('{"value": -Infinity}', "-Infinity is no number"),
        ('{"value": 1e999}', "value: expected a number that a float can hold"),
        ('{"value": 1' + "0" * 400 + "}", "value: expected a number that a float can hold, got 1000"),
        ('{"value": 1' + "0" * 5000 + "}", "Exceeds the limit"),
        ('{"value": 1, "value": 2}', 'the key "value" is there twice'),
        ('{"value": 1, "metrics": {"a": 1, "a": 2}}', 'the key "a" is there twice'),
        ('{"value": 1, "stdder": 2}', 'unknown key "stdder"; did you mean .stderr.. Expected value, stderr'),
        ('{"value": 1, "\\u001b[31m": 2}', "unknown key"),
        ('{"value": 1, "stderr": -1}', "stderr: expected a number >= 0, got -1.0"),
        ('{"value": 1, "stderr": "small"}', 'stderr: expected a number, got "small"'),
        ('{"value": 1, "status": "fine"}', 'status: expected one of ok, .*, got "fine"'),
        ('{"value": 1, "status": []}', r"status: expected one of .*, got \[\]"),
        ('{"value": 1, "status": "diverged"}', "value: the status 'diverged' has none, got 1"),
        ('{"value": 1, "metrics": [1]}', r"metrics: expected an object of numbers, got \[1\]"),
        ('{"value": 1, "metrics": {"a": "b"}}', 'metrics.a: expected a number, got "b"'),
        ('{"value": 1, "metrics": {"": 1}}', "metrics: expected names of 1 to 200 characters, got "),
        ('{"value": 1, "metrics": {"a\\nb": 1}}', r'metrics: expected names of .*, got "a\\nb"'),
        ('{"value": 1, "metrics": {"a\\u0000": 1}}', "metrics: expected names"),
        ('{"value": 1, "message": 7}', "message: expected text, got 7"),
        ("[" * 100_000, "is nested too deep|is no JSON"),
        ('{"value": 1, "metrics": {"a": ' + "[" * 50_000 + "]" * 50_000 + "}}", "nested too deep|expected"),
        (b" " * MAX_BYTES + b"{}", f"cannot be read: longer than the {MAX_BYTES} bytes"),
    ],
)
def test_what_is_none_is_refused_in_one_sentence(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        read(tmp_path, text)
    assert len(str(error.value)) < 500
    assert str(error.value).isprintable()


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "outcome.json"
    real = tmp_path / "real.json"
    real.write_text('{"value": 1}')
    for make, says in [
        (lambda: None, f"it was not written to {path}"),
        (lambda: path.symlink_to(real), "cannot be read: a link, which is not followed"),
        (lambda: path.mkdir(), "cannot be read: Is a directory"),
        (lambda: os.mkfifo(path), "cannot be read: not a regular file"),
    ]:
        make()
        with pytest.raises(ValueError, match=says):
            read_outcome(path, (), False)
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def test_test_metrics_must_be_there_where_they_were_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metrics: lacks mmlu/acc, f1, which \[test\] asks for"):
        read(tmp_path, '{"value": 1, "metrics": {"acc": 1}}', "acc", "mmlu/acc", "f1", asked=True)
    assert read(tmp_path, '{"status": "failed"}', "mmlu/acc", asked=True).status is Status.FAILED
    text = json.dumps({"value": 1, "metrics": {"acc": 1, "mmlu/acc": 0.9}})
    assert read(tmp_path, text, "mmlu/acc").metrics == {"acc": 1.0}
    assert read(tmp_path, text, "mmlu/acc", asked=True).metrics == {"acc": 1.0, "mmlu/acc": 0.9}
