"""Durations and sizes as people write and read them: "15m", "48GB"."""

from __future__ import annotations

import re

LONGEST_S = 1e9  # thirty years
LARGEST_BYTES = 10**15
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: object) -> float:
    """A duration: a number of seconds, or text such as "90s", "15m", "4h", "1.5d"."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", value)):
        value = float(match[1]) * _UNITS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST_S:
        return float(value)
    raise ValueError('expected a duration such as "90s", "15m" or "4h", or a number of seconds')


def size(value: object) -> int:
    """A size: a number of bytes, or text such as "512MB", "48GB", "48GiB"."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B)\s*", value)):
        unit = match[2]
        power = "KMGT".index(unit[0]) + 1
        value = int(float(match[1]) * (1024 if "i" in unit else 1000) ** power)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_BYTES:
        return value
    raise ValueError('expected a size such as "512MB", "48GB" or "48GiB", or a number of bytes')


def amount(size: float) -> str:
    """A number of bytes for people."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size:.0f} bytes"
