"""Hostile inputs made of valid ones: bytes are damaged, structures get values nobody expects.

Every function takes the generator it draws from, so that an input is a function of its number.
"""

from __future__ import annotations

import copy
import json
import random
from contextlib import suppress
from typing import Any

LONG = 5000  # characters of a long text, digits of a long number: more than Python converts
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 255, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**400),
    *(0.5, -0.0, -3.25, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
    *("", " ", "x", "a" * LONG, "9" * LONG, "nan", "1e999", "1e-5", "true", "None", "\x00", "\n", "\t"),
    *("\x1b[31mred\x07", "\u202egnp.exe", "é", "\U0001f600", "\ud800", "\udcff"),
    *("../../etc/passwd", "/", "~", ".", "; rm -rf /", "$(id)", "`id`", "%s%n", "{0.__class__}", "os:system"),
    *("hf_" + "A" * 34, "base", "default", "search", "confirm", "ok", "failed", "float", "int", "values"),
    *([], [[]], {}, [None], [1, 2, 3], ["a", "a"], {"a": {"b": {}}}, {"": 0}, {"type": "int"}, [0.5] * 50),
]
NAMES = ["", "x", "type", "event", "record", "trial", "__class__", "id", "a.b", "token", "\x00", "\u2028"]
BYTES = [
    b"\x00",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b"\n\n",
    b'"',
    b"'",
    b"\\",
]
BYTES += [b"{", b"[", b"[" * 300, b"}", b"]", b",", b":", b"=", b"#", b".", b"-", b"1e999", b"NaN", b"null"]
BYTES += [
    b"\x1b]0;x\x07",
    b"\\ud800",
    b"\\u0000",
    b'"""',
    b"''",
    b"9" * 500,
    b"0x" + b"f" * LONG,
    b"\x7f" * 8,
]


def deep(depth: int) -> Any:
    """A list in a list, `depth` times."""
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def odd(rng: random.Random) -> Any:
    """A value that the field it is put into does not expect."""
    draw = rng.random()
    if draw < 0.75:
        return copy.deepcopy(rng.choice(ODD))  # it may be changed in its new place
    if draw < 0.80:
        return deep(rng.choice((5, 60, 200)))
    if draw < 0.90:
        return rng.choice((rng.uniform(-10, 10), rng.randint(-5, 70), 10 ** rng.randint(0, 25)))
    return "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x250)))) for _ in range(8))


def restructured(rng: random.Random, value: Any, changes: int = 1) -> Any:
    """`value`, of JSON's types, with some of it replaced, left out, renamed or exchanged."""
    value = json.loads(json.dumps(value))
    for _ in range(changes):
        places = list(_places(value))
        if not places:
            return odd(rng)
        table, key = rng.choice(places)
        draw = rng.random()
        if draw < 0.50:
            table[key] = odd(rng)
        elif draw < 0.65:
            del table[key]
        elif draw < 0.75 and isinstance(table, dict):
            table[rng.choice(NAMES)] = table.pop(key) if rng.random() < 0.5 else odd(rng)
        elif draw < 0.85:
            other, at = rng.choice(places)
            if at in other if isinstance(other, dict) else at < len(other):
                table[key] = json.loads(json.dumps(other[at]))
        elif draw < 0.95 and isinstance(table[key], int | float):
            with suppress(OverflowError):  # a whole number that no float holds stays as it is
                table[key] = table[key] * rng.choice((-1, 0, 2, 1000, 0.5)) + rng.choice((0, 1, -1, 0.1))
        else:
            table[key] = [table[key]] * rng.choice((1, 2, 40))
    return value


def _places(value: Any) -> Any:
    """Every container inside `value` with every key or index of it."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def damaged(rng: random.Random, data: bytes, changes: int = 1) -> bytes:
    """`data` with bytes flipped, cut out, doubled, moved or put in."""
    buffer = bytearray(data)
    for _ in range(changes):
        at = rng.randrange(len(buffer) + 1)
        end = min(len(buffer), at + rng.choice((1, 1, 2, 4, 8, 16, 64, 500)))
        draw = rng.random()
        if draw < 0.25 and at < len(buffer):
            buffer[at] ^= 1 << rng.randrange(8)
        elif draw < 0.35 and at < len(buffer):
            buffer[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 10, 34, rng.randrange(256)))
        elif draw < 0.50:
            buffer[at:at] = rng.choice(BYTES)
        elif draw < 0.62:
            del buffer[at:end]
        elif draw < 0.70:
            del buffer[at:]
        elif draw < 0.80:
            buffer[at:at] = buffer[at:end] * rng.choice((1, 1, 2, 100))
        elif draw < 0.90:
            other = rng.randrange(len(buffer) + 1)
            buffer[other:other] = buffer[at:end]
        else:
            number = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, len(buffer)))
            size = rng.choice((4, 8))
            buffer[at:end] = (number % 256**size).to_bytes(size, "little")
    return bytes(buffer[: 1 << 20])


def as_json(rng: random.Random, value: Any) -> bytes:
    """`value` as JSON; now and then a key stands twice, or text stands as UTF-8."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.8)
    if rng.random() < 0.05 and text.startswith("{") and len(text) > 2:
        text = "{" + text[1:-1] + ", " + text[1:]
    return text.encode(errors="surrogatepass")


def as_toml(rng: random.Random, table: Any) -> str:
    """Something that looks like the TOML of `table`, whatever is in it."""
    if not isinstance(table, dict):
        return f"x = {_toml(table)}"
    lines, tables = [], []
    for key, value in table.items():
        name = key if key.isidentifier() and key.isascii() else _text(key)
        if isinstance(value, dict) and rng.random() < 0.8:
            inner = [f"{k if k.isidentifier() else _text(k)} = {_toml(v)}" for k, v in value.items()]
            tables.append("\n".join([f"[{name}]", *inner]))
        else:
            lines.append(f"{name} = {_toml(value)}")
    rng.shuffle(tables)
    return "\n".join([*lines, *tables]) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return hex(value) if value >= 10**300 else str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_text(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    return _text(value) if isinstance(value, str) else str(value)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())
