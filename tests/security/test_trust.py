"""Code of a user's own is neither run nor imported without the switch, and the log says that it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import check, configure, fractopt

from fractopt.objective.lora.metrics import split_metric
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Data, Model
from fractopt.objective.python import PythonSettings

MODULE = "from pathlib import Path\nPath('imported').touch()\n\ndef loss(x):\n    return x\n"
PYTHON = 'kind = "python"\nfunction = "mine:loss"'


def test_without_the_switch_nothing_is_imported(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    configure(tmp_path, PYTHON)
    done = fractopt(tmp_path, "run", "c.toml")
    assert done.returncode == 3
    assert "allow it with --trust-code, or code = true under [trust]" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.toml", "mine.py"]


def test_with_the_switch_the_log_repeats_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    # A file of this name beside the configuration hides nothing of ours and nothing of Python's.
    for name in ("fractopt", "json", "click", "h5py"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hijacked')")
    configure(tmp_path, PYTHON)
    done = fractopt(tmp_path, "run", "c.toml", "--trust-code", PYTHONSAFEPATH="1")
    assert done.returncode == 0, done.stderr
    assert "trust.code: this run executes code of yours: the function mine:loss" in done.stderr
    assert "hijacked" not in done.stderr
    assert (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    "function",
    [
        *("", ":", "mine", "mine:", ":loss", "../mine:loss", "/tmp/mine:loss", ".mine:loss", "mine:loss()"),
        *("a b:c", "mine:loss;import os", "mine:os.system('id')", "mine\n:loss", "mine:loss:more"),
        *("__import__('os'):system", "$(id):x", "mine..x:f", "mine:f\x00"),
    ],
)
def test_only_dotted_names_are_a_function(function: str) -> None:
    with pytest.raises(ValueError, match='expected "module:function"'):
        PythonSettings(function)


def lora(metric: str, *tests: str) -> LoraSettings:
    return LoraSettings(metric, Model(name="fractopt/tiny"), Data(name="fractopt/tiny"), test_metrics=tests)


def test_the_file_of_a_task_is_code_of_the_users() -> None:
    """lm-eval imports the functions that it names."""
    assert lora("tiny/acc", "tiny-test/acc").foreign_code == ""
    assert lora("tiny/acc", "my/task.yaml/acc").foreign_code == "the task my/task.yaml"


@pytest.mark.parametrize("metric", ["../evil/acc", "/home/evil/acc", "evil/tasks/acc", "../acc", "./x/acc"])
def test_the_name_of_a_task_is_no_path(metric: str) -> None:
    with pytest.raises(ValueError, match=r"expected a task's name, or the path of its \.yaml file"):
        split_metric(metric)


def test_a_task_file_needs_the_switch(tmp_path: Path) -> None:
    objective = 'kind = "lora"\nmetric = "mine.yaml/acc"\n[objective.model]\nname = "fractopt/tiny"\n'
    objective += '[objective.data]\nname = "fractopt/tiny"\n'
    configure(tmp_path, objective)
    done = check(tmp_path)
    assert done.exit_code == 3
    assert "objective: the task mine.yaml runs code of yours: allow it with --trust-code" in done.stderr
