"""Pseudo-log-likelihoods against a slow loop, against `transformers`, and by hand where a model ignores its context."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.builders import randomise

from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import ByteLevelBpe, WordPiece, train_tokenizer
from bothways.errors import InputError
from bothways.evaluation.pseudo_likelihood import pseudo_log_likelihoods
from bothways.families import FAMILIES
from bothways.families.bert import bert, masked_lm_head
from bothways.families.family import Heads, Spec
from bothways.model.model import Model
from bothways.ragged import Batch

TEXTS = [
    "The readers encode unreadable things.",
    "The readers encodes unreadable things.",
    "Small things read.",
    "things",
    "Encoders, readers and encoded things; unreadable encoders read the small encoded things.",
]


def build(tokenizer: Tokenizer, longest: int = 64) -> Model:
    encoder = bert(tokenizer.vocab_size, hidden_size=24, num_layers=2, heads=3, intermediate_size=20, max_length=longest)
    family = next(family for family in FAMILIES if family.name == "bert")
    model = Model.create(family, Spec(encoder, Heads(masked_lm=masked_lm_head(encoder))), tokenizer)
    randomise(model)
    return model


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Words are of several pieces."""
    return train_tokenizer(WordPiece(vocab_size=60), TEXTS)


@pytest.fixture
def model(tokenizer: Tokenizer) -> Model:
    return build(tokenizer)


def slow(model: Model, text: str, l2r: bool = False) -> float:
    """One masked copy at a time, all logits; words told by their spelling."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    ids = tokenizer.encode([text])[0].tolist()
    continues = [tokenizer.backend.id_to_token(token).startswith("##") for token in ids]
    total = 0.0
    for place in range(1, len(ids) - 1):
        masked = list(ids)
        masked[place] = tokenizer.mask_id
        after = place + 1
        while l2r and continues[after]:
            masked[after] = tokenizer.mask_id
            after += 1
        with torch.no_grad():
            logits = model.masked_lm(model.encoder(Batch.of([masked])).hidden)
        total += float(logits.double().log_softmax(dim=-1)[place, ids[place]])
    return total


@pytest.mark.parametrize("budget", [None, 1, 40])
def test_each_token_masked_alone(model: Model, budget: int | None) -> None:
    found = pseudo_log_likelihoods(model, [*TEXTS, TEXTS[0]], budget=budget)
    assert found == pytest.approx([slow(model, text) for text in [*TEXTS, TEXTS[0]]], rel=1e-5)
    assert found[0] == found[-1]


def test_with_the_rest_of_the_word(model: Model, tokenizer: Tokenizer) -> None:
    assert any(len(set(words)) < len(ids) for ids, words in tokenizer.encode_words(TEXTS)), "no word of several pieces"
    found = pseudo_log_likelihoods(model, TEXTS, "word_l2r")
    assert found == pytest.approx([slow(model, text, l2r=True) for text in TEXTS], rel=1e-5)
    assert abs(found - pseudo_log_likelihoods(model, TEXTS)).max() > 0.1


def test_the_numbers_of_transformers(model: Model, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model.save(tmp_path)
    theirs, splitter = AutoModelForMaskedLM.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    found = []
    for text in TEXTS:
        ids = splitter(text, return_tensors="pt")["input_ids"]
        places = torch.arange(1, ids.shape[1] - 1)
        masked = ids.repeat(len(places), 1)
        masked[torch.arange(len(places)), places] = splitter.mask_token_id
        with torch.no_grad():
            logits = theirs(input_ids=masked).logits.log_softmax(-1)
        found.append(float(logits[torch.arange(len(places)), places, ids[0, places]].sum()))
    assert pseudo_log_likelihoods(model, TEXTS) == pytest.approx(found, rel=1e-5)


def test_words_of_byte_level_pieces() -> None:
    """A word begins with its space; an added token is a word of its own."""
    tokenizer = train_tokenizer(ByteLevelBpe(vocab_size=262, specials="bert"), ["ab ab ab ab"])
    [(ids, words)] = tokenizer.encode_words(["ab xy [MASK]xy"])
    assert [tokenizer.backend.id_to_token(i) for i in ids] == ["ab", "Ġ", "x", "y", "[MASK]", "x", "y"]
    assert len(set(words[:1])) == 1
    groups = [words.tolist().index(word) for word in words]
    assert groups == [0, 1, 1, 1, 4, 5, 5]
    assert ids.tolist() == tokenizer.encode(["ab xy [MASK]xy"], specials=False)[0].tolist()


def test_equal_copies_are_computed_once(model: Model) -> None:
    """Two texts that differ in one token have one masked copy in common, that of the token in question."""
    told: list[tuple[int, int]] = []
    one, other = "encoded things read things", "encoded things read ."
    pseudo_log_likelihoods(model, [one, one], progress=lambda copies, tokens: told.append((copies, tokens)))
    tokenizer = model.tokenizer
    assert tokenizer is not None

    def copies(*texts: str) -> set[tuple[int, ...]]:
        rows = [row.tolist() for row in tokenizer.encode(texts)]
        return {(*row[:i], tokenizer.mask_id, *row[i + 1 :]) for row in rows for i in range(1, len(row) - 1)}  # type: ignore[misc]

    expected = copies(one)
    assert [sum(column) for column in zip(*told, strict=True)] == [len(expected), sum(map(len, expected))]
    told.clear()
    pseudo_log_likelihoods(model, [one, other], progress=lambda copies, tokens: told.append((copies, tokens)))
    assert len(copies(one, other)) == len(expected) + len(copies(other)) - 1
    assert sum(count for count, _ in told) == len(copies(one, other))


def test_without_context_it_is_the_sum_of_word_frequencies(model: Model, tokenizer: Tokenizer) -> None:
    """A head that sees nothing gives every token its own bias."""
    head = model.heads["masked_lm"]
    with torch.no_grad():
        model.encoder.embedding.tokens.weight.zero_()  # the tied output table
        bias = head.bias.double().log_softmax(dim=0)  # type: ignore[union-attr]
    expected = [float(bias[torch.from_numpy(ids.astype(np.int64))].sum()) for ids in tokenizer.encode(TEXTS, specials=False)]
    assert pseudo_log_likelihoods(model, TEXTS) == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_scored(model: Model, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="'  ' has no tokens"):
        pseudo_log_likelihoods(model, ["things", "  "])
    with pytest.raises(InputError, match="1 of 2 texts have more than 62 tokens; the first is number 1"):
        pseudo_log_likelihoods(model, ["things", "things " * 80])
    with pytest.raises(InputError, match="no masked-language-model head"):
        pseudo_log_likelihoods(model.with_heads(Heads()), TEXTS)
    with pytest.raises(InputError, match="no tokenizer with a mask token"):
        pseudo_log_likelihoods(Model(model.family, model.spec), TEXTS)
    with torch.no_grad():
        model.heads["masked_lm"].bias[-1] = math.nan  # type: ignore[index]
    with pytest.raises(InputError, match=r"The readers encode unreadable things\..* is nan"):
        pseudo_log_likelihoods(model, TEXTS)
