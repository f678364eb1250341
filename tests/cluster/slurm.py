"""A real SLURM of several nodes on this machine: Debian's daemons, with folders and ports of their own.

It takes root, `apt-get install --no-install-recommends slurm-wlm munge`, and no systemd; it writes nothing
outside its folder. Debian's build allows several slurmd on a host, each with a port and a name. What is
unlike a real cluster: the nodes share a host name and two cores, no cgroup confines a job, and a GPU is a
device file that reads as /dev/null.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from reaper import MARK, Reaper, environment, living, opened

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "sinfo", "scancel")
START_S = 30.0
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")

CONF = """\
ClusterName=fractopt
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its credential has expired: 5 s here, 120 s by default.
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,requeue_delay=0
PriorityType=priority/basic
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait={kill_wait_s}
ReturnToService=2
SlurmdTimeout=30
# The machine has fewer cores than its nodes say.
SlurmdParameters=config_overrides
GresTypes=gpu
JobRequeue=1
NodeName=DEFAULT CPUs={cores} RealMemory=4000 Gres=gpu:fake:{gpus} State=UNKNOWN
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=n[1-{count}] Default=YES MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
PartitionName=low Nodes=n[1-{count}] MaxTime=INFINITE State=UP PriorityTier=1
"""


def why_not() -> str:
    """Why there can be no SLURM here; empty where there can."""
    if os.geteuid() != 0:
        return "SLURM's daemons want root here"
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        return f"no {missing[0]}: apt-get install --no-install-recommends slurm-wlm munge"
    with tempfile.TemporaryDirectory() as folder:
        try:
            _make_device(Path(folder) / "nvidia0")
        except PermissionError:
            return "this container makes no device files, which stand for GPUs"
    return ""


class Slurm:
    """The cluster, from `with` to its end. Nothing of it is left then, whatever its jobs did.

    `limit_s` is how long it may last at all: see `reaper`.
    """

    def __init__(self, nodes: int = 2, gpus: int = 4, cores: int = 16, limit_s: float = 600.0) -> None:
        self.names = [f"n{number}" for number in range(1, nodes + 1)]
        self.gpus = gpus
        self.cores = cores
        self.limit_s = limit_s
        self.mark = uuid.uuid4().hex
        self.folder = Path()
        self.environment: dict[str, str] = {}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Slurm:
        with ExitStack() as stack:
            # A short path: that of munge's socket has room for 107 bytes.
            folder = tempfile.mkdtemp(prefix="fractopt-slurm-", dir="/tmp")
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self.folder = Path(folder)
            self.folder.chmod(0o755)  # munge's clients want to look into it
            self.environment = _environment(self.mark, self.folder)
            reaper = Reaper(self.mark, self.folder, self.limit_s)
            stack.callback(reaper.close)
            self._write()
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for daemon in self._daemons.values():
            daemon.wait()

    def _write(self) -> None:
        for name in ("dev", "state", *(f"spool.{node}" for node in self.names)):
            (self.folder / name).mkdir()
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o400)
        devices = [self.folder / "dev" / f"nvidia{index}" for index in range(self.gpus)]
        for device in devices:
            _make_device(device)
        ports = _free_ports(1 + len(self.names))
        host = socket.gethostname().split(".")[0]
        lines = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            for name, port in zip(self.names, ports[1:], strict=True)
        ]
        names = f"n[1-{len(self.names)}]"
        (self.folder / "gres.conf").write_text(
            f"NodeName={names} Name=gpu Type=fake File={self.folder}/dev/nvidia[0-{self.gpus - 1}]\n"
        )
        text = CONF.format(
            host=host,
            port=ports[0],
            folder=self.folder,
            cores=self.cores,
            gpus=self.gpus,
            nodes="\n".join(lines),
            count=len(self.names),
            kill_wait_s=5,
        )
        (self.folder / "slurm.conf").write_text(text)

    def _start(self) -> None:
        munge = ["munged", "--foreground", "--force", f"--key-file={self.folder}/munge.key"]
        munge += [f"--socket={self.folder}/munge.sock", f"--pid-file={self.folder}/munged.pid"]
        munge += [f"--log-file={self.folder}/munged.log", f"--seed-file={self.folder}/munge.seed"]
        self._daemon("munged", [*munge, "--num-threads=2"])
        self._await("munge's socket", lambda: (self.folder / "munge.sock").exists())
        self._daemon("slurmctld", ["slurmctld", "-D", "-c"])
        for name in self.names:
            self.start_node(name)
        self._await("idle nodes", lambda: len(self.idle_nodes()) == len(self.names))

    def _daemon(self, name: str, command: Sequence[str]) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _await(self, what: str, there: object) -> None:
        until = time.monotonic() + START_S
        while not there():  # type: ignore[operator]
            dead = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > until:
                raise RuntimeError(f"no {what}; ended: {dead}\n{self.logs()}")
            time.sleep(0.1)

    def start_node(self, name: str) -> None:
        self._daemon(name, ["slurmd", "-D", "-N", name])

    def idle_nodes(self) -> set[str]:
        return set(self._ask("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").split())

    def submit(
        self,
        script: Path,
        *arguments: str,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """`sbatch options script arguments` in the script's folder; the number of the job."""
        command = ["sbatch", "--parsable", *options, str(script), *arguments]
        done = self.run(*command, folder=script.parent, environment=environment)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    def job(self, number: int) -> dict[str, str]:
        """What `scontrol show job` says of it. Of an array, of its first task."""
        words = self._ask("scontrol", "--oneliner", "show", "job", str(number)).splitlines()[0].split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: int, states: Iterable[str], within_s: float) -> dict[str, str]:
        """Wait until the job is in one of `states`; raises AssertionError with all the logs."""
        states = tuple(states)
        until = time.monotonic() + within_s
        while (job := self.job(number))["JobState"] not in states:
            assert time.monotonic() < until, f"job {number} is {job}, not {states}\n{self.logs()}"
            time.sleep(0.2)
        return job

    def _ask(self, *command: str) -> str:
        done = self.run(*command)
        return done.stdout

    def run(
        self, *command: str, folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a user of the cluster would."""
        return subprocess.run(
            command,
            env={**self.environment, **(environment or {})},
            cwd=folder or self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def on_node(self, name: str) -> list[int]:
        """All that runs on a node: its daemon, what supervises its jobs, and these."""
        here = f"SLURMD_NODENAME={name}".encode()
        return [
            pid
            for pid in living(self.mark, self.folder)
            if here in environment(pid) or f"slurmd.{name}.log" in opened(pid, self.folder)
        ]

    def signal_node(self, name: str, number: signal.Signals) -> None:
        """Send a signal to everything that runs on a node: SIGKILL is a power cut, SIGSTOP a hang."""
        seen: set[int] = set()
        while new := set(self.on_node(name)) - seen:
            for pid in new:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            seen |= new

    def of_jobs(self) -> list[int]:
        """What lives of all jobs, and what supervises them."""
        daemons = {daemon.pid for daemon in self._daemons.values()}
        logs = {f"slurmd.{name}.log" for name in self.names}
        return [
            pid
            for pid in set(living(self.mark, self.folder)) - daemons
            if any(entry.startswith(b"SLURM_JOB_ID=") for entry in environment(pid))
            or logs & set(opened(pid, self.folder))
        ]

    def logs(self) -> str:
        """The end of every log, for a failed assertion."""
        paths = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")])
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)


def _make_device(path: Path) -> None:
    os.mknod(path, 0o20666, os.makedev(1, 3))  # /dev/null


def _environment(mark: str, folder: Path) -> dict[str, str]:
    """That of a user's shell: nothing of a launcher's or of another SLURM's in it."""
    foreign = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "FRACTOPT_", "SLURM")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    clean.pop("VIRTUAL_ENV", None)
    beside = str(Path(sys.executable).parent)
    return {
        **clean,
        MARK: mark,
        "PATH": os.pathsep.join([beside, clean.get("PATH", "/usr/bin:/bin"), "/usr/sbin", "/sbin"]),
        "SLURM_CONF": str(folder / "slurm.conf"),
        # Only because these jobs are root's.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
