"""TensorFlow's checkpoints against a writer of the tests' own; damage of any kind is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.model import bundle_writer as writer

from bothways.errors import InputError
from bothways.model.crc32c import crc32c, masked
from bothways.model.tensor_bundle import TensorBundle

TENSORS = {
    "global_step": np.array(7, np.int64),
    **{f"bert/encoder/layer_{i}/output/dense/kernel": np.random.default_rng(i).normal(size=(3, 5)) for i in range(12)},
    "bert/embeddings": np.random.default_rng(0).normal(size=(300, 7)).astype(np.float32),
    "half": np.arange(6, dtype=np.float16).reshape(1, 2, 3),
    "ids": np.arange(-3, 4, dtype=np.int32),
    "none": np.zeros((0, 4), np.float32),
}


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)],
)
def test_published_checksums(data: bytes, expected: int) -> None:
    """RFC 3720's, and the common check value."""
    assert crc32c(data) == expected


@given(st.binary(max_size=300), st.integers(1, 40))
def test_checksums_of_any_length(data: bytes, times: int) -> None:
    assert masked(crc32c(data * times)) == writer.checksum(data * times)


@pytest.mark.parametrize("shards", [1, 3])
def test_tensors_come_back(tmp_path: Path, shards: int) -> None:
    writer.write(tmp_path / "model.ckpt", TENSORS, shards=shards)
    bundle = TensorBundle(tmp_path / "model.ckpt")
    assert set(bundle.entries) == set(TENSORS)
    for name, array in TENSORS.items():
        assert torch.equal(bundle.read(name), torch.from_numpy(array)), name


def test_bfloat16(tmp_path: Path) -> None:
    values = torch.tensor([[1.5, -2.0], [0.25, 3e38]], dtype=torch.bfloat16)
    writer.write(tmp_path / "b", {"x": values.view(torch.int16).numpy()}, kinds={"x": 14})
    assert torch.equal(TensorBundle(tmp_path / "b").read("x"), values)


def refused(prefix: Path, name: str = "ids") -> str:
    with pytest.raises(InputError) as error:
        TensorBundle(prefix).read(name)
    assert str(prefix) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_any_changed_byte_of_the_index_is_noticed(tmp_path: Path) -> None:
    """But in the footer's padding, and in the block of notes, which is not read."""
    prefix = tmp_path / "m"
    writer.write(prefix, {name: TENSORS[name] for name in ("ids", "half")})
    file = prefix.with_name("m.index")
    whole = file.read_bytes()
    notes = writer.block([]) + b"\0"
    place = whole.index(notes + writer.struct.pack("<I", writer.checksum(notes)))
    handle = writer.number(place) + writer.number(len(notes) - 1)
    padded = whole[-48:-8]
    assert padded.startswith(handle)
    padding = len(whole) - 8 - (len(padded) - len(padded.rstrip(b"\0")))
    skipped = {
        *range(place, place + len(notes) + 4),
        *range(len(whole) - 48, len(whole) - 48 + len(handle)),
        *range(padding, len(whole) - 8),
    }
    for place in set(range(len(whole))) - skipped:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError):
            TensorBundle(prefix)


@pytest.mark.parametrize("keep", [0, 10, 60, -1])
def test_an_index_cut_short(tmp_path: Path, keep: int) -> None:
    writer.write(tmp_path / "m", TENSORS)
    file = tmp_path / "m.index"
    file.write_bytes(file.read_bytes()[:keep])
    assert "m.index: not a TensorFlow checkpoint's index" in refused(tmp_path / "m")


@pytest.mark.parametrize("damage", ["missing", "short", "changed"])
def test_damaged_data(tmp_path: Path, damage: str) -> None:
    writer.write(tmp_path / "m", TENSORS)
    file = tmp_path / "m.data-00000-of-00001"
    whole = file.read_bytes()
    place = whole.index(TENSORS["ids"].tobytes())
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(whole[: place + 5] if damage == "short" else whole[:place] + b"!" + whole[place + 1 :])
    message = refused(tmp_path / "m")
    assert ("No such file" if damage == "missing" else "the bytes of ids are damaged or cut short") in message


def test_what_is_not_supported(tmp_path: Path) -> None:
    writer.write(tmp_path / "a", TENSORS, compression=1)
    assert "a compressed table is not supported" in refused(tmp_path / "a")
    writer.write(tmp_path / "b", TENSORS, big_endian=True)
    assert "big-endian" in refused(tmp_path / "b")
    writer.write(tmp_path / "c", TENSORS, sliced="ids")
    assert "ids is a partitioned variable" in refused(tmp_path / "c")
    writer.write(tmp_path / "d", TENSORS, kinds={"ids": 7})
    assert "ids has TensorFlow's type 7" in refused(tmp_path / "d")
    assert "No such file" in refused(tmp_path / "e")
