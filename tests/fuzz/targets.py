"""What reads input that somebody else may have made, each with a way to make such inputs by number.

A target is `prepare(folder)`, then for each number `make(rng)` and `read(input)`. `read` returns True
where the input was accepted and False where it was refused in words; every other exception is a breach.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from click.testing import CliRunner
from mutations import as_json, as_toml, damaged, odd, restructured

sys.path.append(str(Path(__file__).resolve().parents[1] / "archive"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "parallel"))

import runs

from fractopt.archive.journal import ArchiveError, encode_line, read_segment
from fractopt.archive.lock import Lock, read_owner
from fractopt.archive.manifest import Manifest
from fractopt.archive.result import evaluation_directory, keep_result, surviving_result
from fractopt.archive.store import Archive, load
from fractopt.cli.main import main
from fractopt.config.mistakes import ConfigError
from fractopt.config.read import read_config
from fractopt.objective.command.reply import read_outcome
from fractopt.optimizer.study import Study
from fractopt.parallel.message import Finished, decode, encode
from fractopt.report.status import status, status_lines
from fractopt.report.tables import as_csv, row_lines
from fractopt.report.verdict import recommended, recommended_now, verdict_lines
from fractopt.trial import Kind, Outcome, Status, Trial

LONGEST_MESSAGE = 20_000  # characters that a user is shown for one mistake or for all of them
PLAIN = """
[run]
budget = 12
seed = 3
replicates = 0.2
anchors = ["default"]
walltime = "4h"
[optimizer]
name = "random"
[space]
x = { type = "float", low = -5, high = 5 }
n = { type = "int", low = 2, high = 64, log = true }
c = { type = "categorical", values = ["a", "b", 3] }
o = { type = "ordinal", values = [16, 32, 64] }
[default]
x = 0.5
n = 16
c = "a"
o = 32
[objective]
kind = "python"
function = "mine:loss"
[failure]
timeout = "10m"
failed = { retry = 1, then = "drop" }
abort_above = { rate = 0.5, after = 10 }
[trust]
code = true
"""


class Target:
    """One reader. `name` says it in the command line of `attack`, `claim` in the table of results."""

    name: ClassVar[str]
    claim: ClassVar[str]

    def prepare(self, folder: Path) -> None:
        """Once, before the first input; `folder` is empty and the current directory."""
        self.folder = folder

    def make(self, rng: random.Random) -> Any:
        raise NotImplementedError

    def read(self, given: Any) -> bool:
        raise NotImplementedError


def in_words(error: Exception) -> bool:
    """False, for an error that a user can read: of some length, without control characters but tabs."""
    text = str(error)
    if not text or len(text) > LONGEST_MESSAGE:
        raise AssertionError(f"a message of {len(text)} characters: {text[:300]!r}")
    if odd_one := next((c for c in text if not c.isprintable() and c not in "\n\t"), None):
        raise AssertionError(f"{odd_one!r} in a message: {text[:300]!r}")
    return False


class Configurations(Target):
    name = "toml"
    claim = "a configuration is read, or refused by ConfigError"

    def prepare(self, folder: Path) -> None:
        import tomllib

        super().prepare(folder)
        root = Path(__file__).resolve().parents[2]
        texts = [PLAIN, *((root / "jobs" / f"{name}.toml").read_text() for name in ("tiny", "llama"))]
        self.texts = texts
        self.tables = [tomllib.loads(text) for text in texts]
        self.path = folder / "c.toml"

    def make(self, rng: random.Random) -> Any:
        pick = rng.choice((0, 0, 0, 0, 0, 0, 1, 2))
        draw = rng.random()
        if draw < 0.35:
            data = damaged(rng, self.texts[pick].encode(), rng.choice((1, 1, 2, 5)))
        elif draw < 0.95:
            table = restructured(rng, self.tables[pick], rng.choice((1, 1, 2, 4)))
            data = as_toml(rng, table).encode(errors="surrogatepass")
        else:
            dots = ".".join("a" * rng.choice((10, 3000)))
            data = f"[{dots}]\n{dots} = {rng.choice((1, '[' * 2000, '{a=' * 2000))}\n".encode()
        overrides = []
        if rng.random() < 0.2:
            key = rng.choice(("run.budget", "space.x.low", "optimizer.settings.a.b", "a", "", ".", "run"))
            overrides.append(f"{key}={odd(rng)}" if rng.random() < 0.9 else key)
        return data, overrides

    def read(self, given: Any) -> bool:
        data, overrides = given
        self.path.write_bytes(data)
        try:
            config = read_config(self.path, overrides)
        except ConfigError as error:
            return in_words(error)
        config.manifest()
        config.replicate_line()
        config.text.encode()
        return True


class Messages(Target):
    name = "messages"
    claim = "a message of a worker or a master is decoded, or refused by ValueError"

    def prepare(self, folder: Path) -> None:
        from test_message import MESSAGES

        super().prepare(folder)
        self.lines = [encode(message) for message in MESSAGES]

    def make(self, rng: random.Random) -> Any:
        line = rng.choice(self.lines)
        if rng.random() < 0.4:
            return damaged(rng, line, rng.choice((1, 1, 3)))
        return as_json(rng, restructured(rng, json.loads(line), rng.choice((1, 1, 2))))

    def read(self, given: Any) -> bool:
        try:
            message = decode(given)
        except ValueError as error:
            return in_words(error)
        encode(message)  # what was accepted can be said again
        return True


class Results(Target):
    name = "results"
    claim = "result.json is taken over, or ignored"

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        self.trial = Trial(3, Kind.SEARCH, (0.5,), {"x": 0.5}, 77)
        self.place = evaluation_directory(folder, 3)
        self.place.mkdir(parents=True)
        outcome = Outcome(Status.OK, 0.25, 0.01, {"acc": 0.5}, 2.0, "fine")
        keep_result(self.place, 3, 0, 77, outcome)
        self.data = (self.place / "result.json").read_bytes()

    def make(self, rng: random.Random) -> Any:
        if rng.random() < 0.4:
            return damaged(rng, self.data, rng.choice((1, 1, 3)))
        return as_json(rng, restructured(rng, json.loads(self.data), rng.choice((1, 1, 2))))

    def read(self, given: Any) -> bool:
        (self.place / "result.json").write_bytes(given)
        outcome = surviving_result(self.folder, self.trial)
        if outcome is not None:
            json.dumps(outcome.to_json(), allow_nan=False)
        return outcome is not None


class Replies(Target):
    name = "replies"
    claim = "outcome.json of a user's program is taken, or refused by ValueError"

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        self.records: list[dict[str, Any]] = [
            {
                "value": 0.25,
                "stderr": 0.01,
                "status": "ok",
                "metrics": {"acc": 0.5, "f1": 1},
                "message": "fine",
            },
            {"status": "diverged", "message": "the loss became nan"},
        ]

    def make(self, rng: random.Random) -> Any:
        record = rng.choice(self.records)
        if rng.random() < 0.4:
            return damaged(rng, json.dumps(record).encode(), rng.choice((1, 1, 3)))
        return as_json(rng, restructured(rng, record, rng.choice((1, 1, 2))))

    def read(self, given: Any) -> bool:
        (self.folder / "outcome.json").write_bytes(given)
        try:
            outcome = read_outcome(self.folder / "outcome.json", ("acc",), asked=True)
        except ValueError as error:
            return in_words(error)
        encode(Finished(1, 0, 0, outcome, 1.0))
        return True


class Journals(Target):
    """With right checksums too: what a bug, or somebody's editor, might have written."""

    name = "journals"
    claim = "a run directory's journal is read and reported, or refused by ArchiveError"

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        self.runs = []
        for optimizer in ("random", "soo", "direct"):
            directory = folder / "source" / optimizer
            archive = runs.create(
                directory, optimizer=optimizer, anchors=(), default=None, **_plain(optimizer)
            )
            run(archive)
            self.runs.append(list(read_segment(directory / "journal" / "0001.wal").records))
        self.directory = folder / "run"
        (self.directory / "journal").mkdir(parents=True)

    def make(self, rng: random.Random) -> Any:
        records = list(rng.choice(self.runs))
        if rng.random() < 0.3:
            return damaged(rng, b"".join(map(encode_line, records)), rng.choice((1, 1, 3)))
        lines = []
        chosen = {rng.randrange(len(records)) for _ in range(rng.choice((1, 1, 2)))}
        for i, record in enumerate(records):
            if i not in chosen:
                lines.append(record)
            elif rng.random() < 0.8:
                lines.append(restructured(rng, record, rng.choice((1, 2))))
            else:
                lines += rng.choice(([], [record, record], [rng.choice(records)]))
        if rng.random() < 0.5:
            return b"".join(_line(as_json(rng, record)) for record in lines)
        first, *rest = lines or [{}]
        commit = {"after": 1, "records": rest}
        if rng.random() < 0.1:
            commit = restructured(rng, commit)
        return _line(as_json(rng, first)) + _line(as_json(rng, commit))

    def read(self, given: Any) -> bool:
        (self.directory / "journal" / "0001.wal").write_bytes(given)
        return report(self.directory)


