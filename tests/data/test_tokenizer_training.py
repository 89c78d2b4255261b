"""Training tokenizers: the family's special tokens, the same result each time, and a health report worked out by hand."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers

from bothways.config import from_json, to_json
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_health import health_by_group, tokenizer_health
from bothways.data.tokenizer_training import ByteLevelBpe, Unigram, WordPiece, rounded_up, train_tokenizer, with_unused
from bothways.errors import InputError

Training = WordPiece | ByteLevelBpe | Unigram
TEXT = [
    "The small encoder reads both ways, and the small reader encodes.",
    "Readers read; encoders encode! Ways are small, and the way is both.",
    "Größe, Straße, naïve café — 日本語 text.",
] * 4
ALL = [
    WordPiece(vocab_size=150),
    WordPiece(vocab_size=150, lowercase=False, specials="roberta"),
    ByteLevelBpe(vocab_size=300),
    ByteLevelBpe(vocab_size=300, specials="bert"),
    Unigram(vocab_size=90),
    Unigram(vocab_size=90, specials="bert", lowercase=True),
]


@pytest.mark.parametrize("training", ALL, ids=lambda t: f"{t.type}-{t.specials}")
def test_special_tokens_of_the_family(training: Training, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(training, iter(TEXT), max_length=128)
    assert tokenizer.mask_id == 4
    if training.specials == "bert":
        cls, sep = 2, 3
        assert (tokenizer.pad_id, tokenizer.unk_id) == (0, 1)
        between, types = [sep], (0, 1)
    else:
        cls, sep = 0, 2
        assert (tokenizer.pad_id, tokenizer.unk_id) == (1, 3)
        between, types = [sep, sep], (0, 0)
    assert tokenizer.special_ids == {0, 1, 2, 3, 4}
    assert tokenizer.vocab_size <= training.vocab_size
    inner = tokenizer.encode(["small"], specials=False)[0].tolist()
    assert tokenizer.encode(["small"])[0].tolist() == [cls, *inner, sep]
    ids, kinds = tokenizer.encode_pairs([("small", "small")])[0]
    assert ids.tolist() == [cls, *inner, *between, *inner, sep]
    assert (kinds[0], kinds[-1]) == types
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.fingerprint, loaded.max_length) == (tokenizer.fingerprint, 128)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXT[2])["input_ids"] == tokenizer.encode([TEXT[2]])[0].tolist()


@pytest.mark.parametrize("training", ALL, ids=lambda t: f"{t.type}-{t.specials}")
def test_the_mask_is_one_token_in_running_text(training: Training) -> None:
    tokenizer = train_tokenizer(training, TEXT)
    mask = tokenizer.tokens["mask_token"]
    ids = tokenizer.encode([f"the small {mask} reads"], specials=False)[0].tolist()
    assert ids.count(tokenizer.mask_id) == 1
    before = tokenizer.encode(["the small"], specials=False)[0].tolist()
    assert ids[: ids.index(4)] == before  # the space before it belongs to it


SCRIPT = """
import gzip, json, sys
from itertools import islice
from bothways.data.tokenizer_training import ByteLevelBpe, WordPiece, train_tokenizer
with gzip.open(sys.argv[1], "rt", encoding="utf-8") as file:
    texts = [line for row in islice(file, 2) for line in json.loads(row)["text"].splitlines()]
for training in (WordPiece(vocab_size=2000), ByteLevelBpe(vocab_size=2000)):
    print(train_tokenizer(training, texts).fingerprint)
