"""The command line as a user has it: exit codes, stdout for data, messages without tracebacks."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fractopt.archive.store import load
from fractopt.cli.main import main
from fractopt.config.read import read_config

FRACTOPT = [sys.executable, "-c", "from fractopt.cli.main import main; main()"]
CONFIG = """
[run]
budget = {budget}
[optimizer]
name = "soo"
[space]
x = {{ type = "float", low = -5, high = 5 }}
y = {{ type = "float", low = -5, high = 5 }}
[objective]
kind = "synthetic"
function = "himmelblau"
sleep = {sleep}
"""
LAUNCHERS = ("OMPI_", "PMI", "SLURM_", "OAR_", "FRACTOPT_")


def environment(**more: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}
    return {**plain, **more}


def fractopt(directory: Path, *arguments: str, limit_kib: int | None = None, **more: str) -> Any:
    """A finished `fractopt ...` in `directory`."""
    shell = f'ulimit -f {limit_kib}; exec "$@"' if limit_kib else 'exec "$@"'
    command = ["bash", "-c", shell, "bash", *FRACTOPT, *arguments]
    return subprocess.run(
        command,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(**more),
        check=False,
    )


def message(done: Any) -> str:
    """What it said on stderr, which is no traceback."""
    assert "Traceback" not in done.stderr, done.stderr
    return str(done.stderr)


def write(directory: Path, name: str = "c.toml", budget: int = 6, sleep: float = 0.0) -> Path:
    path = directory / name
    path.write_text(CONFIG.format(budget=budget, sleep=sleep))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `fractopt run c.toml` ran to its end; not to be changed."""
    directory = tmp_path_factory.mktemp("finished")
    write(directory)
    done = fractopt(directory, "run", "c.toml", "--workers", "2")
    assert done.returncode == 0, done.stderr
    (directory / "stdout").write_text(done.stdout)
    (directory / "stderr").write_text(done.stderr)
    return directory


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """A command in this process: for those that only read."""
    return lambda *arguments: CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `fractopt run` in the background, and waits for its first result."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, results: int = 1) -> subprocess.Popen[str]:
        path = tmp_path / f"log{len(started)}"
        with path.open("w") as log:
            process = subprocess.Popen(
                [*FRACTOPT, "run", *arguments],
                cwd=tmp_path,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment(),
            )
        started.append(process)
        deadline = time.monotonic() + 30
        while len(re.findall(r"/\d+ trial", path.read_text())) < results:
            assert time.monotonic() < deadline, path.read_text()
            assert process.poll() is None, path.read_text()
            time.sleep(0.02)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


# --- help


def test_help_answers_without_the_heavy_packages() -> None:
    code = """
import sys
sys.argv = ["fractopt", "--help"]
from fractopt.cli.main import main
try:
    main()
except SystemExit as end:
    assert end.code == 0
heavy = ["numpy", "torch", "h5py", "pydantic", "rich", "scipy", "pandas", "mpi4py", "matplotlib"]
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("run", "check", "init", "status", "best", "show", "export", "bench"):
        assert f"\n  {command} " in done.stdout


def test_a_run_never_loads_torch_in_the_master(tmp_path: Path) -> None:
    write(tmp_path, budget=2)
    code = """
import sys, atexit
heavy = ["torch", "litgpt", "lm_eval", "pandas", "matplotlib"]
atexit.register(lambda: print([name for name in heavy if name in sys.modules]))
sys.argv = ["fractopt", "run", "c.toml"]
from fractopt.cli.main import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_usage_mistakes_exit_with_2(invoke: Callable[..., Result]) -> None:
    for arguments in (
        ("nonsense",), ("run",), ("run", "c.toml", "--budgt", "3"), ("run", "c.toml", "--budget", "0"),
        ("run", "c.toml", "--workers", "x"), ("show", "d"), ("show", "d", "x"), ("check",),
        ("export", "d", "--format", "xml"),
    ):  # fmt: skip
        result = invoke(*arguments)
        assert result.exit_code == 2, arguments
        assert result.stdout == ""
        assert "Error" in result.stderr


# --- a run to its end


