"""One program from its start to its end: what it prints goes on, secrets masked; signs of life are reported.

It stays in the process group of the evaluation, so that a time-out, a limit of memory or a lost rank ends
it with everything it started. What it leaves behind when it ends by itself is ended here: a device is
never given to the next evaluation while a process of this one holds it.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fractopt.objective.base import Report
from fractopt.text import masked, printable

LOOK_S = 0.2  # between two looks at the progress file, and for an end that no pipe tells
MAX_TAIL = 2000  # characters kept of what it printed last
LAST_WORDS_S = 10.0  # after SIGTERM; who sent it to the whole group may be less patient
_DRAIN_S = 1.0  # for what is left in the pipes when nobody writes to them any more
_MARK = "FRACTOPT_PROGRAM"  # in the environment of all that the program starts
_LONGEST_LINE = 1 << 16  # bytes; a longer one is passed on in pieces
_LAST_BYTES = 500  # of the progress file that are looked at


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code, negative for a signal, and the last it said on stderr."""

    returncode: int
    stderr: str

    @property
    def how(self) -> str:
        """In words; "" where it ended well."""
        if self.returncode >= 0:
            return f"exited with code {self.returncode}" if self.returncode else ""
        try:
            name = signal.Signals(-self.returncode).name
        except ValueError:  # a real-time signal
            name = f"signal {-self.returncode}"
        hint = " (often the kernel out of memory)" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"


def run(
    argv: Sequence[str], directory: Path, environment: Mapping[str, str], progress: Path, report: Report
) -> Ended:
    """Run `argv` in `directory` to its end. Raises OSError where it cannot be started, or its output kept.

    Each output, and each change of the file `progress`, is a sign of life; the last line of that file says
    where it stands: PHASE STEP TOTAL LOSS, of which the first may be all.
    """
    mark = uuid.uuid4().hex
    standing = _Standing(progress, report)
    process = subprocess.Popen(
        argv,
        cwd=directory,
        env={**environment, _MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = _Stream(process.stdout.fileno(), 1), _Stream(process.stderr.fileno(), 2)
    try:
        standing.say()
        with _terminations() as terminated, selectors.DefaultSelector() as waiting:
            for stream in (out, err):
                waiting.register(stream.source, selectors.EVENT_READ, stream)
            while process.poll() is None:
                standing.look(heard=_pass_on(waiting, LOOK_S))
                if not waiting.get_map():  # it closed its outputs, most often to end
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(LOOK_S)
                if terminated and time.monotonic() > terminated[0] + LAST_WORDS_S:
                    process.kill()
            _end_marked(mark)
            until = time.monotonic() + _DRAIN_S
            while _pass_on(waiting, 0.0) and time.monotonic() < until:
                pass
            for stream in (out, err):
                stream.finish()
        return Ended(process.returncode, err.tail)
    finally:
        process.kill()
        process.wait()
        _end_marked(mark)
        process.stdout.close()
        process.stderr.close()


@contextmanager
def _terminations() -> Iterator[list[float]]:
    """When SIGTERM came. It goes to the whole group, and is taken here only when the program has ended.

    Until then the program may write: into a pipe that nobody reads, it would die of that.
    """
    seen: list[float] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(time.monotonic()))
    try:
        yield seen
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        if seen:
            os.kill(os.getpid(), signal.SIGTERM)


def _pass_on(waiting: selectors.BaseSelector, seconds: float) -> bool:
    """Pass on what is there within `seconds`; whether there was anything."""
    heard = False
    for key, _ in waiting.select(seconds) if waiting.get_map() else ():
        if key.data.pass_on():
            heard = True
        else:
            waiting.unregister(key.fileobj)
    return heard


class _Stream:
    """What comes out of `source` goes on to `target` (file descriptors), whole lines at a time, masked."""

    def __init__(self, source: int, target: int) -> None:
        self.source, self._target = source, target
        self._rest = b""
        self.tail = ""

    def pass_on(self) -> bool:
        """Whether there was anything; False at the end. Blocks where nothing is there."""
        data = os.read(self.source, 1 << 16)
        lines, end, self._rest = _partition_last(self._rest + data)
        self._write(lines + end)
        if len(self._rest) > _LONGEST_LINE:
            self.finish()
        return bool(data)

    def finish(self) -> None:
        """Pass on a last line that has no end."""
        rest, self._rest = self._rest, b""
        self._write(rest)

    def _write(self, data: bytes) -> None:
        if not data:
            return
        text = masked(data.decode(errors="surrogateescape"))
        self.tail = (self.tail + text)[-MAX_TAIL:]
        view = memoryview(text.encode(errors="surrogateescape"))
        while view:
            view = view[os.write(self._target, view) :]


def _partition_last(data: bytes) -> tuple[bytes, bytes, bytes]:
    """At the last end of a line; progress bars end theirs with a carriage return."""
    return data.rpartition(b"\n" if b"\n" in data else b"\r")


class _Standing:
    """Where a program stands, as far as it says."""

    def __init__(self, path: Path, report: Report) -> None:
        self._path, self._report = path, report
        self._seen: tuple[int, int] | None = None  # time and length of the file
        self._phase, self._step, self._total = "run", 0, 0
        self._loss: float | None = None
        self._looked_at = 0.0

    def say(self) -> None:
        self._report(self._phase, self._step, self._total, self._loss)

    def look(self, heard: bool) -> None:
        """Report a sign of life where there was one: something `heard`, or a change of the file."""
        now = time.monotonic()
        if now < self._looked_at + LOOK_S and not heard:
            return
        self._looked_at = now
        changed = self._changed()
        if changed or heard:
            self.say()

    def _changed(self) -> bool:
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # none yet, or nothing that we would read
            return False
        with os.fdopen(handle, "rb", buffering=0):
            found = os.fstat(handle)
            seen = found.st_mtime_ns, found.st_size
            if seen == self._seen:
                return False
            self._seen = seen
            with suppress(OSError):  # a directory, for one
                self._take(os.pread(handle, _LAST_BYTES, max(0, found.st_size - _LAST_BYTES)))
            return True

    def _take(self, data: bytes) -> None:
        """What the last whole line says; what it does not say stays, and what is no number says nothing."""
        lines = [line for line in data.decode(errors="replace").split("\n")[:-1] if line.strip()]
        if not lines:
            return
        phase, *numbers = lines[-1].split()[:4]
        self._phase = printable(phase)[:80]
        self._step, self._total = (_whole(text) for text in [*numbers, "", ""][:2])
        self._loss = None
        with suppress(ValueError, IndexError):
            self._loss = float(numbers[2])


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 16 else 0


def _end_marked(mark: str) -> None:
    """End every process that has `mark` in its environment, whatever group or session it made for itself."""
    wanted = f"{_MARK}={mark}".encode()
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        left = False
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # another user's, or it ended while we looked
                if wanted in (place / "environ").read_bytes().split(b"\0"):  # a zombie's is empty
                    os.kill(int(place.name), signal.SIGKILL)
                    left = True
        if not left:
            return
        time.sleep(0.005)
