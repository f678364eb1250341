"""What a proof found: one claim, how often it was tried, how often it did not hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """`seen` is what was measured beside: counts, medians, the first breach."""

    claim: str
    tried: int
    broken: int
    seen: str = ""
