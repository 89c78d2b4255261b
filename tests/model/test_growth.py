"""New tokens for a trained model: what they begin as, what stays, and that others read the folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.model.test_transplant import OTHER, model_of, tables
from tests.model.test_transplant import TEXT as SENTENCES

import bothways
from bothways.data.added_tokens import cut, read_tokens, with_tokens
from bothways.data.masking import Masking, mask_tokens
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import ByteLevelBpe, Unigram, WordPiece, train_tokenizer
from bothways.data.vocabulary import Vocabulary
from bothways.errors import InputError
from bothways.families.family import Heads
from bothways.model.growth import grow
from bothways.model.model import Model

KINDS = {
    "bert": WordPiece(vocab_size=130),
    "roberta": ByteLevelBpe(vocab_size=280),
    "albert": Unigram(vocab_size=70, specials="bert"),
}
# every letter, at the beginning of words and inside
TEXT = [*SENTENCES, " ".join(2 * letter for letter in "abcdefghijklmnopqrstuvwxyz")]
NEW = ("encoderly", "readsmall", "smallways")


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_are_means_of_their_pieces_and_old_ones_stay(family: str, tied: bool) -> None:
    if family == "albert" and not tied:
        pytest.skip("ALBERT's output table is its embedding")
    old = train_tokenizer(KINDS[family], TEXT)
    model = model_of(old, tied, family)
    found = grow(model, NEW)
    new = found.model.tokenizer
    assert new is not None
    assert (found.added, found.known) == (NEW, ())
    assert [new.backend.token_to_id(token) for token in NEW] == [old.vocab_size + i for i in range(3)]
    assert found.model.spec.encoder.vocab_size % 64 == 0
    assert len(tables(model)) == (2 if tied else 3)  # embedding and bias, and the table of an untied head
    for was, now in zip(tables(model), tables(found.model), strict=True):
        assert torch.equal(now[: len(was)], was)
        for token in NEW:
            pieces = [i for i in cut(old, token) if i != old.unk_id]
            assert len(pieces) > 1
            torch.testing.assert_close(now[new.backend.token_to_id(token)], was[pieces].mean(dim=0), rtol=1e-6, atol=1e-7)
    before, after = model.state_dict(), found.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if before[name].shape == after[name].shape)
    again = grow(found.model, [NEW[0], "unreadably"])
    assert again.known == NEW[:1]
    assert again.added == ("unreadably",)


def test_text_without_the_new_tokens_reads_as_before() -> None:
    old = train_tokenizer(KINDS["bert"], TEXT)
    model = model_of(old)
    grown = grow(model, NEW).model
    for was, now in zip(model.hidden_states(TEXT), grown.hidden_states(TEXT), strict=True):
        assert (was == now).all()


def test_a_table_with_room_is_not_enlarged() -> None:
    old = train_tokenizer(KINDS["bert"], TEXT)
    model = grow(model_of(old), NEW).model
    rows = model.spec.encoder.vocab_size
    assert rows > old.vocab_size + 4
    assert grow(model, ["unreadably"]).model.spec.encoder.vocab_size == rows


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_found_whole(kind: str) -> None:
    old = train_tokenizer(KINDS[kind], TEXT)
    new = with_tokens(old, (*NEW, "C++"))
    ids = new.encode(["small encoderly, C++ and smallways."], specials=False)[0].tolist()
    assert [i - old.vocab_size for i in ids if i >= old.vocab_size] == [0, 3, 2]
    before = old.encode(["small"], specials=False)[0].tolist()
    assert ids[: len(before) + 1] == [*before, old.vocab_size]  # no space is left alone before a new token
    inside = new.encode(["xsmallways smallwaysx"], specials=False)[0].tolist()
    assert inside == old.encode(["xsmallways smallwaysx"], specials=False)[0].tolist()
    shouted = new.encode(["ENCODERLY"], specials=False)[0].tolist()
    assert (shouted == [old.vocab_size]) == (kind == "bert")  # which alone reads in small letters


def test_scripts_without_spaces() -> None:
    old = train_tokenizer(ByteLevelBpe(vocab_size=280), TEXT)
    new = with_tokens(old, ["雪国"])
    assert old.vocab_size in new.encode(["川端の雪国です"], specials=False)[0]


def test_new_tokens_are_words_of_their_own_and_are_masked() -> None:
    old = train_tokenizer(KINDS["bert"], TEXT)
    new = with_tokens(old, NEW)
    vocabulary = Vocabulary.of(new)
    assert vocabulary.words is not None
    ids = new.encode(["readsmall smallways encoderly both"])[0]
    assert not set(range(old.vocab_size, new.vocab_size)) & vocabulary.special_ids
    assert not vocabulary.words.joined(ids)[1:5].any()
    masked = mask_tokens(Masking(rate=0.99, mask=1.0, random=0.0), vocabulary, ids, np.array([len(ids)]), np.array([0]), 0, 0)
    assert old.vocab_size in masked.labels


@pytest.mark.parametrize("family", KINDS)
def test_transformers_reads_the_result(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    old = train_tokenizer(KINDS[family] if family != "albert" else KINDS["bert"], TEXT)
    found = grow(model_of(old, family=family), NEW).model
    found.save(tmp_path)
    text = [f"{OTHER[0]} The encoderly of readsmall, smallways!"]
    theirs, splitter = AutoModelForMaskedLM.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    batch = splitter(text, return_tensors="pt")
    ours = bothways.load(tmp_path)
    assert found.tokenizer is not None
    assert ours.tokenizer is not None
    ids = found.tokenizer.encode(text)[0].tolist()
    assert batch["input_ids"][0].tolist() == ids == ours.tokenizer.encode(text)[0].tolist()
    assert sum(i >= old.vocab_size for i in ids) == 3
    with torch.no_grad():
        logits = theirs(**batch).logits[0]
        mine = ours.masked_lm(torch.from_numpy(ours.hidden_states(text)[0]))
    torch.testing.assert_close(mine, logits, rtol=1e-4, atol=1e-4)


def test_a_model_without_a_head_grows_too() -> None:
    old = train_tokenizer(KINDS["bert"], TEXT)
    model = model_of(old).with_heads(Heads())
    assert grow(model, NEW).model.encoder.embedding.tokens.weight.shape[0] == 128


def test_refusals(tmp_path: Path) -> None:
    old = train_tokenizer(KINDS["bert"], TEXT)
    model = model_of(old)
    assert grow(model, ["the", "ways"]).model is model
    with pytest.raises(InputError, match="has no tokenizer"):
        grow(Model(model.family, model.spec), NEW)
    with pytest.raises(InputError, match="' x' has; remove them"):
        grow(model, [" x"])
    with pytest.raises(InputError, match=r"'(COVIDX|covidx)' would never be found in a text"):
        grow(model, ["COVIDX", "covidx"])
    gaps = Tokenizer.load(_with_gap(old, tmp_path))
    with pytest.raises(InputError, match="the ids of this tokenizer have gaps"):
        with_tokens(gaps, NEW)


def _with_gap(tokenizer: Tokenizer, folder: Path) -> Path:
    """The same tokenizer, whose last piece has a number far behind the others."""
    tree = json.loads(tokenizer.backend.to_str())
    vocab = tree["model"]["vocab"]
    vocab[max(vocab, key=vocab.__getitem__)] = 500
    tokenizer.save(folder)
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    return folder


def test_a_file_of_tokens(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("covid\n\n  long covid \nC++")
    assert read_tokens(file) == ("covid", "long covid", "C++")
    for text, said in (("\n \n", "no tokens"), ("a\nb\na\n", r"words.txt:3: 'a' stands in line 1 already")):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            read_tokens(file)
    with pytest.raises(InputError, match="no such file"):
        read_tokens(tmp_path / "none")
