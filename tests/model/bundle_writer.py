"""A writer of TensorFlow's tensor bundles, made from their description alone, for the reader to be tested against."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def checksum(data: bytes) -> int:
    """The masked CRC-32C, bit by bit."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    crc = state ^ 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def field(key: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer; a number of zero is left out, as protocol buffers do."""
    if isinstance(value, bytes):
        return number(key * 8 + 2) + number(len(value)) + value
    return number(key * 8) + number(value) if value else b""


def block(pairs: list[tuple[bytes, bytes]], restart: int = 16) -> bytes:
    out, restarts, last = b"", [], b""
    for i, (key, value) in enumerate(pairs):
        shared = 0
        if i % restart == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += number(shared) + number(len(key) - shared) + number(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return out + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))


def table(pairs: list[tuple[bytes, bytes]], each: int = 5, compression: int = 0) -> bytes:
    """A sorted table with so many keys a block."""
    out, index = b"", []

    def add(content: bytes) -> bytes:
        nonlocal out
        handle = number(len(out)) + number(len(content))
        whole = content + bytes([compression])
        out += whole + struct.pack("<I", checksum(whole))
        return handle

    for i in range(0, len(pairs), each):
        some = pairs[i : i + each]
        index.append((some[-1][0] + b"~", add(block(some, restart=3))))
    handles = add(block([])) + add(block(index, restart=1))
    return out + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write(
    prefix: Path,
    tensors: Mapping[str, np.ndarray],
    shards: int = 1,
    kinds: Mapping[str, int] | None = None,
    compression: int = 0,
    big_endian: bool = False,
    sliced: str = "",
) -> None:
    """A checkpoint. `kinds` overrides the number of a tensor's type."""
    files = [b""] * shards
    pairs = [(b"", field(1, shards) + field(2, int(big_endian)) + field(3, field(1, 1)))]
    for i, (name, array) in enumerate(sorted(tensors.items())):
        data, shard = array.tobytes(), i % shards
        shape = b"".join(field(2, field(1, size)) for size in array.shape)
        entry = field(1, (kinds or {}).get(name, TYPES.get(str(array.dtype), 0))) + field(2, shape)
        entry += field(3, shard) + field(4, len(files[shard])) + field(5, len(data))
        entry += number(6 * 8 + 5) + struct.pack("<I", checksum(data)) + (field(7, b"\x0a\x00") if name == sliced else b"")
        pairs.append((name.encode(), entry))
        files[shard] += data
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(prefix.name + ".index").write_bytes(table(pairs, compression=compression))
    for shard, content in enumerate(files):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
