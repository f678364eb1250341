"""A real OAR of one node on this machine: Debian's packages, with a database of its own.

It takes root, `apt-get install --no-install-recommends oar-server oar-node oar-user oar-server-pgsql
oar-user-pgsql postgresql openssh-server`, and no systemd. Not for a machine that somebody uses: OAR reads
nothing but /etc/oar/oar.conf, which is replaced and put back at the end, listens on port 6667, and refuses
root's jobs, so a user is made for them and removed. One node only: the two nodes of a host have one name, and
Open MPI then fails in MPI_Init (several nodes are tried on SLURM). No cgroup confines a job.
"""

from __future__ import annotations

import os
import pwd
import re
import resource
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from reaper import Reaper

PROGRAMS = ("oarsub", "oarstat", "oarnodesetting", "Almighty", "oar-database", "sshd")
USER = "fractopt-oar"
CONF = Path("/etc/oar/oar.conf")
START_S = 60.0
# Of the user and of oar, counted by the kernel: a job that forks without end fails, and ends.
PROCESSES = 300
OVER = ("Terminated", "Error")


def why_not() -> str:
    """Why there can be no OAR here; empty where there can."""
    if os.geteuid() != 0:
        return "OAR's daemons want root here"
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing or not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return f"no {(missing or ['postgresql'])[0]}: see the packages in tests/cluster/oar.py"
    if _python() is None:
        return f"an ordinary user can run no Python {sysconfig.get_python_version()} here"
    return ""


def _python() -> str | None:
    """A Python of our version that a user can run; that of a virtual environment may be root's alone."""
    ask = "import sysconfig; print(sysconfig.get_python_version())"
    for path in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError):
            done = subprocess.run(
                [path, "-c", ask], user="nobody", cwd="/", capture_output=True, text=True, check=False
            )
            if done.stdout.strip() == sysconfig.get_python_version():
                return path
    return None


