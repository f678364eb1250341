"""`fractopt best --save`: which adapter, where to, what is said, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

sys.path.append(str(Path(__file__).resolve().parents[1] / "archive"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "objective" / "lora"))

import runs
import toys

from fractopt.archive.adapters import FILE, keep_adapter
from fractopt.archive.history import History
from fractopt.archive.result import evaluation_directory, make_evaluation_directory
from fractopt.archive.store import load
from fractopt.cli.main import main
from fractopt.optimizer.base import trial_seed
from fractopt.report.verdict import recommended_now
from fractopt.space import Float, Int, Space

PACKAGES = ("torch", "litgpt", "lm_eval", "transformers", "peft")
pytestmark = [
    pytest.mark.llm,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, PACKAGES)), reason="needs pip install 'fractopt[export]'"
    ),
]
SPACE = Space(Float("learning_rate", 1e-5, 1e-1, log=True), Int("lora_rank", 2, 8))
DEFAULT = {"learning_rate": 1e-3, "lora_rank": 4}


def fractopt(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> toys.Toy:
    return toys.llama(tmp_path_factory.mktemp("toy"), tied=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, toy: toys.Toy) -> Path:
    """A finished run that kept the adapters of what it recommends and of its default."""
    settings = toy.settings(seed="per-trial", max_steps=4)
    objective = json.loads(json.dumps({"kind": "lora", **asdict(settings)}))
    directory = tmp_path_factory.mktemp("finished") / "run"
    archive = runs.create(
        directory, space=SPACE.as_dict(), objective=objective, metric="tiny/acc", default=DEFAULT
    )
    runs.run_out(archive, budget=8)
    archive.close(complete=True, reason="the budget is met")
    for number in {recommended(directory), 1}:
        data = toys.kept(settings, number, trial_seed(0, number), dict(load(directory).rows[number].params))
        keep_adapter(make_evaluation_directory(directory, number), data)
    return directory


@pytest.fixture
def run(tmp_path: Path, finished: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def recommended(directory: Path) -> int:
    found = recommended_now(load(directory))
    assert found is not None
    return found.id


def others(history: History, directory: Path) -> int:
    """A configuration that has a value and kept nothing."""
    kept = {number for number in history.rows if (evaluation_directory(directory, number) / FILE).exists()}
    return next(row.id for row in history.ranked(history.evaluations) if row.params and row.id not in kept)


def test_the_recommended_adapter_is_saved_with_its_card(run: Path, tmp_path: Path, toy: toys.Toy) -> None:
    done = fractopt("best", run, "--save", tmp_path / "out", "--merge")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"trial {recommended(run)} is in {tmp_path / 'out'}\n")
    assert done.stdout.count("the logits of the tuned model, to") == 4
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors", "litgpt", "merged"} <= names
    said = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == "toys/llama"
    assert said["r"] == load(run).rows[recommended(run)].params["lora_rank"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"# run-{recommended(run)}: a LoRA adapter of toys/llama" in card
    assert str(tmp_path) not in card
    assert str(toy.checkpoint) not in card


def test_another_trial_and_one_format(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = fractopt("best", run, "--save", tmp_path / "out", "--trial", 1, "--format", "litgpt", "--merge")
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "litgpt"}
    assert "not the one it recommends" in (tmp_path / "out" / "README.md").read_text()


def test_an_adapter_that_was_not_kept_can_be_made_again(run: Path, tmp_path: Path) -> None:
    number = others(load(run), run)
    words = ("best", run, "--save", tmp_path / "out", "--trial", number)
    done = fractopt(*words, "--retrain")  # refused for what it is to be, before it is made
    assert done.exit_code == 1
    assert "one matrix for its embedding and its head" in done.stderr
    assert "is fine-tuned again" not in done.stderr
    words = (*words, "--format", "litgpt", "--merge")
    done = fractopt(*words)
    assert done.exit_code == 1
    kept = ", ".join(map(str, sorted({1, recommended(run)})))
    assert f"the adapter of trial {number} was not kept (there are those of {kept}" in done.stderr
    done = fractopt(*words, "--retrain")
    assert done.exit_code == 0, done.output
    assert f"trial {number} is fine-tuned again, with the seed {trial_seed(0, number)}" in done.stderr
    assert "were fine-tuned once more" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("trial", "says"),
    [
        (0, "trial 0 is the untuned model: it has no adapter"),
        (4, "trial 4 has no value of its own: it kept no adapter"),
        (99, "has no evaluation 99; it has 0 to 7"),
    ],
)
def test_a_trial_without_an_adapter_is_refused(run: Path, tmp_path: Path, trial: int, says: str) -> None:
    done = fractopt("best", run, "--save", tmp_path / "out", "--trial", trial)
    assert done.exit_code == 1
    assert says in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_place_with_something_in_it_is_left_as_it_is(run: Path, tmp_path: Path) -> None:
    taken, file, link = tmp_path / "taken", tmp_path / "file", tmp_path / "link"
    taken.mkdir()
    (taken / "thesis.tex").write_text("precious")
    file.write_text("precious")
    (tmp_path / "empty").mkdir()
    link.symlink_to(tmp_path / "empty")
    before = runs.contents(tmp_path)
    for place in (taken, file, link, run):
        done = fractopt("best", run, "--save", place)
        assert done.exit_code == 1
        assert f"{place} is there already, and was left as it is" in done.stderr
    assert runs.contents(tmp_path) == before


def test_options_of_saving_need_a_place(run: Path) -> None:
    done = fractopt("best", run, "--merge", "--trial", 1)
    assert done.exit_code == 2
    assert "--trial and --merge say how an adapter is saved: say where to, with --save DIR" in done.stderr


def test_a_damaged_adapter_and_a_missing_base_are_messages(
    run: Path, tmp_path: Path, toy: toys.Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("best", run, "--save", tmp_path / "out", "--format", "litgpt", "--merge")
    toy.checkpoint.rename(tmp_path / "away")
    try:
        done = fractopt(*words)
    finally:
        (tmp_path / "away").rename(toy.checkpoint)
    assert done.exit_code == 1
    assert f"there is none at {toy.checkpoint}" in done.stderr
    path = evaluation_directory(run, recommended(run)) / FILE
    path.write_bytes(path.read_bytes()[:-100])
    done = fractopt(*words)
    assert done.exit_code == 1
    assert f"the adapter that trial {recommended(run)} kept is damaged" in done.stderr
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    done = fractopt(*words)
    assert done.exit_code == 1
    assert "symbolic link" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_objective_that_somebody_else_made_up_is_a_message(tmp_path: Path) -> None:
    for number, objective in enumerate(({"model": 3, "metric": "a/acc"}, {"data": {}, "metric": []}, {})):
        archive = runs.create(tmp_path / f"{number}", objective={"kind": "lora", **objective})
        runs.run_out(archive)
        archive.close(complete=True, reason="the budget is met")
        done = fractopt("best", tmp_path / f"{number}", "--save", tmp_path / "out", "--trial", 1)
        assert done.exit_code == 4
        assert "its objective cannot be read" in done.stderr


def test_a_run_of_something_else_has_no_adapter(tmp_path: Path) -> None:
    archive = runs.create(tmp_path / "run")
    runs.run_out(archive)
    archive.close(complete=True, reason="the budget is met")
    done = fractopt("best", tmp_path / "run", "--save", tmp_path / "out")
    assert done.exit_code == 1
    assert "is no run of LoRA fine-tunes" in done.stderr
