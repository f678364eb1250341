"""`fractopt job`: what it prints and refuses, and what its scripts do, with programs that only say so."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fractopt.cli.job import active_environment, script

ROOT = Path(__file__).resolve().parents[2]
SCHEDULERS = ("slurm", "oar")


def fractopt(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "fractopt", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def printed(scheduler: str, **changes: object) -> str:
    shape: dict[str, object] = {
        "nodes": 2,
        "gpus": 4,
        "cores": 8,
        "walltime_s": 43200,
        "besteffort": False,
        "site": (),
        "setup": (),
        "command": "fractopt job",
    }
    return script(scheduler, Path("run.toml"), Path("runs/run"), **{**shape, **changes})  # type: ignore[arg-type]


def options(text: str, scheduler: str) -> list[str]:
    """The lines that the scheduler reads."""
    start = {"slurm": "#SBATCH ", "oar": "#OAR "}[scheduler]
    return [line.removeprefix(start) for line in text.splitlines() if line.startswith(start)]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_scripts_in_jobs_are_what_their_own_command_prints(scheduler: str) -> None:
    text = (ROOT / "jobs" / f"{scheduler}.sh").read_text()
    (command,) = re.findall(r"^#     (fractopt job .*)$", text, flags=re.MULTILINE)
    done = fractopt(*shlex.split(command)[1:])
    assert done.returncode == 0, done.stderr
    assert done.stdout == text
    assert f"{scheduler} jobs/llama.toml --nodes 2 --gpus 4 --walltime 12h" in command


def test_a_job_finds_this_fractopt_and_what_was_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VIRTUAL_ENV", "/work/my env")
    monkeypatch.setenv("HF_HOME", "/scratch/my hf")
    monkeypatch.setenv("HF_TOKEN", "hf_CANARYcanaryCANARYcanaryCANARYcanary")
    assert active_environment() == (
        ". '/work/my env'/bin/activate",
        "export HF_HOME='/scratch/my hf'",
    )
    monkeypatch.delenv("VIRTUAL_ENV")
    monkeypatch.delenv("HF_HOME")
    (line,) = active_environment()
    assert line.startswith("export PATH=")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("besteffort", [False, True])
def test_scripts_are_sound_bash(scheduler: str, besteffort: bool) -> None:
    text = printed(scheduler, besteffort=besteffort, setup=("module load openmpi",), site=("-p gpu",))
    assert "{{" not in text
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if shellcheck := shutil.which("shellcheck"):
        done = subprocess.run([shellcheck, "-"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("nodes", "gpus", "cores", "each", "cores_per_rank"),
    [(2, 4, 8, 5, 6), (1, 1, 8, 2, 4), (1, 8, 16, 9, 14), (50, 4, 10, 5, 8), (1, 4, 1, 5, 1)],
)
def test_slurm_gives_every_node_room_for_its_workers_and_no_more_cores_than_it_has(
    nodes: int, gpus: int, cores: int, each: int, cores_per_rank: int
) -> None:
    text = printed("slurm", nodes=nodes, gpus=gpus, cores=cores)
    assert {f"--nodes={nodes}", f"--gres=gpu:{gpus}", f"--ntasks-per-node={each}"} <= set(
        options(text, "slurm")
    )
    assert f"--cpus-per-task={cores_per_rank}" in options(text, "slurm")
    assert f"mpirun -n {nodes * gpus + 1} fractopt run run.toml" in text.replace('"$CONFIG"', "run.toml")


def test_options_and_lines_of_the_site_are_where_they_count() -> None:
    for scheduler in SCHEDULERS:
        text = printed(scheduler, site=("--gres=gpu:a100:4", "-p gpu"), setup=("module load openmpi/5",))
        assert options(text, scheduler)[-2:] == ["--gres=gpu:a100:4", "-p gpu"]  # the last one counts
        assert text.index("#SBATCH" if scheduler == "slurm" else "#OAR") < text.index("\nmodule load")
        assert text.index("\nmodule load openmpi/5\n") < text.index("command -v")


def test_a_job_that_slurm_may_preempt_names_its_qos_and_knows_that_it_comes_back() -> None:
    arguments = ("job", "slurm", "jobs/tiny.toml", "--besteffort", "--site", "--qos=scavenger")
    done = fractopt(*arguments)
    assert done.returncode == 0, done.stderr
    assert {"--qos=scavenger", "--requeue", "--open-mode=append"} <= set(options(done.stdout, "slurm"))
    assert "##SBATCH" not in done.stdout


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_with_several_gpus_for_a_worker_there_are_as_many_workers_as_groups(
    scheduler: str, tmp_path: Path
) -> None:
    text = printed(scheduler, gpus=8, each=2)
    assert text.splitlines()[1].startswith(f"# run.toml on {scheduler.upper()}: 8 workers with 2 GPUs each")
    if scheduler == "slurm":
        wanted = {"--gres=gpu:8", "--ntasks-per-node=5", "--cpus-per-task=12"}
        assert wanted <= set(options(text, scheduler))
        assert "mpirun -n 9 " in text
    else:
        assert "-l host=2/gpu=8,walltime=12:00:00" in options(text, scheduler)
        assert '"slots=" 4 + (++nodes == 1)' in text
    config = tmp_path / "c.toml"
    config.write_text(
        '[run]\nbudget = 4\n[optimizer]\nname = "random"\n[space]\nx = {type = "float", low = 0, high = 1}\n'
        '[objective]\nkind = "synthetic"\nfunction = "sphere"\n[workers]\ngpus_per_worker = 3\n'
    )
    done = fractopt("job", scheduler, str(config), "--gpus", "4")
    assert done.returncode == 2
    assert "--gpus: 4 GPUs of a node cannot be shared out 3 to a worker" in done.stderr
    assert (
        fractopt("job", scheduler, str(config), "--gpus", "6").stdout.count("2 workers with 3 GPUs each") == 1
    )


def test_a_besteffort_job_differs_in_one_line() -> None:
    plain, besteffort = (printed("oar", besteffort=value) for value in (False, True))
    assert "-t besteffort" not in options(plain, "oar")
    assert set(options(besteffort, "oar")) - set(options(plain, "oar")) == {"-t besteffort"}
    assert "\n##OAR -t besteffort\n" in plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slurm", "missing.toml"], "cannot be read: No such file or directory"),
        (["pbs", "jobs/tiny.toml"], "'pbs' is not one of 'oar', 'slurm'"),
        (["slurm", "jobs/tiny.toml", "--walltime", "12"], "--walltime: expected a duration such as"),
        (["slurm", "jobs/tiny.toml", "--walltime", "4m"], "--walltime: expected more than 4 minutes, got 4m"),
        (["slurm", "jobs/llama.toml", "--walltime", "3h"], "--walltime: an evaluation may last 4 h"),
        (["oar", "jobs/tiny.toml", "--gpus", "0"], "'--gpus': 0 is not in the range x>=1"),
        (["slurm", "jobs/tiny.toml", "--besteffort"], "--besteffort: in SLURM a partition or a QOS"),
        (
            ["oar", "jobs/tiny.toml", "--site", "-p gpu\nrm -rf ."],
            "--site: expected one option of the scheduler",
        ),
        (["slurm", "jobs/tiny.toml", "--site", "#SBATCH -p gpu"], "--site: expected one option of the sch"),
    ],
)
def test_mistakes_are_one_message(arguments: list[str], message: str) -> None:
    done = fractopt("job", *arguments)
    assert done.returncode == (3 if "missing.toml" in arguments else 2)
    assert done.stdout == ""
    said = [line for line in done.stderr.splitlines() if message in line]
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr


class Job:
    """A printed script, run with an mpirun, a fractopt and a scontrol that write down how they are called."""

    def __init__(self, folder: Path, scheduler: str, *arguments: str, code: int, **environment: str) -> None:
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        said = folder / "said"
        stubs = {
            "mpirun": f"""echo mpirun "$@" >> {said}
                [ "$1" = --hostfile ] && cat "$2" > {folder}/hosts
                trap 'echo USR1 >> {said}; exit 0' USR1
                trap 'echo USR2 >> {said}; exit 0' USR2
                trap 'echo TERM >> {said}; exit 0' TERM
                echo "$SLURM_JOB_END_TIME" > {folder}/end
                : > {folder}/up
                for _ in $(seq ${{MPIRUN_S:-0}}0); do sleep 0.1; done""",
            "fractopt": f'echo fractopt "$@" >> {said}; exit {code}',
            "scontrol": f'echo scontrol "$@" >> {said}',
            "squeue": 'echo "$ENDS"',
        }
        for name, text in stubs.items():
            (programs / name).write_text(f"#!/bin/bash\n{text}\n")
            (programs / name).chmod(0o755)
        path = folder / "job.sh"
        path.write_text(printed(scheduler))
        foreign = ("SLURM", "OAR", "PRTE", "OMPI", "FRACTOPT")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.process = subprocess.Popen(
            ["bash", str(path), *arguments],
            cwd=folder,
            env={**clean, "PATH": f"{programs}:{clean['PATH']}", **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def signal(self, number: signal.Signals) -> None:
        until = time.monotonic() + 20
        while not (self.folder / "up").exists() and time.monotonic() < until:
            time.sleep(0.01)
        self.process.send_signal(number)

    def end(self) -> tuple[int, list[str]]:
        """Exit code, and what was called."""
        _, err = self.process.communicate(timeout=30)
        assert err == ""
        return self.process.returncode, (self.folder / "said").read_text().splitlines()


IN_SLURM = {"SLURM_JOB_ID": "7", "SHORTEST_S": "-1", "ENDS": "2038-01-19T03:14:07", "TZ": "UTC"}
RUN = "run.toml --out {} --resume"


def test_slurm_a_stopped_run_is_requeued(tmp_path: Path) -> None:
    job = Job(tmp_path, "slurm", code=75, MPIRUN_S="20", **IN_SLURM)
    job.signal(signal.SIGUSR1)
    assert job.end() == (
        75,
        [
            f"mpirun -n 9 fractopt run {RUN.format('runs/run')}",
            "USR1",
            "fractopt status runs/run --check",
            "scontrol requeue 7",
        ],
    )


@pytest.mark.parametrize(
    ("code", "cancel", "shortest_s"),
    [
        pytest.param(0, False, "-1", id="a complete run"),
        pytest.param(1, False, "-1", id="a failed run"),
        pytest.param(75, True, "-1", id="a cancelled job"),
        pytest.param(75, False, "60", id="a job that ended at once"),
    ],
)
def test_slurm_nothing_else_is_requeued(tmp_path: Path, code: int, cancel: bool, shortest_s: str) -> None:
    environment = {**IN_SLURM, "SHORTEST_S": shortest_s, "MPIRUN_S": "20" if cancel else "0"}
    job = Job(tmp_path, "slurm", code=code, **environment)
    if cancel:
        job.signal(signal.SIGTERM)
    ended, said = job.end()
    assert ended == code
    assert said[1:] == [*(["TERM"] if cancel else []), "fractopt status runs/run --check"]


@pytest.mark.parametrize(
    ("environment", "end"),
    [
        pytest.param({}, "2147483647", id="an older SLURM: squeue is asked"),
        pytest.param({"SLURM_JOB_END_TIME": "7"}, "7", id="a newer SLURM says it"),
        pytest.param({"ENDS": ""}, "", id="squeue does not answer: never midnight"),
        pytest.param({"ENDS": "N/A"}, "", id="no limit"),
    ],
)
def test_slurm_a_run_knows_when_its_job_ends(tmp_path: Path, environment: dict[str, str], end: str) -> None:
    Job(tmp_path, "slurm", code=0, **{**IN_SLURM, **environment}).end()
    assert (tmp_path / "end").read_text().strip() == end


def test_slurm_a_task_of_an_array_is_a_run_of_its_own(tmp_path: Path) -> None:
    job = Job(tmp_path, "slurm", code=0, SLURM_ARRAY_TASK_ID="3", **IN_SLURM)
    assert job.end()[1] == [
        f"mpirun -n 9 fractopt run {RUN.format('runs/run-seed3')} --seed 3",
        "fractopt status runs/run-seed3 --check",
    ]


def test_slurm_arguments_are_the_directory_and_options(tmp_path: Path) -> None:
    job = Job(tmp_path, "slurm", "runs/a b", "--budget", "9", code=0, **IN_SLURM)
    assert job.end()[1][0] == f"mpirun -n 9 fractopt run {RUN.format('runs/a b')} --budget 9"


def test_oar_hosts_are_counted_once_whatever_the_site_lists(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("grele-9\n" * 32 + "grele-10\n" * 32)  # a line for each core
    job = Job(tmp_path, "oar", code=99, MPIRUN_S="20", OAR_NODEFILE=str(tmp_path / "nodes"))
    job.signal(signal.SIGUSR2)
    code, said = job.end()
    assert code == 99
    assert (tmp_path / "hosts").read_text() == "grele-9 slots=5\ngrele-10 slots=4\n"
    assert re.fullmatch(rf"mpirun --hostfile \S+ -n 9 .* fractopt run {RUN.format('runs/run')}", said[0])
    assert said[1:] == ["USR2", "fractopt status runs/run --check"]
    assert (tmp_path / "runs" / "run.out").exists()  # the log, beside the run


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_missing_module_is_one_line(tmp_path: Path, scheduler: str) -> None:
    for name in ("bash", "awk"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        ["bash", "-c", printed(scheduler)],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = "no mpirun in this job: which 'module load' or 'activate' is missing above this line?\n"
    assert (done.returncode, done.stderr) == (1, expected)