def test_a_finished_run_says_its_best_on_stdout_and_the_rest_on_stderr(finished: Path) -> None:
    out, err = (finished / "stdout").read_text(), (finished / "stderr").read_text()
    assert out.startswith("recommended      trial ")
    assert "the best observed: the objective has no noise\n" in out
    assert "budget           6 of 6 evaluations: 6 ok" in out
    assert len(re.findall(r"^\d\d:\d\d:\d\d    ./6 trial   .: ", err, re.MULTILINE)) == 6  # a line for each
    assert "the budget is met; archive runs/c/archive.h5" in err
    directory = finished / "runs" / "c"
    assert load(directory).complete
    assert not (directory / "LOCK").exists()
    meta = json.loads((directory / "meta.json").read_text())
    assert meta["arguments"] == ["run", "c.toml", "--workers", "2"]
    assert meta["versions"]["fractopt"]
    resolved = read_config(directory / "run.toml")
    assert resolved.manifest().differences(load(directory).manifest) == []


def test_a_second_run_without_resume_is_refused_and_changes_nothing(finished: Path) -> None:
    before = contents(finished / "runs")
    done = fractopt(finished, "run", "c.toml")
    assert done.returncode == 4
    assert "runs/c holds a run already. Continue it with --resume" in message(done)
    assert contents(finished / "runs") == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--seed", "5"), "seed: 0 in the archive, now 5"),
        (("--optimizer", "random"), "optimizer: 'soo' in the archive, now 'random'"),
        (("--set", "space.x.high=6"), "space.x.high: 5.0 in the archive, now 6.0"),
        (("--set", "objective.sleep=1"), "objective.sleep: 0.0 in the archive, now 1.0"),
    ],
)
def test_a_resume_with_another_configuration_is_refused_and_changes_nothing(
    finished: Path, arguments: tuple[str, ...], line: str
) -> None:
    before = contents(finished / "runs")
    done = fractopt(finished, "run", "c.toml", "--resume", *arguments)
    assert done.returncode == 4
    assert f"  {line}\n" in message(done)
    assert contents(finished / "runs") == before


def test_resume_starts_a_run_where_none_is_and_raises_the_budget_later(tmp_path: Path) -> None:
    write(tmp_path, budget=3)
    for options, told in ((("--resume",), 3), (("--resume",), 3), (("--resume", "--budget", "7"), 7)):
        done = fractopt(tmp_path, "run", "c.toml", "--out", "o", *options)
        assert done.returncode == 0, done.stderr
        assert len(load(tmp_path / "o").evaluations) == told
    assert len(list((tmp_path / "o" / "evals").iterdir())) == 7


def test_a_resume_says_that_its_search_has_ended_and_what_takes_it_up_again(tmp_path: Path) -> None:
    write(tmp_path)
    fractopt(tmp_path, "run", "c.toml", "--set", "stop.target=1000")
    ended = "its search has ended (the target 1000 is reached"
    harder = ("run", "c.toml", "--resume", "--set", "stop.target=1e-9")
    done = fractopt(tmp_path, *harder)
    assert f"{ended}: trial 0 has " in message(done)
    assert "another --budget takes it up again" in message(done)
    done = fractopt(tmp_path, *harder, "--budget", "5")
    assert ended not in message(done)
    assert len(load(tmp_path / "runs" / "c").evaluations) == 5


def test_the_options_override_the_file(tmp_path: Path) -> None:
    write(tmp_path, budget=50)
    options = ["--budget", "3", "--seed", "9", "--optimizer", "random", "--set", "objective.function=ackley"]
    done = fractopt(tmp_path, "run", "c.toml", *options, "--out", "deep/er/o")
    assert done.returncode == 0, done.stderr
    history = load(tmp_path / "deep" / "er" / "o")
    assert (history.budget, history.manifest.seed, history.manifest.optimizer) == (3, 9, "random")
    assert history.manifest.objective["function"] == "ackley"


# --- mistakes


def test_a_configuration_with_mistakes_exits_with_3_and_makes_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    done = fractopt(tmp_path, "run", "c.toml", "--set", "run.budgt=3", "--set", "optimizer.name=sooo")
    assert done.returncode == 3
    assert message(done).startswith(
        "fractopt: c.toml: 2 mistakes\n  run.budgt: unknown key; did you mean 'budget'?"
    )
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()
    done = fractopt(tmp_path, "run", "none.toml")
    assert (done.returncode, message(done)) == (
        3, "fractopt: none.toml: 1 mistake\n  cannot be read: No such file or directory\n"
    )  # fmt: skip