class Oar:
    """The cluster, from `with` to its end; `folder` is the home of the user whose jobs run there."""

    def __init__(self, gpus: int = 4, cores_per_gpu: int = 2, limit_s: float = 1500.0) -> None:
        self.gpus = gpus
        self.cores_per_gpu = cores_per_gpu
        self.limit_s = limit_s
        self.folder = Path()
        self.database = Path()
        self.programs = Path()  # mpirun, fractopt and the Python that the user can run
        self._port = 0
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Oar:
        with ExitStack() as stack:
            # What an interrupted test left behind.
            subprocess.run(["userdel", "--remove", USER], capture_output=True, check=False)
            subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", USER], check=True)
            stack.callback(subprocess.run, ["userdel", "--remove", USER], capture_output=True, check=False)
            self.folder = Path(pwd.getpwnam(USER).pw_dir)
            self.database = Path(tempfile.mkdtemp(prefix="fractopt-oar-", dir="/tmp"))
            stack.callback(shutil.rmtree, self.database, ignore_errors=True)
            reaper = Reaper(self.database.name, self.database, self.limit_s, users=(USER, "oar"))
            stack.callback(reaper.close)
            self._configure(stack)
            self._start(stack)
            self._describe_node()
            self.programs = self._make_environment()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for daemon in self._daemons.values():
            daemon.wait()

    def _configure(self, stack: ExitStack) -> None:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            self._port, server_port = one.getsockname()[1], other.getsockname()[1]
        before = CONF.read_text()
        values = {
            "DB_PORT": str(self._port),
            "DB_BASE_PASSWD": "oar",
            "DB_BASE_PASSWD_RO": "oar_ro",
            "SERVER_PORT": str(server_port),
            "LOG_LEVEL": "3",
            "LOG_FILE": f"{self.database}/oar.log",
            # Nodes are not asked whether they live: the usual ways need a cpuset, or a daemon more.
            "PINGCHECKER_GENERIC_COMMAND": "/bin/true",
            "SCHEDULER_JOB_SECURITY_TIME": "2",
        }
        # Without a cpuset there is no kernel's help in finding the processes of a job.
        dropped = ("PINGCHECKER_SENTINELLE_SCRIPT_COMMAND", "JOB_RESOURCE_MANAGER_PROPERTY_DB_FIELD")
        kept = [line for line in before.splitlines() if line.split("=")[0].strip() not in {*values, *dropped}]
        stack.callback(CONF.write_text, before)
        CONF.write_text("\n".join([*kept, *(f'{name}="{value}"' for name, value in values.items())]) + "\n")
        shutil.chown(CONF, "oar")
        CONF.chmod(0o600)
        # Of the log-ins of oar between the daemons; a locked account takes no key.
        subprocess.run(["usermod", "--password", "*", "oar"], check=True)

    def _start(self, stack: ExitStack) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        data = self.database / "data"
        shutil.chown(self.database, "postgres")
        self.database.chmod(0o755)
        initdb = [str(binaries / "initdb"), "--pgdata", str(data), "--auth=trust", "--no-sync"]
        subprocess.run(initdb, user="postgres", cwd="/", capture_output=True, check=True, env={"LC_ALL": "C"})
        options = ["-p", str(self._port), "-k", str(self.database), "-c", "listen_addresses=127.0.0.1"]
        self._daemon("postgres", [str(binaries / "postgres"), "-D", str(data), *options], user="postgres")
        self._await("database", lambda: (self.database / f".s.PGSQL.{self._port}").exists())
        create = [
            "oar-database",
            "--create",
            "--db-admin-user=postgres",
            "--db-admin-pass=any",
            "--force-yes",
        ]
        self._do(*create)
        Path("/run/sshd").mkdir(exist_ok=True)
        self._daemon("sshd", ["/usr/sbin/sshd", "-D", "-f", "/etc/oar/sshd_config", "-o", "PidFile=none"])
        self._daemon("Almighty", ["/usr/sbin/Almighty"])
        self._await("answer", lambda: self._run("oarnodes", "-l").returncode == 0)

    def _describe_node(self) -> None:
        """One node, a resource for each core, several of them a GPU: OAR_NODEFILE gets a line for each."""
        for name in ("gpu", "gpudevice"):
            self._do("oarproperty", "-a", name)
        self._do("oarproperty", "-c", "-a", "host")
        for core in range(self.gpus * self.cores_per_gpu):
            gpu = core // self.cores_per_gpu
            node = ["-h", "127.0.0.1", "-p", "host=127.0.0.1", "-p", f"cpuset={core}"]
            self._do("oarnodesetting", "-a", *node, "-p", f"gpu={gpu + 1}", "-p", f"gpudevice={gpu}")
        self._do("oarnodesetting", "-s", "Alive", "--sql", "1=1")

    def _daemon(self, name: str, command: Sequence[str], user: str | None = None) -> None:
        with (self.database / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command,
                user=user,
                cwd="/",
                # Of the shell that started the tests nothing is inherited: start-up files of root's that
                # a job's shell runs again can fork without end.
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_limit_processes,
            )

    def _await(self, what: str, there: Callable[[], bool]) -> None:
        until = time.monotonic() + START_S
        while not there():
            dead = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > until:
                raise RuntimeError(f"no {what}; ended: {dead}\n{self.logs()}")
            time.sleep(0.1)

    def _run(
        self, *command: str, user: str | None = None, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        where = folder or self.folder
        return subprocess.run(
            command,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            cwd=where,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": str(self.folder),
                "PWD": str(where),  # where OAR runs a job
                "USER": user or "root",
                "LOGNAME": user or "root",
                "SHELL": "/bin/bash",
                "LC_ALL": "C",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _do(self, *command: str) -> None:
        done = self._run(*command)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}\n{self.logs()}")

    def submit(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`oarsub ARGUMENTS` as the user, in `folder`."""
        return self._run("oarsub", *arguments, user=USER, folder=folder)

    def delete(self, number: int) -> None:
        """`oardel NUMBER` as the user."""
        done = self._run("oardel", str(number), user=USER)
        assert done.returncode == 0, done.stderr

    def state(self, number: int) -> str:
        """Such as Waiting, Running, Terminated."""
        done = self._run("oarstat", "-s", "-j", str(number))
        return done.stdout.split()[-1] if done.stdout.split() else ""

    def jobs_of(self, array: int) -> list[int]:
        """The job of this number and those that were submitted again for it, in order."""
        sql = f"select job_id from jobs where array_id = {array} order by job_id"
        psql = ["psql", "-qAt", "-h", str(self.database), "-p", str(self._port), "-U", "postgres", "oar"]
        done = self._run(*psql, "-c", sql)
        return [int(word) for word in done.stdout.split()]

    def wait(self, number: int, states: Iterable[str], within_s: float) -> str:
        """Wait until the job is in one of `states`; raises AssertionError with the logs."""
        states = tuple(states)
        until = time.monotonic() + within_s
        while (state := self.state(number)) not in states:
            assert time.monotonic() < until, f"job {number} is {state}, not {states}\n{self.logs()}"
            time.sleep(0.5)
        return state

    def _make_environment(self) -> Path:
        """A virtual environment of the user's that has all that this Python has; its folder of programs."""
        python = _python()
        assert python is not None
        environment = self.folder / "venv"
        subprocess.run([python, "-m", "venv", "--without-pip", str(environment)], check=True)
        version = sysconfig.get_python_version()
        packages = environment / "lib" / f"python{version}" / "site-packages"
        ours = sysconfig.get_path("purelib")
        (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        bin_ = environment / "bin"
        (bin_ / "fractopt").write_text(
            f"#!{bin_}/python\nimport sys\nfrom fractopt.cli.main import main\nsys.exit(main())\n"
        )
        (bin_ / "fractopt").chmod(0o755)
        for name in ("mpirun", "prted"):
            (bin_ / name).symlink_to(Path(sys.executable).with_name(name))
        return bin_

    def give(self, path: Path) -> None:
        """Make `path`, and what is in it, the user's."""
        for one in (path, *path.rglob("*")):
            shutil.chown(one, USER, USER)

    def processes(self) -> list[str]:
        """The living processes of the user, by command line."""
        done = subprocess.run(
            ["ps", "-o", "stat=,args=", "-u", USER], capture_output=True, text=True, check=False
        )
        return [line for line in done.stdout.splitlines() if not re.match(r"[ZX]", line)]

    def logs(self) -> str:
        """The end of every log, for a failed assertion."""
        paths = sorted([*self.database.glob("*.log"), *self.database.glob("*.out")])
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)


def _limit_processes() -> None:
    resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
