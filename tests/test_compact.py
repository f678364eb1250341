"""Compact JSON, with the encoder in C and without: the same text, the same errors."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fractopt import compact as compact_module
from fractopt.compact import compact

RECORD: dict[str, Any] = {
    "text": 'a "quoted"\nline, ü, \udcff and \x00',
    "numbers": [0, -1, 2**70, 0.1, -0.0, 5e-324, 1.7976931348623157e308],
    "others": {"none": None, "yes": True, "empty": [{}, []]},
}


@pytest.fixture(params=[True, False], autouse=True)
def _in_c(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(compact_module, "_PARTS", None)


def test_it_is_one_line_of_ascii_without_spaces_that_says_the_same() -> None:
    line = compact(RECORD)
    assert line == json.dumps(RECORD, separators=(",", ":"))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == RECORD


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_does_not_have_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        compact({"value": [number]})
    with pytest.raises(TypeError, match="not JSON serializable"):
        compact({"value": object()})
