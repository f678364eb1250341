"""Messages survive the wire; what is not a message is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fractopt.parallel.message import (
    MAX_BYTES,
    Crashed,
    Ended,
    Finished,
    Gone,
    Hello,
    Limits,
    Message,
    Node,
    Place,
    Progress,
    Setup,
    Stop,
    Task,
    Unusable,
    decode,
    encode,
)
from fractopt.trial import Outcome, Status

MESSAGES: list[Message] = [
    Setup({"kind": "python", "depth": {"a": [1, 2.5, None]}}, "/runs/x", Limits(3.5, None, False)),
    Place(3, "GPU-8932f937", 4),
    Task(7, 1, "search", {"x": 0.1 + 0.2, "n": 3, "name": "a\nb", "on": True}, 2**63 - 1, ["search", "test"]),
    Stop("walltime", 0.5),
    Node(1, "n1", "n1/boot", ["0", "MIG-1"], [0, 1]),
    Hello(1, "n1", 42, "", 2),
    Progress(1, 7, 0, "train", 3, 64, 0.25, 4242),
    Progress(1, 7, 0, "train", 3, 64, math.inf, 4242),
    Progress(1, 7, 0, "train", 3, 64, None, 4242),
    Finished(1, 7, 0, Outcome(Status.OK, 1 / 3, 1e-300, {"acc": 0.1}, 2.0), 3.0),
    Finished(1, 7, 0, Outcome(Status.DIVERGED, message="the loss became nan"), 3.0),
    Ended(1, 7, 0, "killed", "by SIGKILL", 1.0),
    Unusable(1, "no such model"),
    Crashed(1, "n1", "Traceback ..."),
    Gone(1, "rank 1"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.type)
def test_round_trip(message: Message) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    again = decode(line)
    assert encode(again) == line
    if "nan" not in repr(message):
        assert again == message


def _changed(message: Message, **changes: Any) -> bytes:
    record = json.loads(encode(message))
    for name, value in changes.items():
        if value is ...:
            del record[name]
        else:
            record[name] = value
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"hello",
        b"[]",
        b"null",
        b'"task"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"type": "exec"}',
        b'{"type": ["task"]}',
        _changed(MESSAGES[2], trial=...),
        _changed(MESSAGES[2], more=1),
        _changed(MESSAGES[2], trial="7"),
        _changed(MESSAGES[2], trial=True),
        _changed(MESSAGES[2], trial=7.0),
        _changed(MESSAGES[2], params=[]),
        _changed(MESSAGES[6], phase=None),
        _changed(MESSAGES[6], loss="low"),
        _changed(MESSAGES[9], outcome={"status": "ok"}),
        _changed(MESSAGES[9], outcome={"status": "splendid", "value": 1.0}),
        _changed(MESSAGES[9], outcome=None),
        _changed(MESSAGES[9], seconds="long"),
        _changed(MESSAGES[0], limits={"cpu": 1}),
    ],
    ids=range(23),
)
def test_whatever_is_not_a_message_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a message"):
        decode(line)


def test_messages_are_limited_in_length() -> None:
    with pytest.raises(ValueError, match="longer than"):
        encode(Unusable(1, "x" * MAX_BYTES))
    with pytest.raises(ValueError, match="longer than"):
        decode(b" " * (MAX_BYTES + 1))