@pytest.mark.parametrize("command", ["status", "best", "export", "show"])
def test_readers_of_no_run_exit_with_4(tmp_path: Path, invoke: Callable[..., Result], command: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.h5").write_text("no HDF5")
    more = (0,) if command == "show" else ()
    for name, text in (
        ("nowhere", "there is no run at"), ("empty", "there is no archive at"), ("text.h5", "cannot be read")
    ):  # fmt: skip
        result = invoke(command, tmp_path / name, *more)
        assert result.exit_code == 4
        assert text in result.stderr
        assert result.stderr.startswith("fractopt: ")
        assert result.stdout == ""


def test_the_folder_of_the_runs_in_place_of_a_run_names_them(
    finished: Path, invoke: Callable[..., Result]
) -> None:
    result = invoke("status", finished / "runs")
    assert result.exit_code == 4
    assert f"; it holds the runs {finished / 'runs' / 'c'}\n" in result.stderr
    result = invoke("status", finished / "c.toml")
    assert result.exit_code == 4
    assert "it is no HDF5 file. Expected a run directory, or its archive.h5" in result.stderr


def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "main.tex").write_text("mine")
    for options in ((), ("--resume",)):
        done = fractopt(tmp_path, "run", "c.toml", "--out", "thesis", *options)
        assert done.returncode == 4
        assert "thesis is not empty and holds no run of fractopt (but main.tex)" in message(done)
    assert contents(tmp_path / "thesis") == {"main.tex": b"mine"}


def test_a_damaged_journal_is_said_and_left_alone(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "f")
    (path,) = (tmp_path / "f" / "runs" / "c" / "journal").glob("*.wal")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    before = contents(tmp_path / "f")
    done = fractopt(tmp_path / "f", "run", "c.toml", "--resume")
    assert done.returncode == 4
    assert "is damaged (at byte" in message(done)
    assert contents(tmp_path / "f") == before


def test_a_recorded_history_that_does_not_fit_the_optimizer_is_said(finished: Path, tmp_path: Path) -> None:
    """As after a change of the tree's code: the points on record are not those of this build."""
    from fractopt.archive.journal import encode_line, read_segment

    shutil.copytree(finished, tmp_path / "f")
    (path,) = (tmp_path / "f" / "runs" / "c" / "journal").glob("*.wal")
    records = list(read_segment(path).records)
    for record in records:
        if record.get("event") == "asked":
            record["unit"] = [[0.25] * 2] * len(record["unit"])
    path.write_bytes(b"".join(map(encode_line, records)))
    done = fractopt(tmp_path / "f", "run", "c.toml", "--resume", "--budget", "9")
    assert done.returncode == 4
    assert "the recorded history does not fit optimizer 'soo': trial 0 was recorded at" in message(done)


def test_an_objective_that_cannot_be_set_up_exits_with_1_and_its_own_text(tmp_path: Path) -> None:
    write(tmp_path)
    options = ["--trust-code", "--set", "objective={kind='python', function='nowhere:f'}", "--workers", "2"]
    done = fractopt(tmp_path, "run", "c.toml", *options)
    assert done.returncode == 1
    assert "there is no module 'nowhere' for the function 'nowhere:f'" in message(done)
    assert "no configuration has a value" in done.stdout
    assert "nothing was evaluated: put right what is wrong" in done.stderr
    assert fractopt(tmp_path, "status", "runs/c", "--check").returncode == 1
    assert fractopt(tmp_path, "run", "c.toml").returncode == 0  # corrected: the directory is free
    assert fractopt(tmp_path, "run", "c.toml", "--resume", "--budget", "2").returncode == 3


