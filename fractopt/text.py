"""What may be shown of a text that somebody else wrote: no secrets, no control characters, not all of it.

Messages, logs and tables go to terminals and to files that are shared; a traceback of a library may quote
a token, an archive from elsewhere may hold the sequences that command a terminal.
"""

from __future__ import annotations

import os
import re

# The names and the looks of secrets. Not of tokenizers, nor of numbers of tokens.
SECRET_NAME = re.compile(
    r"(^|_|-)(token|secret|passw(or)?d|passphrase|credentials?|(api|access|secret)_?key)$", re.I
)
SECRET_VALUE = re.compile(r"hf_[A-Za-z0-9]{20,}")
_SECRET_BYTES = re.compile(SECRET_VALUE.pattern.encode())
_SHORTEST = 12  # characters: a shorter value in the environment may be a common word
MASK = "(a secret)"


def masked(text: str) -> str:
    """`text` without what looks like a token, and without the values of secrets in the environment."""
    if len(text) < _SHORTEST:
        return text
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and value in text and SECRET_NAME.search(name):
            text = text.replace(value, MASK)
    return SECRET_VALUE.sub(MASK, text)


def masked_bytes(line: bytes) -> bytes:
    """A line of JSON without what looks like a token; still JSON."""
    return _SECRET_BYTES.sub(MASK.encode(), line) if b"hf_" in line else line


def masked_setting(setting: str) -> str:
    """A command line's `key=value` without a value that its key calls a secret; any other text masked."""
    key, equals, _ = setting.partition("=")
    if equals and any(SECRET_NAME.search(part.strip()) for part in key.split(".")):
        return f"{key}={MASK}"
    return masked(setting)


def shown(text: str) -> str:
    """`text` as it may go to a terminal and into a log."""
    return printable(masked(text))


def printable(text: str) -> str:
    """`text` with control characters and the like written out as in Python; lines stay lines."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def clipped(text: str, most: int) -> str:
    """`text`, its middle left out where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} ... ({len(text) - most} characters) ... {text[-(most // 2) :]}"