"""


def test_the_same_text_gives_the_same_tokenizer_in_every_process(shared: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(shared / "data/text/novels-eng.jsonl.gz")]
    runs = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(3)}
    assert len(runs) == 1
    assert len(set(runs.pop().split())) == 2


def test_unigram_finds_the_same_pieces(shared: Path) -> None:
    with gzip.open(shared / "data/text/novels-eng.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = json.loads(next(file))["text"].splitlines()
    first, second = (set(train_tokenizer(Unigram(vocab_size=1000), texts).backend.get_vocab()) for _ in range(2))
    assert len(first & second) >= 990


def test_byte_level_loses_nothing() -> None:
    tokenizer = train_tokenizer(ByteLevelBpe(vocab_size=300), TEXT)
    strange = "tabs\tand\n\nlines, 🙂, \u200d and  spaces "
    assert tokenizer.decode(tokenizer.encode([strange], specials=False)[0].tolist()) == strange
    assert tokenizer_health(tokenizer, [strange]).texts_lost == 0


@pytest.mark.parametrize("training", ALL, ids=lambda t: f"{t.type}-{t.specials}")
def test_no_text_is_refused(training: Training) -> None:
    for texts in ([], ["", "  \n"]):
        with pytest.raises(InputError, match="no text to learn from"):
            train_tokenizer(training, texts)


@pytest.mark.parametrize("training", [WordPiece(vocab_size=10), ByteLevelBpe(vocab_size=260), Unigram(vocab_size=10)])
def test_a_vocabulary_without_room_for_the_alphabet_is_refused(training: Training) -> None:
    with pytest.raises(InputError, match=f"vocab_size={training.vocab_size}: .*raise it"):
        train_tokenizer(training, TEXT)


@pytest.mark.parametrize("training", ALL, ids=lambda t: f"{t.type}-{t.specials}")
def test_a_fault_in_the_texts_is_passed_on(training: Training) -> None:
    def texts() -> Iterator[str]:
        yield "fine"
        raise InputError("a.txt:2: broken")

    with pytest.raises(InputError, match=r"a\.txt:2: broken"):
        train_tokenizer(training, texts())


def test_trainings_survive_json() -> None:
    assert from_json(WordPiece, to_json(WordPiece(vocab_size=9)), "here") == WordPiece(vocab_size=9)


# ------------------------------------------------------------------------------------------ health


def by_hand() -> Tokenizer:
    """WordPiece that knows `both`, `way`, `##s`, `read` and `,`: five ordinary tokens and the unknown one."""
    vocab = {"[UNK]": 0, "both": 1, "way": 2, "##s": 3, "read": 4, ",": 5}
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece()
    return Tokenizer(backend)


def test_health_worked_by_hand() -> None:
    # "Both ways," -> both way ##s ,        4 tokens, 2 words, 10 characters
    # "ways upon ways" -> way ##s [UNK] way ##s   5 tokens, 3 words, 14 characters, `upon` does not come back
    health = tokenizer_health(by_hand(), ["Both ways,", "ways upon ways"])
    assert (health.texts, health.words, health.characters, health.tokens, health.vocab_size) == (2, 5, 24, 9, 6)
    assert health.vocabulary_used == pytest.approx(4 / 5)  # all but `read`
    assert health.tokens_per_word == pytest.approx(9 / 5)
    assert health.characters_per_token == pytest.approx(24 / 9)
    assert health.unknown_rate == pytest.approx(1 / 9)
    assert health.texts_lost == 1  # case is given up on purpose, `upon` is not
    assert health.tokens_per_second > 0


def test_health_counts_over_batches() -> None:
    health = tokenizer_health(by_hand(), (text for text in ["both", "read"] * 500))
    assert (health.texts, health.tokens) == (1000, 1000)


def test_health_of_nothing_is_refused() -> None:
    for texts in ([], ["  "]):
        with pytest.raises(InputError, match="no words"):
            tokenizer_health(by_hand(), texts)


def test_unused_rows_have_names(tmp_path: Path) -> None:
    trained = train_tokenizer(WordPiece(vocab_size=100), TEXT)
    filled = with_unused(trained)
    assert (trained.vocab_size, filled.vocab_size) == (100, 128)
    assert [filled.backend.id_to_token(i) for i in (100, 127)] == ["[unused0]", "[unused27]"]
    assert filled.special_ids == trained.special_ids | set(range(100, 128))
    assert [row.tolist() for row in filled.encode(TEXT)] == [row.tolist() for row in trained.encode(TEXT)]
    assert tokenizer_health(filled, TEXT).vocabulary_used == tokenizer_health(trained, TEXT).vocabulary_used
    filled.save(tmp_path)
    assert Tokenizer.load(tmp_path).vocab_size == 128
    assert with_unused(filled).vocab_size == 128
    assert with_unused(filled, 100).backend.id_to_token(128) == "[unused28]"
    assert [rounded_up(size) for size in (1, 64, 65, 30522)] == [64, 64, 128, 30528]


def test_health_side_by_side() -> None:
    """Groups are measured as if each were alone, and all of them as one."""
    one, other = train_tokenizer(WordPiece(vocab_size=100), TEXT), train_tokenizer(ByteLevelBpe(vocab_size=300), TEXT)
    rows = [("b", TEXT[0]), ("a", TEXT[1]), ("b", TEXT[2]), ("empty", "")] * 200
    found = health_by_group({"one": one, "other": other}, iter(rows))
    assert list(found) == ["a", "b", "all"]
    for group, texts in {"a": TEXT[1:2] * 200, "b": [TEXT[0], TEXT[2]] * 200, "all": [text for _, text in rows]}.items():
        for name, tokenizer in (("one", one), ("other", other)):
            alone = tokenizer_health(tokenizer, texts)
            assert replace(found[group][name], tokens_per_second=0) == replace(alone, tokens_per_second=0)
    with pytest.raises(InputError, match="a group is called 'all'"):
        health_by_group({"one": one}, [("all", "text")])
    with pytest.raises(InputError, match="over 200 groups"):
        health_by_group({"one": one}, [(str(number), "text") for number in range(300)])
    with pytest.raises(InputError, match="no words in 1 texts"):
        health_by_group({"one": one}, [("a", " ")])
