"""Any program as an objective: what it is told, what it may answer, how it may end, what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fractopt.config.read import read_config
from fractopt.objective.base import Evaluation, UnusableError, silent
from fractopt.objective.registry import build
from fractopt.text import MASK
from fractopt.trial import Kind, Outcome, Status

Call = Callable[..., Outcome]
TOKEN = "hf_CANARYcanaryCANARYcanaryCANARYcanary"
KEY = "0123456789canary0123456789canary01234567"  # nothing to know it by but its name


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_it_is_told_by_file_environment_and_arguments(call: Call, tmp_path: Path) -> None:
    place = tmp_path / "evaluation"
    outcome = call(
        "--lr={lr}", "{x}", "{{{name}}}", "{seed}", "{start}|{outcome}", x=2.5, lr=1e-05, name="a b"
    )
    assert (outcome.status, outcome.value, outcome.stderr) == (Status.OK, 2.5, 0.25)
    assert outcome.metrics == {"steps": 7.0}
    assert outcome.seconds > 0
    told = json.loads((place / "told.json").read_text())
    assert told["cwd"] == str(place)
    assert told["argv"] == ["--lr=1e-05", "2.5", "{a b}", "7", f"{os.getcwd()}|{place}/outcome.json"]
    assert told["given"] == json.loads((place / "evaluation.json").read_text()) == {
        "trial": 12, "attempt": 0, "kind": "search", "seed": 7, "test": False, "test_metrics": [],
        "parameters": {"x": 2.5, "lr": 1e-05, "name": "a b"},
        "outcome": str(place / "outcome.json"), "progress": str(place / "progress"),
    }  # fmt: skip
    ours = {name: text for name, text in told["environment"].items() if name.startswith("FRACTOPT_")}
    mark = ours.pop("FRACTOPT_PROGRAM")
    assert len(mark) == 32
    assert ours.items() >= {
        "FRACTOPT_PARAMETER_x": "2.5", "FRACTOPT_PARAMETER_lr": "1e-05", "FRACTOPT_PARAMETER_name": "a b",
        "FRACTOPT_TRIAL": "12", "FRACTOPT_ATTEMPT": "0", "FRACTOPT_KIND": "search", "FRACTOPT_SEED": "7",
        "FRACTOPT_EVALUATION": str(place / "evaluation.json"), "FRACTOPT_TEST": "0",
        "FRACTOPT_OUTCOME": str(place / "outcome.json"), "FRACTOPT_PROGRESS": str(place / "progress"),
    }.items()  # fmt: skip


def test_what_an_attempt_left_that_was_killed_is_no_answer(call: Call, tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "outcome.json").write_text('{"value": 99}')
    assert "it was not written" in call(do="silent", attempt=1).message


def test_no_shell_reads_the_arguments(call: Call, tmp_path: Path) -> None:
    hostile = ("; touch shell", "$(touch shell)", "`touch shell`", "$HOME", "*", "-c 'x'", "a\nb", "")
    call(*hostile, name="{x} $(touch shell)", x=1.0)
    assert json.loads((tmp_path / "evaluation" / "told.json").read_text())["argv"] == list(hostile)
    assert not (tmp_path / "evaluation" / "shell").exists()


def test_a_value_is_not_expanded_again(call: Call, tmp_path: Path) -> None:
    call("{name}", name="{x} {start} {name.__class__}", x=1.0)
    argv = json.loads((tmp_path / "evaluation" / "told.json").read_text())["argv"]
    assert argv == ["{x} {start} {name.__class__}"]


def test_test_metrics_are_computed_where_asked_and_dropped_where_not(call: Call) -> None:
    settings = {"test_metrics": ["test/acc", "test/f1"]}
    plain = call(settings=settings, do="test", x=1.0)
    assert plain.metrics == {"flag": 0.0}  # though the program told test/acc all the same
    asked = call(settings=settings, test=True, do="test", x=1.0)
    assert asked.metrics == {"flag": 1.0, "test/acc": 0.5, "test/f1": 0.5}


def test_the_untuned_model_has_a_command_of_its_own(
    call: Call, spec: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    outcome = call("{x}", settings={"base": spec("base")["argv"]}, kind=Kind.BASE)
    told = json.loads((tmp_path / "evaluation" / "told.json").read_text())
    assert (outcome.value, told["argv"], told["given"]["kind"]) == (0.0, ["base"], "base")
    assert not any(name.startswith("FRACTOPT_PARAMETER_") for name in told["environment"])
    with pytest.raises(ValueError, match=r"no command for the untuned model: set objective\.base"):
        call(kind=Kind.BASE)


def test_a_divergence_is_for_the_program_to_tell(call: Call) -> None:
    outcome = call(do="diverge")
    assert (outcome.status, outcome.message) == (Status.DIVERGED, "the loss became nan at step 3")


@pytest.mark.parametrize(
    ("do", "reason", "more"),
    [
        (
            "fail",
            "the program exited with code 3: RuntimeError: no such file",
            "loading\nTraceback\nRun",
        ),
        ("die", "the program was killed by SIGKILL (often the kernel out of memory)", ""),
        ("silent", "outcome.json of the program: it was not written to /", ""),
        (
            "unheard_of",
            "the program exited with code 1: KeyError: 'unheard_of'",
            "Traceback (most recent call",
        ),
    ],
)
def test_what_ends_badly_failed_and_the_last_it_said_is_quoted(
    call: Call, do: str, reason: str, more: str
) -> None:
    outcome = call(do=do)
    assert outcome.status is Status.FAILED
    assert outcome.reason.startswith(reason)
    assert more in outcome.message


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    objective = build({"kind": "command", "argv": [str(script)]})
    outcome = objective(Evaluation(0, Kind.SEARCH, {}, 0, directory=tmp_path), silent)
    assert outcome.status is Status.FAILED
    assert outcome.message == f"{script} cannot be started: No such file or directory"
    with pytest.raises(UnusableError, match=r"objective\.argv: there is no program 'no-such-program-at-all'"):
        build({"kind": "command", "argv": ["no-such-program-at-all"]})
    script.chmod(0o644)
    with pytest.raises(UnusableError, match="that can be run"):
        build({"kind": "command", "argv": [str(script)]})


def test_secrets_reach_the_program_and_nothing_else(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    outcome = call(do="confess")
    said = capfd.readouterr()
    assert said.out == f"a token is {MASK} and {MASK}\n"
    assert said.err == f"401 for {MASK}\n"
    assert outcome.reason == f"the program exited with code 1: 401 for {MASK}"
    for path in (tmp_path / "evaluation").iterdir():
        assert TOKEN not in path.read_text()


def test_all_it_prints_is_passed_on_as_it_was(call: Call, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert call(do="babble", x=3.0).value == 3.0
    said = capfdbinary.readouterr()
    assert said.out == b"latin \xe9\n" + b"x" * 300_000 + b"\rhalf"
    assert said.err == b"".join(b"line %d\n" % i for i in range(5_000))


def test_where_it_stands_is_read_from_its_file(call: Call) -> None:
    said: list[tuple[Any, ...]] = []
    call(do="train", report=lambda *of: said.append(of))
    assert said[0] == ("run", 0, 0, None)
    assert said[1:] == [("train", step, 3, 1 / step) for step in (1, 2, 3)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("warm-up", ("run", 0, 0, None)),  # no whole line yet
        ("warm-up\n", ("warm-up", 0, 0, None)),
        ("a 1\nscore 4 9\n\n", ("score", 4, 9, None)),
        ("train x y z\n", ("train", 0, 0, None)),
        ("train -1 9 nan\n", ("train", 0, 9, pytest.approx(float("nan"), nan_ok=True))),
        (f"train 1 {'9' * 5000}\n", ("9" * 80, 0, 0, None)),  # only its end is looked at
        ("\x1b[31mred 2\n", ("\\x1b[31mred", 2, 0, None)),
    ],
)
def test_what_a_progress_file_may_say(tmp_path: Path, text: str, expected: tuple[Any, ...]) -> None:
    from fractopt.objective.command.program import _Standing

    path = tmp_path / "progress"
    path.write_text(text)
    said: list[tuple[Any, ...]] = []
    _Standing(path, lambda *of: said.append(of)).look(heard=False)
    assert said == [expected]


def test_a_progress_file_that_is_none_is_left_alone(tmp_path: Path) -> None:
    from fractopt.objective.command.program import _Standing

    said: list[object] = []
    for name, make in {
        "link": lambda p: p.symlink_to("/etc/passwd"),
        "pipe": lambda p: os.mkfifo(p),
        "none": lambda p: None,
    }.items():
        make(tmp_path / name)
        _Standing(tmp_path / name, lambda *of: said.append(of)).look(heard=False)
    assert [of for of in said if "root" in str(of)] == []


def test_what_it_leaves_behind_is_ended_before_the_next_evaluation(call: Call, tmp_path: Path) -> None:
    outcome = call(do="leave", x=1.0)
    assert outcome.value == 1.0
    assert outcome.seconds < 30.0  # and nobody waits for the pipes they hold
    children = (tmp_path / "evaluation" / "children").read_text().split()
    assert len(children) == 2
    assert not any(alive(int(pid)) for pid in children)


def test_where_no_files_are_kept_there_is_a_directory_for_the_time_being(
    spec: Callable[..., dict[str, Any]],
) -> None:
    seen: list[str] = []
    code = "import json, os; file = open(os.environ['FRACTOPT_OUTCOME'], 'w');"
    code += "json.dump({{'value': 1, 'message': os.getcwd()}}, file)"
    objective = build({"kind": "command", "argv": [sys.executable, "-I", "-S", "-c", code]})
    outcome = objective(Evaluation(0, Kind.SEARCH, {}, 0), lambda phase, *_: seen.append(phase))
    assert (outcome.value, seen[:1]) == (1.0, ["run"])
    assert Path(outcome.message).name.startswith("fractopt-")
    assert not Path(outcome.message).exists()


def test_the_smallest_program(tmp_path: Path) -> None:
    """True does nothing, and says nothing: that is a failure in words."""
    true = shutil.which("true")
    assert true is not None
    started = time.monotonic()
    outcome = build({"kind": "command", "argv": [true]})(
        Evaluation(0, Kind.SEARCH, {}, 0, directory=tmp_path), silent
    )
    assert outcome.status is Status.FAILED
    assert time.monotonic() - started < 30.0
    assert outcome.message == f"outcome.json of the program: it was not written to {tmp_path}/outcome.json"


def test_the_example_of_jobs_is_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).resolve().parents[3]
    monkeypatch.chdir(root)  # where a user starts it
    config = read_config(root / "jobs" / "command.toml", ["trust.code=true"])
    assert config.settings.absences() == []
    objective = build(config.objective)
    assert config.default is not None
    outcomes = [
        objective(Evaluation(0, Kind.SEARCH, {**config.default, "learning_rate": rate}, 0), silent)
        for rate in (2e-4, 4e-4, 0.09)
    ]
    assert [outcome.status.value for outcome in outcomes] == ["ok", "ok", "diverged"]
    assert outcomes[1].value < outcomes[0].value