def test_a_function_of_the_users_that_always_fails_exits_with_1_and_shows_its_reason(tmp_path: Path) -> None:
    write(tmp_path, budget=30)
    (tmp_path / "mine.py").write_text("def f(x, y):\n    raise RuntimeError('no such file: \\udcff.json')\n")
    options = ["--trust-code", "--set", "objective={kind='python', function='mine:f'}"]
    done = fractopt(tmp_path, "run", "c.toml", *options, "--set", "failure.abort_above.after=4")
    assert done.returncode == 1
    assert "4 of 4 evaluations failed, the last one with: RuntimeError: no such file" in done.stderr
    for command in (("status", "runs/c"), ("show", "runs/c", "0"), ("export", "runs/c"), ("best", "runs/c")):
        shown = fractopt(tmp_path, *command)
        message(shown)
        assert shown.returncode == (1 if command[0] == "best" else 0)
        assert "no such file" in shown.stdout + shown.stderr or command[0] == "best"
    log = (tmp_path / "runs" / "c" / "evals" / "000000" / "stderr.log").read_text(errors="replace")
    assert "RuntimeError: no such file" in log  # the whole traceback is there


def test_a_run_without_a_single_value_is_no_success_though_its_budget_is_met(tmp_path: Path) -> None:
    write(tmp_path, budget=2)
    (tmp_path / "mine.py").write_text("def f(x, y):\n    return float('nan')\n")
    options = ["--trust-code", "--set", "objective={kind='python', function='mine:f'}"]
    done = fractopt(tmp_path, "run", "c.toml", *options)
    assert done.returncode == 1
    assert "not one configuration has a value: fractopt status runs/c shows the last reasons" in message(done)
    assert load(tmp_path / "runs" / "c").counts() == {"diverged": 2}


# --- check and init


