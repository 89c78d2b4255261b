"""Tokenised shards: what goes in comes out, and nothing incomplete or foreign is taken for whole."""

from __future__ import annotations

import errno
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models

from bothways.data import shard_writer
from bothways.data.shard_writer import write_shards
from bothways.data.shards import Shards
from bothways.data.source import Document
from bothways.data.token_data import TokenData, hold_out
from bothways.data.tokenizer import Tokenizer, bert_template
from bothways.errors import InputError

TEXTS = ("a b c d e f g", "h", "", "i j k l", "m n o p q r s t u v w x y z")


def documents(texts: tuple[str, ...] = TEXTS) -> list[Document]:
    return [Document(text, f"somewhere:{i}") for i, text in enumerate(texts)]


@pytest.fixture
def folder(tmp_path: Path, letters: Tokenizer) -> Path:
    write_shards(documents(), letters, tmp_path / "tokens", shard_tokens=8)
    return tmp_path / "tokens"


def ids(text: str) -> list[int]:
    return [ord(letter) - ord("a") + 5 for letter in text.split()]


def test_round_trip_over_several_shards(folder: Path, letters: Tokenizer) -> None:
    shards = Shards(folder, letters)
    manifest = shards.manifest
    assert (manifest.documents, manifest.empty, manifest.tokens, manifest.dtype) == (5, 1, 26, "uint16")
    assert manifest.characters == sum(map(len, TEXTS))
    assert [(shard.documents, shard.tokens) for shard in manifest.shards] == [(2, 8), (3, 18)]
    assert shards.lengths.tolist() == [7, 1, 0, 4, 14]
    for number, text in enumerate(TEXTS):
        assert shards.read(number, 0, len(text.split())).tolist() == ids(text)
    assert shards.read(4, 3, 5).tolist() == ids("p q")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["tokens"]


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    vocab = {f"w{i}": i for i in range(65_537)} | {"[CLS]": 70_000, "[SEP]": 70_001, "a": 70_002}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="w0"))
    backend.post_processor = bert_template(70_000, 70_001)
    tokenizer = Tokenizer(backend)
    manifest = write_shards(documents(("a",)), tokenizer, tmp_path / "tokens")
    assert manifest.dtype == "uint32"
    assert Shards(tmp_path / "tokens", tokenizer).read(0, 0, 1).tolist() == [70_002]


def test_a_worker_gets_the_place_not_the_contents(tmp_path: Path, letters: Tokenizer) -> None:
    write_shards(documents(("a b c " * 10_000,)), letters, tmp_path / "tokens")
    data = TokenData(Shards(tmp_path / "tokens", letters), letters, max_length=512)
    before = data[3].sequences[0]
    sent = pickle.dumps(data)
    assert len(sent) < 20_000
    np.testing.assert_array_equal(pickle.loads(sent)[3].sequences[0], before)


# ------------------------------------------------------------------------------------------ samples


def test_samples_worked_by_hand(folder: Path, letters: Tokenizer) -> None:
    """Room for 5 between [CLS] and [SEP]: 7 = 5 + 2, 1, nothing, 4, 14 = 5 + 5 + 4."""
    data = TokenData(Shards(folder, letters), letters, max_length=7)
    assert data.lengths.tolist() == [7, 4, 3, 6, 7, 7, 6]
    found = [data[i].sequences[0].tolist() for i in range(len(data))]
    texts = ("a b c d e", "f g", "h", "i j k l", "m n o p q", "r s t u v", "w x y z")
    assert found == [[2, *ids(text), 3] for text in texts]
    assert [data[i].id for i in range(len(data))] == list(range(7))


def test_samples_of_chosen_documents(folder: Path, letters: Tokenizer) -> None:
    data = TokenData(Shards(folder, letters), letters, max_length=7, documents=np.array([2, 4, 1]))
    assert [data[i].sequences[0].tolist()[1:-1] for i in range(len(data))] == [
        ids(text) for text in ("m n o p q", "r s t u v", "w x y z", "h")
    ]


