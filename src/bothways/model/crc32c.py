"""CRC-32C (Castagnoli), which TensorFlow's files carry; fast enough for gigabytes, in numpy alone.

A CRC is linear: that of a long text follows from those of its parts. So many parts are taken at once, a byte of
each in one numpy operation, and put together in the end.
"""

from __future__ import annotations

from functools import cache

import numpy as np

_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
# parts taken at once, at the most, and the length from which there is more than one
_PARTS, _LEAST = 8192, 64


def crc32c(data: bytes | memoryview) -> int:
    """The CRC-32C of some bytes."""
    values = np.frombuffer(data, np.uint8)
    parts = max(1, min(_PARTS, len(values) // _LEAST))
    length = len(values) // parts
    state = np.zeros(parts, np.uint32)
    state[0] = 0xFFFFFFFF
    # a row holds the bytes at one place of every part
    for row in np.ascontiguousarray(values[: parts * length].reshape(parts, length).T):
        state = _table()[(state ^ row) & 0xFF] ^ (state >> np.uint32(8))
    total = int(state[0])
    if parts > 1:
        ahead = _over_zeros(length)
        for one in state[1:].tolist():
            total = _apply(ahead, total) ^ one
    table = _table().tolist()
    for byte in values[parts * length :].tolist():
        total = table[(total ^ byte) & 0xFF] ^ (total >> 8)
    return total ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A CRC as it is stored beside what it is of: turned and shifted."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


@cache
def _table() -> np.ndarray:
    """The state after each byte, from a state of zeros."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(_POLYNOMIAL), table >> np.uint32(1))
    return table


def _over_zeros(count: int) -> list[int]:
    """The change of state over so many zero bytes: the image of each of the 32 bits."""
    table = _table().tolist()
    power = [table[bit & 0xFF] ^ (bit >> 8) for bit in (1 << i for i in range(32))]
    result = [1 << i for i in range(32)]
    while count:
        if count & 1:
            result = [_apply(power, image) for image in result]
        power = [_apply(power, image) for image in power]
        count >>= 1
    return result


def _apply(images: list[int], state: int) -> int:
    out = 0
    while state:
        low = state & -state
        out ^= images[low.bit_length() - 1]
        state ^= low
    return out
