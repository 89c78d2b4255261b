"""TensorFlow's checkpoints ("tensor bundles"), read without TensorFlow.

`NAME.index` is a table as LevelDB writes it: blocks of sorted keys, each key without what it shares with the one
before, a checksum behind every block, and at the end a footer that says where the block of blocks lies. Its values
are protocol buffers: where in `NAME.data-?????-of-?????` each tensor's bytes lie, their type, shape and checksum.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bothways.errors import InputError
from bothways.model.crc32c import crc32c, masked

_FOOTER, _MAGIC, _TRAILER = 48, 0xDB4775248B80FB57, 5
# numbers of TensorFlow's types; bfloat16 comes as its bits
_TYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64, 14: np.int16, 19: np.float16}
_BFLOAT16 = 14


class _Damaged(Exception):
    """What is wrong with a file, without its name."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its type, shape, data file, first byte, bytes and (masked) checksum."""

    kind: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


class TensorBundle:
    """The tensors of a checkpoint by name.

    Args:
        prefix: the files' common name, `folder/bert_model.ckpt`.

    Raises:
        InputError: no such checkpoint, or a damaged or unsupported one; the message names the file.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self._index = prefix.with_name(prefix.name + ".index")
        try:
            self.entries, self._shards = _entries(_read(self._index))
        except _Damaged as error:
            raise InputError(f"{self._index}: {error}") from None

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU.

        Raises:
            InputError: its data are missing, cut short or damaged, or of a type that is no number.
        """
        entry = self.entries[name]
        file = self.prefix.with_name(f"{self.prefix.name}.data-{entry.shard:05d}-of-{self._shards:05d}")
        if entry.kind not in _TYPES:
            raise InputError(f"{self._index}: {name} has TensorFlow's type {entry.kind}, which is not supported")
        damaged = InputError(f"{file}: the bytes of {name} are damaged or cut short; fetch it again")
        if math.prod(entry.shape) * np.dtype(_TYPES[entry.kind]).itemsize != entry.size:
            raise damaged
        try:
            with file.open("rb") as opened:
                # sizes are checked before anything of such a size is made
                if entry.offset + entry.size > os.fstat(opened.fileno()).st_size:
                    raise damaged
                opened.seek(entry.offset)
                data = opened.read(entry.size)
        except OSError as error:
            raise InputError(f"{file}: {error.strerror or error}; the checkpoint is incomplete: fetch it again") from None
        if len(data) != entry.size or masked(crc32c(data)) != entry.checksum:
            raise damaged
        array = np.frombuffer(bytearray(data), _TYPES[entry.kind])
        tensor = torch.from_numpy(array.reshape(entry.shape))
        return tensor.view(torch.bfloat16) if entry.kind == _BFLOAT16 else tensor


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _Damaged(error.strerror or str(error)) from None


def _entries(data: bytes) -> tuple[dict[str, Entry], int]:
    """All tensors, and the number of data files."""
    if len(data) < _FOOTER or int.from_bytes(data[-8:], "little") != _MAGIC:
        raise _Damaged("not a TensorFlow checkpoint's index, or cut short; fetch it again")
    try:
        _, _, at = _handle(data, len(data) - _FOOTER)  # an index of notes, of which there are none
        entries: dict[str, Entry] = {}
        shards = 1
        for _, place in _pairs(_block(data, at)):
            for key, value in _pairs(_block(data, 0, place)):
                if key:
                    entries[key.decode()] = _entry(value, key.decode())
                else:
                    shards = _header(value)
    except (IndexError, ValueError):
        raise _Damaged("damaged; fetch it again") from None
    return entries, shards


def _block(data: bytes, at: int, handle: bytes | None = None) -> bytes:
    """The block whose handle is at a place of the file, or is given."""
    first, size, _ = _handle(data if handle is None else handle, at)
    whole = data[first : first + size + _TRAILER]
    if len(whole) != size + _TRAILER:
        raise _Damaged("cut short; fetch it again")
    compression, checksum = whole[size], int.from_bytes(whole[size + 1 :], "little")
    if masked(crc32c(whole[: size + 1])) != checksum:
        raise _Damaged("a checksum is wrong; fetch it again")
    if compression:
        raise _Damaged("a compressed table is not supported; save the checkpoint anew with TensorFlow")
    return whole[:size]


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; the list of restarts at its end is for searching, and passed over."""
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    if end < 0:
        raise ValueError
    key, at = b"", 0
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        size, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + size]
        at += own + size


def _header(value: bytes) -> int:
    fields = dict(_fields(value))
    if fields.get(2, 0):
        raise _Damaged("numbers in the order of a big-endian machine are not supported")
    return _int(fields.get(1, 0))


def _entry(value: bytes, name: str) -> Entry:
    fields = dict(_fields(value))
    if 7 in fields:
        raise _Damaged(f"{name} is a partitioned variable, which is not supported")
    dimensions = (dict(_fields(_bytes(part))) for number, part in _fields(_bytes(fields.get(2, b""))) if number == 2)
    kind, shard, offset, size, checksum = (_int(fields.get(number, 0)) for number in (1, 3, 4, 5, 6))
    return Entry(kind, tuple(_int(one.get(1, 0)) for one in dimensions), shard, offset, size, checksum)


def _bytes(value: int | bytes) -> bytes:
    """A field that holds bytes: a number in its place would be taken for a length."""
    if not isinstance(value, bytes):
        raise ValueError
    return value


def _int(value: int | bytes) -> int:
    """A field that holds a number: bytes in its place would be read as its digits."""
    if not isinstance(value, int):
        raise ValueError
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer, by number."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        match tag & 7:
            case 0:
                value, at = _varint(message, at)
                yield tag >> 3, value
            case 2:
                size, at = _varint(message, at)
                yield tag >> 3, message[at : at + size]
                at += size
            case 5:
                yield tag >> 3, int.from_bytes(message[at : at + 4], "little")
                at += 4
            case 1:
                yield tag >> 3, int.from_bytes(message[at : at + 8], "little")
                at += 8
            case _:
                raise ValueError


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    """Where a block begins, its size, and where the next handle may stand."""
    first, at = _varint(data, at)
    size, at = _varint(data, at)
    return first, size, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of as many bytes as it needs, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