class Archives(Target):
    name = "archives"
    claim = "an archive.h5 is read and reported, or refused by ArchiveError"

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        directory = folder / "source"
        archive = runs.create(directory)
        run(archive)
        self.data = (directory / "archive.h5").read_bytes()
        with h5py.File(io.BytesIO(self.data)) as file:
            self.records = [json.loads(line) for line in file["journal"].asstr()[:]]
            self.manifest = json.loads(file.attrs["manifest"])
        self.path = folder / "archive.h5"

    def make(self, rng: random.Random) -> Any:
        if rng.random() < 0.6:
            return damaged(rng, self.data, rng.choice((1, 2, 8)))
        records, manifest = self.records, self.manifest
        if rng.random() < 0.5:
            manifest = restructured(rng, manifest, rng.choice((1, 2)))
        else:
            records = restructured(rng, records, rng.choice((1, 2)))
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            lines = [
                as_json(rng, r).replace(b"\x00", b"") for r in (records if isinstance(records, list) else [])
            ]
            file.create_dataset("journal", data=np.array(lines, dtype=object), dtype=h5py.string_dtype())
            file.attrs["manifest"] = as_json(rng, manifest)[:60_000].decode(errors="replace")
            file.attrs["config"] = rng.choice(("budget = 6\n", 3, [1.5, 2.5]))
        return buffer.getvalue()

    def read(self, given: Any) -> bool:
        self.path.write_bytes(given)
        return report(self.path)


