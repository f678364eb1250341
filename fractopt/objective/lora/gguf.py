"""Reading GGUF, llama.cpp's format: weights, model configuration and tokenizer in one file.

A header (magic, version, counts), the metadata as typed key-value pairs, a table of tensors, then their
data, aligned (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Whatever a file claims is held
against its size before anything of that size is made. Imports no torch.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fractopt.objective.base import UnusableError
from fractopt.text import clipped

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # 3 differs from 2 in that it may be big-endian, which is refused
ALIGNMENT = 32  # of the data, where the metadata name no other

# Types of metadata values: numbers and truth values by their code, as struct and numpy name them.
NUMBERS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?",
    10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
STRING, ARRAY = 8, 9


def _f32(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    return raw.view("<f4").astype(np.float32)


def _q8_0(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Blocks of a scale d (f16) and 32 bytes q: weight = d q."""
    blocks = raw.reshape(-1, 34)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)  # (blocks, 1)
    return blocks[:, 2:].view(np.int8).astype(np.float32) * scale


def _q4_1(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Blocks of a scale d and a minimum m (f16) and 16 bytes: weight = d q + m.

    The low halves of the bytes are q of the block's first 16 weights, the high halves of the others.
    """
    blocks = raw.reshape(-1, 20)
    scale, least = blocks[:, :4].copy().view("<f2").astype(np.float32).T[..., None]  # (blocks, 1) each
    halves = np.concatenate([blocks[:, 4:] & 0x0F, blocks[:, 4:] >> 4], axis=1)  # (blocks, 32)
    weights: NDArray[np.float32] = halves.astype(np.float32) * scale + least
    return weights


class Encoding(NamedTuple):
    """How tensors of one type are stored: `size` bytes for each block of `block` weights."""

    block: int
    size: int
    decode: Callable[[NDArray[np.uint8]], NDArray[np.float32]]


ENCODINGS = {0: Encoding(1, 4, _f32), 3: Encoding(32, 20, _q4_1), 8: Encoding(32, 34, _q8_0)}
ENCODING_NAMES = "F32, Q4_1 or Q8_0"


@dataclass(frozen=True)
class _Entry:
    shape: tuple[int, ...]  # slowest index first, as numpy and torch have it; the file has the reverse
    encoding: Encoding
    offset: int  # of the data, from the beginning of the file
    size: int  # in bytes


class GGUF:
    """The contents of the file `path`: its `metadata`, the `names` of its tensors, and their weights.

    Strings of the metadata are str, numbers int, float or bool, arrays lists of str or numpy arrays.
    Raises UnusableError for a file that is missing, torn, or no GGUF that this reader knows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._data: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: it is empty
            raise UnusableError(f"{path} cannot be read as a GGUF file: {error}") from error
        self._at = 0
        self.metadata: dict[str, Any] = {}
        self._entries: dict[str, _Entry] = {}
        try:
            self._read()
        except UnicodeDecodeError as error:
            raise self._broken("a text in it is no UTF-8") from error

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def weights(self, name: str) -> NDArray[np.float32]:
        """The tensor `name` in 32 bits, exactly what the file's blocks say.

        Raises UnusableError where there is none of this name.
        """
        if name not in self._entries:
            raise UnusableError(f"{self.path}: expected a tensor {name!r}, there is none")
        entry = self._entries[name]
        raw = np.frombuffer(self._data, np.uint8, entry.size, entry.offset)
        return entry.encoding.decode(raw).reshape(entry.shape)

    def value(self, key: str, kind: type) -> Any:
        """The metadata's `key`, which must be of type `kind`; raises UnusableError where it is not."""
        found = self.metadata.get(key)
        if type(found) is not kind:
            what = "nothing" if found is None else type(found).__name__
            raise UnusableError(f"{self.path}: expected {key} of type {kind.__name__}, got {what}")
        return found

    def _read(self) -> None:
        if self._take(4) != MAGIC:
            raise UnusableError(f"{self.path} is no GGUF file: it does not begin with {MAGIC.decode()}")
        version = self._number("<u4")
        if version not in VERSIONS:
            raise UnusableError(f"{self.path}: expected version 2 or 3 of GGUF, little-endian, got {version}")
        tensors, pairs = self._number("<u8"), self._number("<u8")
        self._room(tensors, 24)
        self._room(pairs, 13)
        for _ in range(pairs):
            key = self._text()
            self.metadata[key] = self._value(self._number("<u4"))
        found = [self._entry() for _ in range(tensors)]
        alignment = self.metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 8 or alignment % 8:
            raise self._broken(f"its general.alignment is {alignment!r}")
        start = -(-self._at // alignment) * alignment
        for name, entry in found:
            where = start + entry.offset
            if name in self._entries or where % alignment or where + entry.size > len(self._data):
                raise self._broken(f"the data of the tensor {clipped(repr(name), 80)} are not where it says")
            self._entries[name] = _Entry(entry.shape, entry.encoding, where, entry.size)

    def _entry(self) -> tuple[str, _Entry]:
        name = self._text()
        dimensions = self._number("<u4")
        if not 1 <= dimensions <= 4:
            raise self._broken(f"the tensor {clipped(repr(name), 80)} has {dimensions} dimensions")
        shape = tuple(self._number("<u8") for _ in range(dimensions))[::-1]
        code = self._number("<u4")
        if code not in ENCODINGS:
            raise UnusableError(
                f"{self.path}: expected tensors stored as {ENCODING_NAMES}, "
                f"{clipped(repr(name), 80)} is of GGML's type {code}"
            )
        encoding = ENCODINGS[code]
        if 0 in shape or shape[-1] % encoding.block:
            raise self._broken(f"the tensor {clipped(repr(name), 80)} has the shape {shape}")
        size = math.prod(shape) // encoding.block * encoding.size
        return name, _Entry(shape, encoding, self._number("<u8"), size)

    def _value(self, code: int) -> Any:
        if code in NUMBERS:
            return self._number(NUMBERS[code])
        if code == STRING:
            return self._text()
        if code != ARRAY:
            raise self._broken(f"a value in it is of an unknown type, {code}")
        inner, count = self._number("<u4"), self._number("<u8")
        if inner in NUMBERS:
            kind = np.dtype(NUMBERS[inner])
            self._room(count, kind.itemsize)
            return np.frombuffer(self._take(count * kind.itemsize), kind)
        if inner != STRING:
            raise self._broken(f"an array in it has elements of type {inner}")
        self._room(count, 8)
        return [self._text() for _ in range(count)]

    def _text(self) -> str:
        return self._take(self._number("<u8")).decode()

    def _number(self, kind: str) -> Any:
        dtype = np.dtype(kind)
        return np.frombuffer(self._take(dtype.itemsize), dtype)[0].item()

    def _take(self, size: int) -> bytes:
        self._room(size, 1)
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def _room(self, count: int, size: int) -> None:
        """Refuse a file that says it goes on for more than it does."""
        if count * size > len(self._data) - self._at:
            raise self._broken("it ends before what it announces")

    def _broken(self, what: str) -> UnusableError:
        return UnusableError(f"{self.path} is a torn or damaged GGUF file: {what}")
