"""A new tokenizer for a trained model: what is copied, composed and drawn, and that the model has not forgotten."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.builders import randomise
from torch import Tensor

import bothways
from bothways.data.masking import Masking
from bothways.data.sample import Sample
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import ByteLevelBpe, Unigram, WordPiece, train_tokenizer
from bothways.data.vocabulary import Vocabulary
from bothways.errors import InputError
from bothways.evaluation.pseudo_likelihood import pseudo_log_likelihoods
from bothways.families import FAMILIES
from bothways.families.albert import albert
from bothways.families.bert import bert, masked_lm_head
from bothways.families.family import Heads, Spec
from bothways.families.roberta import roberta
from bothways.layers.heads import MaskedLmHead
from bothways.model.model import Model
from bothways.model.transplant import transplant
from bothways.objectives.masked_lm import MaskedLanguageModeling

TEXT = [
    "The small encoder reads both ways, and the small reader encodes.",
    "Readers read; encoders encode! Ways are small, and the way is both.",
]
OTHER = ["Readers of small encoders; unreadable, 雪 ways reencoded!"]


def model_of(tokenizer: Tokenizer, tied: bool = True, family: str = "bert") -> Model:
    sizes = {"hidden_size": 24, "num_layers": 2, "heads": 3, "intermediate_size": 20, "max_length": 64}
    make = {"bert": bert, "roberta": roberta, "albert": albert}[family]
    encoder = make(tokenizer.vocab_size, **sizes, **({"embedding_size": 9, "groups": 1} if family == "albert" else {}))  # type: ignore[operator]
    head = masked_lm_head(encoder)
    heads = Heads(masked_lm=MaskedLmHead(transform=head.transform, tied=tied, bias=head.bias))
    model = Model.create(
        next(one for one in FAMILIES if one.name == family), Spec(encoder, heads, tokenizer.pad_id or 0), tokenizer
    )
    randomise(model)
    return model


@pytest.fixture
def old() -> Tokenizer:
    return train_tokenizer(WordPiece(vocab_size=120), TEXT)


TABLES = ("encoder.embedding.tokens.", "heads.masked_lm.bias", "heads.masked_lm.decoder.")
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
NEW = [WordPiece(vocab_size=90), ByteLevelBpe(vocab_size=290, specials="bert"), Unigram(vocab_size=50, specials="bert")]


def tables(model: Model) -> list[Tensor]:
    state = model.state_dict()
    return [state[name] for name in state if name.startswith(TABLES)]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["bert", "albert"])
def test_onto_the_same_tokenizer_nothing_changes(old: Tokenizer, tied: bool, family: str) -> None:
    if family == "albert" and not tied:
        pytest.skip("ALBERT's output table is its embedding")
    model = model_of(old, tied, family)
    found = transplant(model, Tokenizer(old.backend, dict(old.tokens)))
    assert (found.copied, found.composed, found.fresh, found.unused) == (old.vocab_size, 0, 0, 0)
    before, after = model.state_dict(), found.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert found.model.fingerprint == model.fingerprint


@pytest.mark.parametrize("training", NEW, ids=lambda one: one.type)
@pytest.mark.parametrize("tied", [True, False])
def test_rows_are_those_of_the_old_pieces(old: Tokenizer, training: WordPiece, tied: bool) -> None:
    model, new = model_of(old, tied), train_tokenizer(training, TEXT + OTHER)
    found = transplant(model, new)
    rows = found.model.spec.encoder.vocab_size
    assert rows % 64 == 0
    assert 0 <= rows - new.vocab_size == found.unused < 64
    assert found.copied + found.composed + found.fresh == new.vocab_size
    assert min(found.copied, found.composed) > 5
    before, after = old.backend.get_vocab(), new.backend.get_vocab()
    mark = {"wordpiece": "", "bpe": "Ġ", "unigram": "▁"}[training.type]
    for was, now in zip(tables(model), tables(found.model), strict=True):
        assert now.shape == (rows, *was.shape[1:])
        assert torch.equal(now[after["[MASK]"]], was[before["[MASK]"]])
        assert torch.equal(now[after[f"{mark}small"]], was[before["small"]])
        for piece, i in after.items():  # written out once more: pieces whose text is letters and begins a word
            text = piece.removeprefix(mark)
            if (mark or not piece.startswith("##")) and piece.startswith(mark) and text.isascii() and text.isalpha():
                cut = [token for token in old.encode([text], specials=False)[0].tolist() if token != old.unk_id]
                if cut:
                    torch.testing.assert_close(now[i], was[cut].mean(dim=0), rtol=1e-6, atol=1e-7)
    before_all, after_all = model.state_dict(), found.model.state_dict()
    assert all(torch.equal(before_all[name], after_all[name]) for name in before_all if not name.startswith(TABLES))


def test_what_the_old_vocabulary_does_not_know_is_drawn_as_its_rows_are_spread() -> None:
    old = train_tokenizer(WordPiece(vocab_size=200), TEXT)
    model = model_of(old)
    with torch.no_grad():
        model.encoder.embedding.tokens.weight.mul_(0.01).add_(torch.arange(24.0))
    new = train_tokenizer(
        WordPiece(vocab_size=400), ["".join(map(chr, range(0x3041, 0x3090))) + " " + " ".join(map(chr, range(0x4E00, 0x4EF0)))]
    )
    found, again, other = transplant(model, new), transplant(model, new), transplant(model, new, seed=1)
    assert found.fresh > 200
    unknown = [i for piece, i in new.backend.get_vocab().items() if piece > "\u3000"]
    table = found.model.encoder.embedding.tokens.weight[torch.tensor(unknown)]
    torch.testing.assert_close(table.mean(dim=0), torch.arange(24.0), atol=0.01, rtol=0)
    torch.testing.assert_close(table.std(dim=0), model.encoder.embedding.tokens.weight.std(dim=0), rtol=0.3, atol=0)
    assert torch.equal(tables(found.model)[0], tables(again.model)[0])
    assert not torch.equal(tables(found.model)[0], tables(other.model)[0])


def test_special_tokens_by_their_role(old: Tokenizer) -> None:
    """RoBERTa's names for what BERT calls otherwise; ids in config.json follow."""
    model, new = model_of(old), train_tokenizer(ByteLevelBpe(vocab_size=280), TEXT)
    ids = {key: old.backend.token_to_id(token) for key, token in (("cls_token_id", "[CLS]"), ("sep_token_id", "[SEP]"))}
    model.published = {**ids, "bos_token_id": 77}
    found = transplant(model, new).model
    for role in ("pad_token", "mask_token", "cls_token", "sep_token", "unk_token"):
        was, now = old.backend.token_to_id(old.tokens[role]), new.backend.token_to_id(new.tokens[role])
        assert torch.equal(found.encoder.embedding.tokens.weight[now], model.encoder.embedding.tokens.weight[was])
    assert found.published == {"cls_token_id": 0, "sep_token_id": 2}
    assert found.spec.pad_id == 1
    assert (found.max_seq_length, model.tokenizer) == (64, old)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_transformers_reads_the_result(old: Tokenizer, family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    if family == "roberta":
        old = train_tokenizer(ByteLevelBpe(vocab_size=290), TEXT)
    new = train_tokenizer(Unigram(vocab_size=50, specials="bert" if family == "bert" else "roberta"), TEXT + OTHER)
    found = transplant(model_of(old, family=family), new).model
    found.save(tmp_path)
    theirs, splitter = AutoModelForMaskedLM.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    batch = splitter(OTHER, return_tensors="pt")
    ids = new.encode(OTHER)
    assert batch["input_ids"][0].tolist() == ids[0].tolist()
    with torch.no_grad():
        logits = theirs(**batch).logits[0]
        ours = found.masked_lm(torch.from_numpy(bothways.load(tmp_path).hidden_states(ids)[0]))
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    assert theirs.config.vocab_size == found.spec.encoder.vocab_size


def test_refusals(old: Tokenizer) -> None:
    model = model_of(old)
    with pytest.raises(InputError, match="has no tokenizer"):
        transplant(Model(model.family, model.spec), old)
    roles = dict(old.tokens)
    for role, message in (("mask_token", "no mask token"), ("cls_token", "names no cls_token")):
        with pytest.raises(InputError, match=message):
            transplant(model, Tokenizer(old.backend, {key: value for key, value in roles.items() if key != role}))
    deeper = model_of(train_tokenizer(ByteLevelBpe(vocab_size=290), TEXT), family="roberta")
    with pytest.raises(InputError, match="it was 1, and is 0 in the new tokenizer"):
        transplant(deeper, old)


def sentences(count: int, seed: int) -> list[str]:
    """Each is about one of eight topics, which have twenty words of their own."""
    draw = random.Random(0)
    words = ["".join(draw.choices(SYLLABLES, k=2)) for _ in range(160)]
    draw = random.Random(seed)
    topics = (draw.randrange(8) for _ in range(count))
    return [" ".join(draw.choices(words[20 * topic : 20 * topic + 20], k=8)) for topic in topics]


def learn(model: Model, texts: Sequence[str], steps: int) -> None:
    assert model.tokenizer is not None
    objective = MaskedLanguageModeling(model.encoder, model.heads["masked_lm"], Masking(rate=0.3), Vocabulary.of(model.tokenizer))  # type: ignore[arg-type]
    ids = [row[:128] for row in model.tokenizer.encode(texts)]
    optimizer = torch.optim.AdamW(objective.parameters(), lr=2e-3)
    draw = np.random.default_rng(0)
    objective.train()
    for step in range(steps):
        rows = draw.choice(len(ids), 16, replace=False)
        inputs = objective.prepare([Sample(int(i), (ids[i],)) for i in rows], 0, step)
        (objective(inputs)["loss"] / len(inputs.labels)).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def test_the_model_has_not_forgotten() -> None:
    """It has learnt which words go together: 3.3 nats a word, where knowing no topic costs 5.1. With a tokenizer of another kind,
    most of whose words are pieces of both, it begins at 5.5, and with random embeddings at 7.8."""
    texts, held = sentences(2000, 1), sentences(60, 2)
    old = train_tokenizer(WordPiece(vocab_size=400), texts)
    encoder = bert(old.vocab_size, hidden_size=64, num_layers=2, heads=2, intermediate_size=128, max_length=64)
    family = next(one for one in FAMILIES if one.name == "bert")
    model = Model.create(family, Spec(encoder, Heads(masked_lm=masked_lm_head(encoder))), old)
    learn(model, texts, 300)
    new = train_tokenizer(ByteLevelBpe(vocab_size=600, specials="bert"), texts)
    found, drawn = transplant(model, new), transplant(model, new).model
    with torch.no_grad():
        for table in tables(drawn):
            table.copy_(table.mean() + table.std() * torch.randn(table.shape, generator=torch.Generator().manual_seed(0)))

    def loss(one: Model) -> float:
        return -float(pseudo_log_likelihoods(one, held).mean()) / 8

    assert min(found.copied, found.composed, found.fresh) > 50
    assert loss(model) < 3.6
    assert loss(found.model) < loss(drawn) - 1.5