class Files(Target):
    """LOCK, status.json and the manifest by itself."""

    name = "files"
    claim = "LOCK, status.json and a manifest are read, or refused in words"

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        self.directory = folder / "run"
        archive = runs.create(self.directory)
        runs.run_out(archive, most=3)
        archive.snapshot()
        worker = {"worker": 1, "host": "h", "device": "", "trial": 3, "attempt": 0, "phase": "train"}
        worker |= {"step": 1, "total": 9, "loss": 0.5, "threads": 7, "seconds": 2.0}
        archive.show({"time": 9e9, "workers": [worker, {**worker, "trial": -1}], "expected": 3})
        self.lock = (self.directory / "LOCK").read_bytes()
        self.board = (self.directory / "status.json").read_bytes()
        self.manifest = json.dumps(archive.history.manifest.to_json()).encode()
        archive._journal.close()

    def make(self, rng: random.Random) -> Any:
        name = rng.choice(("LOCK", "status.json", "manifest"))
        data = {"LOCK": self.lock, "status.json": self.board, "manifest": self.manifest}[name]
        if rng.random() < 0.4:
            return name, damaged(rng, data, rng.choice((1, 1, 3)))
        return name, as_json(rng, restructured(rng, json.loads(data), rng.choice((1, 2))))

    def read(self, given: Any) -> bool:
        name, data = given
        try:
            if name == "manifest":
                try:
                    record = json.loads(data)
                except (ValueError, RecursionError):
                    return False
                Manifest.from_json(record).differences(runs.manifest())
                return True
            (self.directory / "LOCK").write_bytes(data if name == "LOCK" else self.lock)
            (self.directory / "status.json").write_bytes(self.board if name == "LOCK" else data)
            list(status_lines(status(self.directory)))
            if name == "LOCK" and read_owner(self.directory / "LOCK") is None:
                Lock.acquire(self.directory / "LOCK")
        except ArchiveError as error:
            return in_words(error)
        return True