def test_check_says_what_would_run(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    path = write(tmp_path)
    result = invoke("check", path, "--set", "default={x=1,y=99}", "--set", "run.anchors=['default']")
    assert result.exit_code == 0
    assert f"{path} is valid\n" in result.stdout
    assert "objective  synthetic: minimize value" in result.stdout
    assert "budget     6 evaluations, of which anchors: default" in result.stdout
    assert "space      x: float in [-5.0, 5.0]" in result.stdout
    assert "default.y = 99 lies outside the space, 5.0 is used" in result.stderr
    result = invoke("check", path, "--set", "run.budget=0")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "run.budget: expected at least 1, got 0" in result.stderr
    result = invoke("check", path, "--set", "objective={kind='python',function='m:f'}")
    assert result.exit_code == 3
    assert (
        invoke("check", path, "--trust-code", "--set", "objective={kind='python',function='m:f'}").exit_code
        == 0
    )


def test_check_says_what_this_machine_lacks(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    path = tmp_path / "l.toml"
    invoke("init", path)
    changes = ["--set", "objective.model={name='nobody/Llama-3.2-1B'}", "--set", "objective.data.name=a/b"]
    result = invoke("check", path, *changes)
    assert result.exit_code == 0
    model, data, command = result.stderr.splitlines()
    assert model.startswith("missing    objective.model.name: 'nobody/Llama-3.2-1B' is not on this machine")
    assert data.startswith("missing    objective.data.name: 'a/b' is not on this machine")
    assert command == f"  get them   fractopt fetch {path} {shlex.join(changes)}"
    refused = fractopt(tmp_path, "run", str(path), *changes)
    assert refused.returncode == 3
    assert f"; run: fractopt fetch {path} {shlex.join(changes)}" in refused.stderr
    assert "missing" not in invoke("check", write(tmp_path)).output


def test_bench_without_matplotlib_keeps_its_results(
    tmp_path: Path, invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for module in ("matplotlib.backends.backend_agg", "matplotlib.colors"):
        monkeypatch.setitem(sys.modules, module, None)
    options = ["--optimizers", "random", "--budget", "3", "--seeds", "1", "--out"]
    result = invoke("bench", "branin", *options, tmp_path / "out")
    assert result.exit_code == 1
    assert "pip install 'fractopt[report]'; the results are in" in result.stderr
    assert json.loads((tmp_path / "out" / "branin.json").read_text())["function"] == "branin"
    (tmp_path / "file").write_text("")
    result = invoke("bench", "branin", *options, tmp_path / "file")
    assert (result.exit_code, result.stdout) == (1, "")  # said before anything is computed


def test_init_writes_a_valid_configuration_once(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    path = tmp_path / "new.toml"
    result = invoke("init", path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"wrote {path}" in result.stderr
    assert read_config(path).run.anchors == ("base", "default")
    written = path.read_bytes()
    result = invoke("init", path)
    assert result.exit_code == 1
    assert "exists already and was left as it is" in result.stderr
    assert path.read_bytes() == written
    result = invoke("init", tmp_path / "no" / "new.toml")
    assert result.exit_code == 1
    assert f"fractopt: No such file or directory: {tmp_path / 'no' / 'new.toml'}\n" == result.stderr


# --- reading a run


def test_status_of_a_finished_run(finished: Path, invoke: Callable[..., Result]) -> None:
    directory = finished / "runs" / "c"
    result = invoke("status", directory, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert (report["state"], report["evaluations"], report["budget"]) == ("complete", 6, 6)
    assert report["counts"] == {"ok": 6}
    assert set(report["best"]["params"]) == {"x", "y"}
    assert (
        f"{directory}: complete\n6 of 6 evaluations (6 ok)\nrecommended trial"
        in invoke("status", directory).stdout
    )
    result = invoke("status", directory, "--check")
    assert (result.exit_code, result.stdout) == (0, "")


def test_best_show_and_export_give_data_on_stdout(finished: Path, invoke: Callable[..., Result]) -> None:
    directory = finished / "runs" / "c"
    history = load(directory)
    best = history.best
    assert best is not None
    report = json.loads(invoke("best", directory, "--json").stdout)
    named = {"trial": best.id, "params": best.params, "value": best.value, "stderr": None}
    assert report["best"] == named
    assert (report["base"], report["default"], report["evaluations"]) == (None, None, 6)
    assert (report["recommended"]["trial"], report["recommended"]["mean"]) == (best.id, best.value)
    assert report["recommended"]["value"] is None  # there are no replicates
    assert invoke("best", directory).stdout == (finished / "stdout").read_text()

    shown = invoke("show", directory, best.id).stdout
    assert f"evaluation {best.id} (search)" in shown
    assert f"x = {best.params['x']!r}" in shown
    assert "attempt 0: " in shown
    assert "result.json, stderr.log, stdout.log" in shown
    result = invoke("show", directory, 99)
    assert result.exit_code == 1
    assert "has no evaluation 99; it has 0 to 5" in result.stderr

    rows = list(csv.DictReader(io.StringIO(invoke("export", directory).stdout)))
    records = json.loads(invoke("export", directory, "--format", "json").stdout)
    assert len(rows) == len(records) == 6
    for row, record, known in zip(rows, records, history.evaluations, strict=True):
        assert float(row["value"]) == record["value"] == known.value
        assert float(row["x"]) == record["x"] == known.params["x"]
        assert row["stderr"] == ""
        assert record["stderr"] is None


def test_a_run_with_replicates_reports_the_mean_of_those_that_chose_nothing(
    tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    path = write(tmp_path, budget=14)
    options = ["--set", "run.replicates=4", "--set", "objective.noise=5"]
    checked = invoke("check", path, *options)
    assert "replicates the last 4 evaluations repeat the best 2 configurations, each with a" in checked.stdout
    assert checked.stderr == ""
    exact = invoke("check", path, *options[:2])
    assert exact.stderr.startswith("warning    run.replicates: this objective has no noise, so a replicate")

    done = fractopt(tmp_path, "run", "c.toml", "--workers", "2", *options)
    assert done.returncode == 0, done.stderr
    assert "the last 4 evaluations repeat the best 2 configurations" in done.stderr
    history = load(tmp_path / "runs" / "c")
    report = json.loads(invoke("best", tmp_path / "runs" / "c", "--json").stdout)
    number = report["recommended"]["trial"]
    values = [row.value for row in history.confirmations(number)]
    assert values
    assert report["recommended"]["value"] == sum(values) / len(values)
    assert report["recommended"]["params"] == history.rows[number].params
    assert not history.rows[report["best"]["trial"]].kind.is_replicate
    assert done.stdout.startswith(
        f"recommended      trial {number}: value {sum(values) / len(values):.6g} ± "
    )
    assert "took no part in the choice\n" in done.stdout
    assert "; 4 of them replicates\n" in done.stdout
    assert invoke("best", tmp_path / "runs" / "c").stdout == done.stdout
    assert json.loads(invoke("status", tmp_path / "runs" / "c", "--json").stdout)["replicates"] == 4


def test_a_stopped_run_recommends_when_it_is_asked(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    write(tmp_path, budget=9, sleep=0.3)
    done = fractopt(tmp_path, "run", "c.toml", "--set", "run.walltime=2", "--set", "objective.noise=5")
    assert done.returncode == 75, done.stderr
    assert done.stdout.startswith("best observed    trial ")
    directory = tmp_path / "runs" / "c"
    assert json.loads(invoke("status", directory, "--json").stdout)["recommended"] is None
    assert invoke("best", directory).stdout.startswith("recommended      trial ")


def test_an_archive_by_itself_is_read_as_well(
    finished: Path, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    path = tmp_path / "copied.h5"
    shutil.copy(finished / "runs" / "c" / "archive.h5", path)
    for command in (("best", path), ("export", path), ("show", path, 2), ("status", path)):
        result = invoke(*command)
        assert result.exit_code == 0, result.output
        assert result.stdout
    assert "complete" in invoke("status", path).stdout


def test_a_reader_that_leaves_early_gets_no_message(finished: Path) -> None:
    command = ["bash", "-c", '"$@" | head -c 1', "bash", *FRACTOPT, "export", str(finished / "runs" / "c")]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[", "")


# --- while it runs


def test_status_and_a_second_master_while_it_runs(
    tmp_path: Path, running: Callable[..., subprocess.Popen[str]], invoke: Callable[..., Result]
) -> None:
    write(tmp_path, budget=200, sleep=0.1)
    process = running("c.toml", "--workers", "2", results=25)  # 2 s: workers are on the board by then
    directory = tmp_path / "runs" / "c"
    report = json.loads(invoke("status", directory, "--json").stdout)
    assert report["state"] == "running"
    assert f"pid {process.pid}" in report["owner"]
    assert report["evaluations"] >= 25
    assert [w["worker"] for w in report["workers"]] == [1, 2]
    assert {"host", "device", "trial", "phase", "step", "total", "loss", "eta_s"} <= set(report["workers"][0])
    assert report["eta_s"] > 0
    assert "worker 1" in invoke("status", directory).stdout
    assert invoke("status", directory, "--check").exit_code == 75

    began = time.monotonic()
    for options in (("--resume",), ()):
        second = fractopt(tmp_path, "run", "c.toml", *options)
        assert second.returncode == 4
        text = message(second)
        assert f"pid {process.pid}" in text or "holds a run already" in text
    assert time.monotonic() - began < 10
    assert process.poll() is None


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_stop_signal_ends_with_75_even_when_sent_twice_and_resume_completes(
    tmp_path: Path, running: Callable[..., subprocess.Popen[str]], name: str
) -> None:
    write(tmp_path, budget=8, sleep=0.15)
    process = running("c.toml", "--workers", "2")
    for _ in range(40):  # as launchers and schedulers do
        process.send_signal(getattr(signal, name))
        time.sleep(0.005)
    assert process.wait(20) == 75
    said = (tmp_path / "log0").read_text()
    assert f"stopped by {name}" in said
    assert "--resume" in said
    assert "Traceback" not in said
    directory = tmp_path / "runs" / "c"
    assert not (directory / "LOCK").exists()
    before = load(directory)
    assert 0 < len(before.evaluations) < 8
    assert CliRunner().invoke(main, ["status", str(directory), "--check"]).exit_code == 75
    done = fractopt(tmp_path, "run", "c.toml", "--resume", "--workers", "3")
    assert done.returncode == 0, done.stderr
    after = load(directory)
    assert len(after.evaluations) == 8
    for row in before.evaluations:
        assert after.rows[row.id].outcome == row.outcome
        assert len(after.rows[row.id].attempts) == len(row.attempts)


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, running: Callable[..., subprocess.Popen[str]]) -> None:
    write(tmp_path, budget=50, sleep=0.2)
    process = running("c.toml")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    assert process.wait(20) == 75
    assert "Traceback" not in (tmp_path / "log0").read_text()
    assert fractopt(tmp_path, "run", "c.toml", "--resume", "--budget", "3").returncode == 0


def test_a_killed_master_loses_nothing_that_it_said(
    tmp_path: Path, running: Callable[..., subprocess.Popen[str]]
) -> None:
    write(tmp_path, budget=9, sleep=0.1)
    process = running("c.toml", "--workers", "2", results=3)
    process.kill()
    process.wait()
    said = {int(n) for n in re.findall(r"/9 trial +(\d+)", (tmp_path / "log0").read_text())}
    history = load(tmp_path / "runs" / "c")
    assert said <= {row.id for row in history.evaluations}
    done = fractopt(tmp_path, "run", "c.toml", "--resume", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "runs" / "c").counts() == {"ok": 9}


def test_a_lock_removed_by_hand_stops_the_master_with_4(
    tmp_path: Path, running: Callable[..., subprocess.Popen[str]]
) -> None:
    write(tmp_path, budget=200, sleep=0.1)
    process = running("c.toml")
    (tmp_path / "runs" / "c" / "LOCK").unlink()
    assert process.wait(20) == 4
    assert "taken over by nobody" in (tmp_path / "log0").read_text()


# --- a full disk


def test_a_full_disk_is_a_message_and_the_run_goes_on_once_there_is_room(tmp_path: Path) -> None:
    write(tmp_path, budget=40)
    done = fractopt(tmp_path, "run", "c.toml", "--workers", "2", limit_kib=12)
    assert done.returncode == 1
    text = message(done)
    assert "File too large" in text
    assert "once there is room" in text
    history = load(tmp_path / "runs" / "c")
    said = {int(n) for n in re.findall(r"/40 trial +(\d+)", text)}
    assert said == {row.id for row in history.evaluations}
    assert said
    done = fractopt(tmp_path, "run", "c.toml", "--workers", "2", "--resume")
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "runs" / "c").counts() == {"ok": 40}


def test_a_disk_full_from_the_start_is_a_message_and_can_be_tried_again(tmp_path: Path) -> None:
    write(tmp_path, budget=3)
    done = fractopt(tmp_path, "run", "c.toml", limit_kib=1)
    assert done.returncode == 1
    assert message(done).startswith("fractopt: File too large: runs/c/")
    done = fractopt(tmp_path, "run", "c.toml", "--resume")
    assert done.returncode == 0, done.stderr


# --- launchers


def test_srun_without_mpi_and_slurm_without_srun_are_refused_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path)
    done = fractopt(tmp_path, "run", "c.toml", SLURM_NTASKS="4")
    assert done.returncode == 2
    assert "SLURM gave this job 4 tasks, but no launcher started this process" in message(done)
    done = fractopt(tmp_path, "run", "c.toml", "--workers", "2", PMI_SIZE="3")
    assert done.returncode == 2
    assert "--workers is for a run without a launcher" in message(done)
    assert not (tmp_path / "runs").exists()


@pytest.mark.mpi
@pytest.mark.skipif(find_spec("mpi4py") is None, reason="pip install 'fractopt[mpi]'")
def test_it_starts_its_own_ranks(tmp_path: Path) -> None:
    write(tmp_path, budget=6)
    done = fractopt(tmp_path, "run", "c.toml", "--workers=2", "--mpi", "--set", "run.seed=3")
    assert done.returncode == 0, done.stderr
    started, *_ = message(done).splitlines()
    assert "starting a master and 2 workers: " in started
    assert started.endswith("mpirun -n 3 fractopt run c.toml --set run.seed=3")
    history = load(tmp_path / "runs" / "c")
    assert history.complete
    assert history.manifest.seed == 3
    assert set(history.workers) <= {1, 2}  # a fast one may have done it all
    meta = json.loads((tmp_path / "runs" / "c" / "meta.json").read_text())
    assert meta["arguments"] == ["run", "c.toml", "--set", "run.seed=3"]


def test_ranks_without_a_number_are_refused_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path)
    done = fractopt(tmp_path, "run", "c.toml", "--mpi")
    assert done.returncode == 2
    assert "--mpi: expected --workers N beside it" in message(done)
    assert not (tmp_path / "runs").exists()


def test_variables_of_schedulers_that_hold_no_number_are_as_if_unset(tmp_path: Path) -> None:
    write(tmp_path, budget=2)
    odd = {"SLURM_NTASKS": "", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "x", "SLURM_JOB_END_TIME": "NONE"}
    done = fractopt(tmp_path, "run", "c.toml", "--set", "run.walltime=auto", **odd)
    assert done.returncode == 0, done.stderr
    done = fractopt(tmp_path, "run", "c.toml", "--out", "o", OAR_JOB_ID="abc", OAR_JOB_WALLTIME_SECONDS="x")
    assert done.returncode == 0, done.stderr