@settings(max_examples=30)
@given(st.lists(st.integers(0, 26), min_size=1, max_size=12).filter(any), st.integers(3, 12), st.integers(1, 30))
def test_no_token_is_lost(
    tmp_path_factory: pytest.TempPathFactory, letters: Tokenizer, counts: list[int], max_length: int, shard_tokens: int
) -> None:
    texts = tuple(" ".join("abcdefghijklmnopqrstuvwxyz"[:count]) for count in counts)
    folder = tmp_path_factory.mktemp("tokens")
    write_shards(documents(texts), letters, folder, shard_tokens)
    data = TokenData(Shards(folder, letters), letters, max_length)
    samples = [data[i].sequences[0] for i in range(len(data))]
    assert [len(sample) for sample in samples] == data.lengths.tolist()
    assert all(2 < len(sample) <= max_length for sample in samples)
    assert [i for sample in samples for i in sample[1:-1].tolist()] == [i for text in texts for i in ids(text)]


def test_no_room_for_text(folder: Path, letters: Tokenizer) -> None:
    with pytest.raises(InputError, match="max_length=2: no room beside 2 special tokens"):
        TokenData(Shards(folder, letters), letters, max_length=2)
    with pytest.raises(InputError, match="no text in the 1 documents chosen"):
        TokenData(Shards(folder, letters), letters, max_length=8, documents=np.array([2]))


# ------------------------------------------------------------------------------------------ held-out text


def test_held_out_documents() -> None:
    training, held = hold_out(10_000, 0.1, seed=3)
    np.testing.assert_array_equal(np.sort(np.concatenate([training, held])), np.arange(10_000))
    assert abs(len(held) - 1000) < 3.2905 * np.sqrt(10_000 * 0.09)
    np.testing.assert_array_equal(hold_out(10_000, 0.1, seed=3)[1], held)
    assert hold_out(10_000, 0.1, seed=4)[1].tolist() != held.tolist()
    # more documents behind them move none
    np.testing.assert_array_equal(held, [i for i in hold_out(20_000, 0.1, seed=3)[1] if i < 10_000])


@pytest.mark.parametrize("share", [1e-6, 0.999999])
def test_neither_side_is_empty(share: float) -> None:
    for documents in (2, 3, 10):
        training, held = hold_out(documents, share, seed=0)
        assert min(len(training), len(held)) == 1
        assert len(training) + len(held) == documents


def test_what_cannot_be_divided() -> None:
    with pytest.raises(
        InputError, match=r"1 document cannot be divided .* --set source.split=paragraph \(in Python: split=.paragraph.\)"
    ):
        hold_out(1, 0.1, seed=0)
    with pytest.raises(InputError, match=r"share of 1.0 is not between 0 and 1"):
        hold_out(10, 1.0, seed=0)


# ------------------------------------------------------------------------------------------ what is refused


def test_a_changed_or_shortened_or_missing_shard_is_named(folder: Path, letters: Tokenizer) -> None:
    path = folder / "00001.tokens"
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    with pytest.raises(InputError, match=r"00001\.tokens: 34 bytes where the manifest says 36"):
        Shards(folder, letters)
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(InputError, match=r"00001\.tokens: the contents have changed"):
        Shards(folder, letters)
    Shards(folder, letters, check="sizes")
    path.unlink()
    with pytest.raises(InputError, match=r"00001\.tokens: missing"):
        Shards(folder, letters, check="sizes")
    path.write_bytes(content)
    Shards(folder, letters)
    offsets = folder / "00000.offsets"
    offsets.write_bytes(offsets.read_bytes()[::-1])
    with pytest.raises(InputError, match=r"00000\.offsets: the contents have changed"):
        Shards(folder, letters)


def test_another_tokenizer_is_refused(folder: Path) -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    with pytest.raises(InputError, match="made with another tokenizer"):
        Shards(folder, Tokenizer(backend))


