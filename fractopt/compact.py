"""JSON without spaces, in ASCII: what the journal and the messages are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from json import encoder
from typing import Any

_ENCODER = json.JSONEncoder(allow_nan=False, check_circular=False, separators=(",", ":"))


def compact(record: Mapping[str, Any]) -> str:
    """The record as one line of JSON.

    Raises ValueError for a number that JSON does not have, TypeError for what is no JSON at all. ASCII: a
    message may hold what is no UTF-8, such as the surrogates of a strange file name.
    """
    return "".join(_PARTS(record, 0)) if _PARTS else _ENCODER.encode(record)


def _parts() -> Callable[[Mapping[str, Any], int], tuple[str, ...]] | None:
    """What `_ENCODER` makes anew for every record, a fifth of the time that it takes; None without C."""
    make: Any = getattr(encoder, "c_make_encoder", None)
    if make is None:
        return None
    quote = encoder.encode_basestring_ascii
    made: Callable[[Mapping[str, Any], int], tuple[str, ...]] = make(
        None, _ENCODER.default, quote, None, ":", ",", False, False, False
    )
    return made


_PARTS = _parts()