class CommandLines(Target):
    """`run` comes as far as the checked configuration: what it starts then is for other tests."""

    name = "commands"
    claim = "a command line is obeyed, or refused with one message and exit code 1, 2, 3 or 4"

    def prepare(self, folder: Path) -> None:
        import fractopt.cli.run as run
        import fractopt.report.figures as figures

        def instead(path: Path, overrides: Any, *rest: object) -> Any:
            read_config(path, overrides)
            return run.Exit.DONE

        super().prepare(folder)
        run._run = instead
        figures.draw = lambda runs, directory: iter(())  # seconds each
        self.command = CliRunner(catch_exceptions=True)
        self.make_folder()

    def make_folder(self) -> None:
        for entry in self.folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (self.folder / "c.toml").write_text(PLAIN)
        archive = runs.create(self.folder / "r", optimizer="random")
        runs.run_out(archive, budget=4)
        archive.close(complete=True, reason="the budget is met")
        self.before = runs.contents(self.folder)

    def make(self, rng: random.Random) -> Any:
        words = [
            *main.commands,
            "--help",
            "--version",
            "-h",
            "c.toml",
            "r",
            "r/archive.h5",
            "r/journal",
            ".",
            "/",
        ]
        words += ["--out", "--budget", "--seed", "--workers", "--set", "--optimizer", "--resume", "--json"]
        words += ["--check", "--format", "csv", "json", "--trust-code", "himmelblau", "--", "-1", "0", "3"]
        words += [
            "run.budget=3",
            "space.x.low=9",
            "a=b",
            "optimizer.name=soo",
            "--budget=2",
            "--seeds",
            "--full",
        ]
        name = rng.choice([n for n in main.commands if n != "bench"] * 3 + ["bench"])
        line = [name, *rng.choice(([], ["c.toml"], ["r"], ["r"], ["r", "2"], ["c.toml", "--set", "a=1"]))]
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            at = rng.randrange(len(line) + 1)
            word = rng.choice(words) if rng.random() < 0.6 else str(odd(rng))
            line[at:at] = [word] if rng.random() < 0.7 else [rng.choice(words), word]
        if "bench" in line:
            line += ["--budget", "2", "--seeds", "1"]
        # argv holds no zero byte, and what is no UTF-8 arrives as surrogates.
        return [
            w.replace("\x00", "").encode(errors="surrogatepass").decode(errors="surrogateescape")
            for w in line
        ]

    def read(self, given: Any) -> bool:
        done = self.command.invoke(main, given)
        if runs.contents(self.folder) != self.before or len(list(self.folder.iterdir())) != 2:
            self.make_folder()
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        if done.exit_code not in (0, 1, 2, 3, 4, 75):
            raise AssertionError(f"exit code {done.exit_code}")
        if done.exit_code in (1, 2, 3, 4) and "--check" not in given and not done.stderr.strip():
            raise AssertionError(f"exit code {done.exit_code} without a word")
        if "Traceback" in done.stderr or len(done.stderr) > LONGEST_MESSAGE + 20 * sum(map(len, given)):
            raise AssertionError(done.stderr[-2000:])
        return bool(done.exit_code == 0)


def run(archive: Archive) -> None:
    """A whole run with a record of every kind."""
    archive.note(
        {"record": "worker", "worker": 1, "host": "h", "pid": 1, "device": "", "threads": 2, "time": 999.0}
    )
    runs.run_out(archive, budget=6)
    outcome = Outcome(Status.OK, 0.5, metrics={"test/acc": 0.5}).to_json()
    archive.note({"record": "tested", "trial": 3, "outcome": outcome})
    archive.note({"record": "recommended", "trial": 3, "mean": 0.5, "sd": 0.1, "time": 1010.0})
    archive.close(complete=True, reason="the budget is met")


def report(path: Path) -> bool:
    """Everything that is ever said of a run, and its fold; False where it was refused in words."""
    try:
        history = load(path)
        list(status_lines(status(path)))
        as_csv(history)
        for row in list(history.rows.values())[:20]:
            list(row_lines(history, row, path))
        list(verdict_lines(history, path, recommended(history)))
        if len(history.records) % 13 == 0:  # a model is fitted for it, which takes longer than all the rest
            recommended_now(history)
    except ArchiveError as error:
        return in_words(error)
    fold(history)
    return True


def fold(history: Any) -> None:
    """As a resume does, with the errors that it expects."""
    m = history.manifest
    try:
        study = Study(history.space, m.optimizer, 6, seed=m.seed, settings=m.optimizer_settings)
        study.fold(history.events)
    except (LookupError, ValueError, TypeError, ArithmeticError):
        return


def _line(body: bytes) -> bytes:
    import zlib

    return b"%08x %d %s\n" % (zlib.crc32(body), len(body), body)


def _plain(optimizer: str) -> dict[str, Any]:
    """Trees want a space of intervals."""
    space = {name: {"type": "float", "low": -5.0, "high": 5.0, "log": False} for name in ("x", "y")}
    return {} if optimizer == "random" else {"space": space}


TARGETS: dict[str, type[Target]] = {
    target.name: target
    for target in (Messages, Results, Replies, Files, Configurations, Archives, Journals, CommandLines)
}