def test_a_folder_without_or_with_a_bad_manifest(folder: Path, tmp_path: Path, letters: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json"):
        Shards(tmp_path, letters)
    (folder / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match=r"manifest\.json: format"):
        Shards(folder, letters)


def test_what_is_there_is_not_written_over(folder: Path, letters: Tokenizer) -> None:
    before = contents(folder)
    with pytest.raises(InputError, match="exists already"):
        write_shards(documents(), letters, folder)
    assert contents(folder) == before


def test_no_text_at_all(tmp_path: Path, letters: Tokenizer) -> None:
    for texts in ((), ("", "  ")):
        with pytest.raises(InputError, match="no text in"):
            write_shards(documents(texts), letters, tmp_path / "tokens")
        assert list(tmp_path.iterdir()) == []


def failing(number: int) -> Iterator[Document]:
    yield from documents()[:number]
    raise InputError("b.txt:3: broken")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_fault_before_the_first_shard_leaves_nothing(tmp_path: Path, letters: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"b\.txt:3: broken"):
        write_shards(failing(5), letters, tmp_path / "tokens")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path: Path, folder: Path, letters: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any flush to the disk: what was finished stays, and once there is room the same call gives the same bytes."""
    flushed = itertools.count()
    monkeypatch.setattr(os, "fsync", lambda descriptor: next(flushed))
    write_shards(documents(), letters, tmp_path / "counted", shard_tokens=8)
    flushes = next(flushed)
    for allowed in range(flushes):
        done = itertools.count()

        def full(descriptor: int, done: Iterator[int] = done, allowed: int = allowed) -> None:
            if next(done) == allowed:
                raise OSError(errno.ENOSPC, "No space left on device")

        place = tmp_path / f"full-{allowed}"
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"cannot write .*: No space left on device; .*make room"):
            write_shards(documents(), letters, place, shard_tokens=8)
        assert place.exists() == (allowed == flushes - 1)  # the last flush is that of the folder's own entry
        if not place.exists():
            write_shards(documents(), letters, place, shard_tokens=8)
        assert contents(place) == contents(folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from bothways.data.shard_writer import write_shards
from bothways.data.source import Document
from bothways.data.tokenizer import Tokenizer

TEXTS = ["a b c d " * (60_000 + 1_000 * number) for number in range(8)]

def documents(until):
    for number, text in enumerate(TEXTS):
        if number == until:
            os.kill(os.getpid(), signal.SIGKILL)
        yield Document(text, str(number))

if __name__ == "__main__":
    tokenizer, folder, until, workers = sys.argv[1:]
    write_shards(documents(int(until)), Tokenizer.load(Path(tokenizer)), Path(folder), shard_tokens=1000, workers=int(workers))
"""


def killed(tokenizer: Path, folder: Path, until: int, workers: int) -> int:
    command = [sys.executable, "-c", KILLED, str(tokenizer), str(folder), str(until), str(workers)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, check=False).returncode


def test_a_kill_loses_no_finished_shard(tmp_path: Path, letters: Tokenizer) -> None:
    """Killed twice, with other numbers of workers: the finished shards stay, and the bytes are those of one writing."""
    letters.save(tmp_path / "tokenizer")
    straight, folder = tmp_path / "straight", tmp_path / "tokens"
    assert killed(tmp_path / "tokenizer", straight, 99, 0) == 0
    partial = tmp_path / ".partial.tokens"
    assert killed(tmp_path / "tokenizer", folder, 4, 0) == -signal.SIGKILL
    assert not folder.exists()
    kept = (partial / "00000.tokens").stat()
    assert killed(tmp_path / "tokenizer", folder, 7, 1) == -signal.SIGKILL
    assert killed(tmp_path / "tokenizer", folder, 99, 2) == 0
    after = (folder / "00000.tokens").stat()
    assert (after.st_mtime_ns, after.st_ino) == (kept.st_mtime_ns, kept.st_ino)
    assert contents(folder) == contents(straight)
    assert not partial.exists()


def begun(folder: Path, letters: Tokenizer) -> Path:
    """What a writing that was broken off behind two shards leaves."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shard_writer, "_BATCH_CHARACTERS", 1)
        with pytest.raises(InputError, match="broken"):
            write_shards(failing(4), letters, folder, shard_tokens=4)
    return folder.with_name(f".partial.{folder.name}")


def test_what_a_fault_leaves_is_gone_on_with_only_where_it_is_whole(tmp_path: Path, letters: Tokenizer) -> None:
    straight = tmp_path / "straight"
    write_shards(documents(), letters, straight, shard_tokens=4)
    other = documents(("a b c d e f g", "h", "", "z j k l", "m"))
    write_shards(other, letters, tmp_path / "other", shard_tokens=4)
    short = documents(TEXTS[:1])
    write_shards(short, letters, tmp_path / "short", shard_tokens=4)
    write_shards(documents(), letters, tmp_path / "longer", shard_tokens=5)
    for name, damage, texts, tokens, expected in (
        ("as it was", None, documents(), 4, straight),
        ("changed", "00000.tokens", documents(), 4, straight),
        ("lost", "00001.offsets", documents(), 4, straight),
        ("no manifest", "manifest.json", documents(), 4, straight),
        ("another text", None, other, 4, tmp_path / "other"),
        ("a shorter text", None, short, 4, tmp_path / "short"),
        ("other shards", None, documents(), 5, tmp_path / "longer"),
    ):
        folder = tmp_path / name
        partial = begun(folder, letters)
        assert {path.name for path in partial.iterdir()} == {
            "manifest.json", *(f"0000{n}.{kind}" for n in (0, 1) for kind in ("tokens", "offsets"))
        }  # fmt: skip
        if damage:
            path = partial / damage
            path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]) if name == "changed" else path.unlink()
        told = list[tuple[int, int]]()
        write_shards(
            texts, letters, folder, shard_tokens=tokens, told=lambda done, count, told=told: told.append((len(done), count))
        )
        assert contents(folder) == contents(expected), name
        assert sum(count for count, _ in told) == len(texts)
        kept = sum(count for count, tokens in told if tokens == 0)
        assert kept == {"as it was": 4, "lost": 1, "another text": 1, "a shorter text": 1}.get(name, 0), name


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path, letters: Tokenizer) -> None:
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(list("abcxyz"), length)) for length in draw.integers(0, 60_000, 120)]
    for workers in (0, 1, 3):
        done = list[int]()
        write_shards(
            (Document(text, str(i)) for i, text in enumerate(texts)), letters, tmp_path / str(workers), 300_000, workers,
            told=lambda batch, tokens, done=done: done.extend(int(document.where) for document in batch),
        )  # fmt: skip
        assert done == list(range(len(texts)))
        assert contents(tmp_path / str(workers)) == contents(tmp_path / "0")
    shards = Shards(tmp_path / "3", letters)
    assert len(shards.manifest.shards) > 5
    for number, text in enumerate(texts):
        assert shards.read(number, 0, int(shards.lengths[number])).tolist() == ids(text)


def test_a_folder_carries_its_tokenizer(folder: Path) -> None:
    assert Shards(folder, Tokenizer.load(folder / "tokenizer")).manifest.documents == 5


def test_swapped_shards_are_named(tmp_path: Path, letters: Tokenizer) -> None:
    folder = tmp_path / "tokens"
    write_shards(documents(("a b c", "d e f", "g h i")), letters, folder, shard_tokens=3)
    one, other = folder / "00000.tokens", folder / "00002.tokens"
    first, last = one.read_bytes(), other.read_bytes()
    one.write_bytes(last)
    other.write_bytes(first)
    with pytest.raises(InputError, match=r"00000\.tokens: the contents have changed"):
        Shards(folder, letters)


def test_manifests_of_older_versions_are_read(folder: Path, letters: Tokenizer) -> None:
    path = folder / "manifest.json"
    tree = json.loads(path.read_text())
    del tree["shard_tokens"]
    for shard in tree["shards"]:
        for name in ("empty", "characters", "texts_sha256"):
            del shard[name]
    path.write_text(json.dumps(tree))
    assert Shards(folder, letters).lengths.tolist() == [7, 1, 0, 4, 14]
