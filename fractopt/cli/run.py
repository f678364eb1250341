"""`fractopt run`: from a configuration to a finished, resumable or failed run."""

from __future__ import annotations

import errno
import logging
import os
import platform
import shlex
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fractopt.cli.check import said_with
from fractopt.cli.console import Exit, log_to_stderr, reporting, resumable, say
from fractopt.text import masked_setting, shown

if TYPE_CHECKING:
    from fractopt.archive.store import Archive
    from fractopt.config.read import Config
    from fractopt.master import Ending, Master
    from fractopt.parallel.transport import Transport

log = logging.getLogger("fractopt.run")

# BLAS threads of the master: its matrices are small, two threads take twice the CPU for the same time, the
# cores are the evaluations' (which are told their own number), and sums would depend on the host's cores.
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Run directory. [default: runs/NAME of CONFIG]")
@click.option("--budget", type=click.IntRange(min=1), help="Evaluations in all, those of a resumed run too.")
@click.option("--optimizer", help="Another optimizer than CONFIG's, with its own default settings.")
@click.option("--seed", type=click.IntRange(min=0), help="Another seed than CONFIG's.")
@click.option("--workers", type=click.IntRange(min=1), help="How many to start without mpirun. [default: 1]")
@click.option(
    "--mpi/--no-mpi",
    default=None,
    help="Start them as ranks of mpirun, or as processes here. [default: ranks in a job of several nodes]",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change any value of CONFIG.")
@click.option("--trust-code", is_flag=True, help="Allow an objective that runs Python code of yours.")
@click.option("--resume", is_flag=True, help="Continue the run in the directory, or start it.")
@reporting
def run(
    config: Path,
    out: Path | None,
    budget: int | None,
    optimizer: str | None,
    seed: int | None,
    workers: int | None,
    mpi: bool | None,
    overrides: tuple[str, ...],
    trust_code: bool,
    resume: bool,
) -> None:
    """Run the optimisation that CONFIG describes, alone or under mpirun.

    Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 4 run directory in use or damaged,
    75 (in a job of OAR 99) stopped and resumable.
    """
    log_to_stderr()
    os.environ |= dict.fromkeys(BLAS_THREADS, "1")  # nothing has loaded numpy yet
    _start_ranks(workers, mpi)
    transport, leave = _workers(workers)
    named = {"run.budget": budget, "run.seed": seed}
    extra = [f"{key}={value}" for key, value in named.items() if value is not None]
    if optimizer is not None:
        extra += [f'optimizer.name="{optimizer}"', "optimizer.settings={}"]
    if trust_code:
        extra.append("trust.code=true")
    signals = _StopSignals()
    try:
        code = _run(config, (*overrides, *extra), out, transport, resume, signals)
    except KeyboardInterrupt:
        log.error("stopped at once; what was committed stands, go on with --resume")
        code = resumable()
    except BaseException as error:
        # The other ranks wait for a word from here, whatever happened.
        known = say(error)
        if known is None:
            click.echo(shown(traceback.format_exc()), err=True)
        code = Exit.FAILED if known is None else known
    signals.ignore()
    leave(code)


def _run(
    path: Path,
    overrides: Sequence[str],
    out: Path | None,
    transport: Transport,
    resume: bool,
    signals: _StopSignals,
) -> Exit:
    from fractopt.config.mistakes import ConfigError
    from fractopt.config.read import read_config

    config = read_config(path, overrides)
    if absences := config.settings.absences():
        raise ConfigError(str(path), [said_with(absence, path, overrides) for absence in absences])
    for name, given in config.projected.items():
        used = (config.default or {})[name]
        log.warning("default.%s = %r lies outside the space, %r is used", name, given, used)
    if config.foreign_code:
        log.warning("trust.code: this run executes code of yours: %s", config.foreign_code)
    # No shell expands the ~ of --out=~/runs.
    directory = (out or Path("runs") / path.stem).expanduser()
    archive = _open(config, directory, resume)
    if config.replicates:
        log.info("%s", config.replicate_line())
    try:
        ending = _master(config, archive, transport, signals)
        archive.close(complete=ending.complete, reason=ending.reason, failed=ending.failed)
    except OSError as error:
        archive.abandon()
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        log.error(
            "cannot go on in %s: %s; what was committed stands, go on with --resume%s",
            directory,
            error.strerror or error,
            " once there is room" if full else "",
        )
        return Exit.FAILED
    except BaseException:
        archive.abandon()
        raise
    return _report(archive, directory, ending)


def _open(config: Config, directory: Path, resume: bool) -> Archive:
    from fractopt.archive.store import Archive, has_begun
    from fractopt.config.mistakes import ConfigError

    if resume and has_begun(directory):
        in_a_job = any(name in os.environ for name in ("SLURM_JOB_ID", "OAR_JOB_ID"))
        archive = Archive.resume(directory, config.manifest(), config.text, _meta(), watch=in_a_job)
        told = len(archive.history.evaluations)
        if config.run.budget < told:
            archive.abandon()
            more = f"is below the {told} evaluations that {directory} has; give {told} or more"
            raise ConfigError(str(config.source), [f"run.budget: {config.run.budget} {more}"])
        log.info("resuming %s: %d of %d evaluations are there", directory, told, config.run.budget)
        history = archive.history
        asked = (config.run.budget, config.replicates)
        if history.stopped is not None and asked == (history.budget, history.replicates):
            log.info("its search has ended (%s); another --budget takes it up again", history.stopped)
        return archive
    archive = Archive.create(directory, config.manifest(), config.text, _meta())
    log.info("run directory %s, %d evaluations by %s", directory, config.run.budget, config.optimizer)
    return archive


def _master(config: Config, archive: Archive, transport: Transport, signals: _StopSignals) -> Ending:
    from fractopt.archive.journal import ArchiveError
    from fractopt.master import Master
    from fractopt.optimizer.study import Study
    from fractopt.parallel.beside import Beside
    from fractopt.parallel.message import Setup

    study = Study(
        config.space,
        config.optimizer,
        config.run.budget,
        seed=config.run.seed,
        direction=config.direction,
        anchors=config.run.anchors,
        default=config.default,
        settings=config.optimizer_settings,
        replicates=config.run.replicates,
        candidates=config.run.candidates,
        deterministic=config.deterministic,
        record=archive.record,
    )
    try:
        study.fold(archive.history.events)
    except (LookupError, ValueError, TypeError, ArithmeticError) as error:
        raise ArchiveError(
            f"{archive.directory}: the recorded history does not fit optimizer {config.optimizer!r}: {error}"
        ) from None
    setup = Setup(
        config.objective,
        str(archive.directory.resolve()),
        config.limits,
        config.lease_s,
        config.gpus_per_worker,
        config.share_gpus,
    )
    with _display(archive.directory.name) as on_turn:
        master = Master(
            study,
            transport,
            archive,
            setup,
            policy=config.policy,
            tests=config.tests,
            stop=config.stop,
            walltime_s=config.walltime_s(),
            keep_adapters=config.keep_adapters,
            beside=Beside(),
            on_turn=on_turn,
        )
        signals.stop(master)
        return master.run()


def _report(archive: Archive, directory: Path, ending: Ending) -> Exit:
    from fractopt.report.verdict import recommended, verdict_lines

    with suppress(BrokenPipeError):  # nobody reads it: the run is no worse for that
        for line in verdict_lines(archive.history, directory, recommended(archive.history)):
            click.echo(line)
    log.info("%s; archive %s", ending.reason, directory / "archive.h5")
    if ending.complete and archive.history.best is None:
        log.error("not one configuration has a value: fractopt status %s shows the last reasons", directory)
        return Exit.FAILED
    if ending.complete:
        return Exit.DONE
    if archive.history.rows:
        first = "put right what is wrong, then " if ending.failed else ""
        log.info("%sresume with the same command and --resume", first)
    else:
        log.info("nothing was evaluated: put right what is wrong, and give the same command again")
    return Exit.FAILED if ending.failed else resumable()


def _start_ranks(count: int | None, mpi: bool | None) -> None:
    """Become mpirun, with `count` workers, where that is asked for, or where a job has several nodes.

    On one node processes are the same run with less to go wrong: no launcher, no MPI, half the cost of a
    dispatch (bench/results/idle_and_dispatch.md). On several they would leave all but one idle.
    """
    from fractopt.parallel.launch import launched
    from fractopt.parallel.mpirun import command, nodes

    if launched() > 1 or (mpi is None and (count is None or nodes(os.environ) == 1)) or mpi is False:
        return
    if count is None:
        raise click.UsageError("--mpi: expected --workers N beside it, or mpirun -n N fractopt run ...")
    start, environment = command(count, os.environ, root=os.geteuid() == 0)
    given = [sys.executable, "-m", "fractopt", *_without_launch(sys.argv[1:])]
    log.info("starting a master and %d workers: %s", count, shlex.join([*start, "fractopt", *given[3:]]))
    os.execve(start[0], [*start, *given], environment)


def _without_launch(arguments: Sequence[str]) -> list[str]:
    """The command line without what says how many ranks to start, and whether."""
    left, words = [], iter(arguments)
    for word in words:
        if word == "--workers":
            next(words)
        elif word != "--mpi" and not word.startswith("--workers="):
            left.append(word)
    return left


def _workers(count: int | None) -> tuple[Transport, Callable[[int], NoReturn]]:
    """The workers, and how to leave them with an exit code: other ranks under a launcher, else processes.

    Under a launcher only rank 0 returns from this; the others serve it to their end.
    """
    from fractopt.parallel.launch import check_mpi, launched

    if launched() > 1:
        if count is not None:
            raise click.UsageError(
                "--workers is for a run without a launcher; mpirun -n N gives N - 1 workers"
            )
        check_mpi()
        from fractopt.parallel.mpi import MpiTransport, is_master
        from fractopt.parallel.rank import serve

        if not is_master():
            serve()
        ranks = MpiTransport()
        return ranks, ranks.leave
    tasks = os.environ.get("SLURM_NTASKS", "")
    if count is None and tasks.isdecimal() and int(tasks) > 1:
        raise click.UsageError(
            f"SLURM gave this job {tasks} tasks, but no launcher started this "
            f"process: use mpirun fractopt run ..., or say --workers N to run N local processes"
        )
    from fractopt.parallel.processes import ProcessesTransport
    from fractopt.parallel.transport import GRACE_S

    processes = ProcessesTransport(count or 1)

    def leave(code: int) -> NoReturn:
        processes.close(GRACE_S)
        sys.exit(code)

    return processes, leave


@contextmanager
def _display(title: str) -> Iterator[Any]:
    """A live picture on a terminal; nothing in a batch log, where the log's lines are enough."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.logging import RichHandler

    from fractopt.report.live import LiveDisplay

    console = Console(stderr=True)
    log_to_stderr(RichHandler(console=console, show_time=False, show_level=False, show_path=False))
    try:
        with LiveDisplay(console, title) as display:
            yield display.update
    finally:
        log_to_stderr()


class _StopSignals:
    """The first stop signal ends the run in order, a second Ctrl-C at once.

    From the first moment to the last: a signal that comes before there is a master stops it when it
    begins, and schedulers like to send theirs twice, the second one while the archive is closed.
    """

    def __init__(self) -> None:
        self._asked: list[str] = []
        self._master: Master | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._take)

    def stop(self, master: Master) -> None:
        """Have `master` stop at the next signal, or at once where there was one."""
        self._master = master
        if self._asked:
            master.request_stop(f"stopped by {self._asked[0]}")

    def ignore(self) -> None:
        """From now on to the end of the process: the exit code is decided."""
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _take(self, number: int, frame: object) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGINT and name in self._asked:
            raise KeyboardInterrupt
        self._asked.append(name)
        if self._master is not None:
            self._master.request_stop(f"stopped by {name}")


def _meta() -> dict[str, Any]:
    """Where and with what the run is made: for people who read it years later."""
    packages = ("fractopt", "numpy", "scipy", "h5py", "torch", "litgpt", "lm_eval", "mpi4py", "openmpi")
    return {
        "versions": {name: _version(name) for name in packages},
        "python": platform.python_version(),
        "host": platform.node(),
        "system": platform.platform(),
        "arguments": [masked_setting(argument) for argument in sys.argv[1:]],
        "directory": os.getcwd(),
        "commit": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The git commit of the working directory, where it is a checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
