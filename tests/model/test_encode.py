"""Sentence vectors of a real checkpoint equal sentence-transformers', however they are batched."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

import bothways
from bothways.errors import InputError
from bothways.model.model import Model
from bothways.model.overflow import CutWarning

TOLERANCE = 1e-5
Open = Callable[[Path], Any]
Edit = Callable[..., Path]
FEW = [
    "A cat.",
    "",
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "naïve façade 我爱 [MASK]",
    "a " * 90,
    "A cat.",
]


@pytest.fixture(scope="module")
def model(minilm: Path) -> Model:
    return bothways.load(minilm, strict=True)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    assert one.dtype == other.dtype == np.float32
    return float(np.abs(one - other).max())


def encode_quietly(model: Model, texts: list[str], **options: Any) -> np.ndarray:
    """Without the notice that long texts were cut, which other tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutWarning)
        return model.encode(texts, **options)


def test_a_few_texts(model: Model, minilm: Path, sentence_transformer: Open) -> None:
    expected = sentence_transformer(minilm).encode(FEW)
    assert apart(model.encode(FEW), expected) <= TOLERANCE
    assert apart(np.stack([model.encode([text])[0] for text in FEW]), expected) <= TOLERANCE
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)


@pytest.mark.slow
def test_a_thousand_real_texts(model: Model, minilm: Path, real_texts: list[str], sentence_transformer: Open) -> None:
    """In any batches and any order: the composition of a batch does not matter."""
    expected = sentence_transformer(minilm).encode(real_texts, batch_size=32)
    for budget in (64, 512, 8192):
        assert apart(encode_quietly(model, real_texts, budget=budget), expected) <= TOLERANCE
    order = np.random.default_rng(0).permutation(len(real_texts))
    assert apart(encode_quietly(model, [real_texts[i] for i in order]), expected[order]) <= TOLERANCE
    for i in order[:20]:
        assert apart(encode_quietly(model, [real_texts[i]]), expected[i : i + 1]) <= TOLERANCE


@pytest.mark.slow
def test_spearman_on_sts(model: Model, minilm: Path, sts_test: list[tuple[float, str, str]], sentence_transformer: Open) -> None:
    """The correlation of cosines with human judgement, to four decimals."""
    gold, *sides = (list(column) for column in zip(*sts_test, strict=True))
    assert len(gold) == 1379

    def spearman(encoder: Any) -> float:
        one, other = (encoder.encode(side) for side in sides)
        return float(spearmanr(gold, (one * other).sum(axis=1))[0])  # type: ignore[arg-type]

    found = spearman(model)
    assert round(found, 4) == round(spearman(sentence_transformer(minilm)), 4)
    assert found > 0.8


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("schema", ["flags", "name"])
def test_poolings_in_both_schemas(pooling: str, schema: str, edited: Edit, sentence_transformer: Open, tmp_path: Path) -> None:
    flags = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
    off = dict.fromkeys(flags.values(), False if schema == "flags" else None)
    said: dict[str, Any] = (
        {flags[pooling]: True} if schema == "flags" else {"pooling_mode": pooling, "pooling_mode_mean_sqrt_len_tokens": None}
    )
    folder = edited(**{"1_Pooling__config": {**off, **said}})
    expected = sentence_transformer(folder).encode(FEW)
    model = bothways.load(folder)
    assert model.settings.pooling == pooling
    assert apart(model.encode(FEW), expected) <= TOLERANCE
    again = model.save(tmp_path / "saved")
    assert bothways.load(again).settings == model.settings
    assert apart(sentence_transformer(again).encode(FEW), expected) <= TOLERANCE


def test_without_normalisation(edited: Edit, sentence_transformer: Open, tmp_path: Path) -> None:
    folder = edited()
    steps = (folder / "modules.json").read_text()
    (folder / "modules.json").unlink()
    (folder / "modules.json").write_text(steps[: steps.index('  {\n    "idx": 2')].rstrip().rstrip(",") + "\n]")
    model = bothways.load(folder)
    vectors = model.encode(FEW)
    assert not model.settings.normalize
    assert np.linalg.norm(vectors, axis=1).max() > 2
    assert apart(vectors, sentence_transformer(folder).encode(FEW)) <= 5 * TOLERANCE  # values up to 5 times as large
    assert apart(sentence_transformer(model.save(tmp_path / "saved")).encode(FEW), vectors) <= 5 * TOLERANCE


E5 = {"prompts": {"query": "query: ", "document": "passage: "}}


@pytest.mark.parametrize("include", [True, False])
def test_prompts(include: bool, edited: Edit, sentence_transformer: Open, tmp_path: Path) -> None:
    """E5-like folders: queries and documents get their own prefix, pooled or not."""
    folder = edited(config_sentence_transformers=E5, **{"1_Pooling__config": {"include_prompt": include}})
    ours, theirs = bothways.load(folder), sentence_transformer(folder)
    assert apart(ours.encode_query(FEW), theirs.encode_query(FEW)) <= TOLERANCE
    assert apart(ours.encode_document(FEW), theirs.encode_document(FEW)) <= TOLERANCE
    assert apart(ours.encode(FEW), theirs.encode(FEW)) <= TOLERANCE
    assert apart(ours.encode(FEW, prompt="ask: "), theirs.encode(FEW, prompt="ask: ")) <= TOLERANCE
    assert apart(ours.encode_query(FEW), ours.encode_document(FEW)) > 0.01
    assert apart(ours.encode_query(FEW), ours.encode(FEW)) > 0.01
    saved = bothways.load(ours.save(tmp_path / "saved"))
    assert saved.settings == ours.settings
    assert apart(saved.encode_query(FEW), ours.encode_query(FEW)) == 0


@pytest.mark.parametrize(
    "general",
    [
        {"prompts": {"query": "q: ", "other": "o: "}, "default_prompt_name": "other"},
        {"prompts": {"query": "", "document": "", "other": "o: "}, "default_prompt_name": "other"},
        {"prompts": {"query": "", "document": ""}, "default_prompt_name": None},
    ],
    ids=str,
)
def test_which_prompt_is_used(general: dict[str, Any], edited: Edit, sentence_transformer: Open) -> None:
    folder = edited(config_sentence_transformers=general)
    ours, theirs = bothways.load(folder), sentence_transformer(folder)
    for name in ("encode", "encode_query", "encode_document"):
        assert apart(getattr(ours, name)(FEW), getattr(theirs, name)(FEW)) <= TOLERANCE, name


@pytest.mark.parametrize(
    ("prompts", "used"), [({"passage": "p: "}, "p: "), ({"corpus": "c: ", "passage": "p: "}, "p: "), ({"corpus": "c: "}, "c: ")]
)
def test_a_passage_is_a_document(prompts: dict[str, str], used: str, edited: Edit, sentence_transformer: Open) -> None:
    """As sentence-transformers documents it; its version 6 finds an empty `document` prompt of its own making first."""
    folder = edited(config_sentence_transformers={"prompts": prompts})
    expected = sentence_transformer(folder).encode(FEW, prompt=used)
    assert apart(bothways.load(folder).encode_document(FEW), expected) <= TOLERANCE


@pytest.mark.parametrize("limit", [16, 300, None])
def test_the_folder_says_how_much_is_read(limit: int | None, edited: Edit, sentence_transformer: Open) -> None:
    """`max_seq_length`; without it the tokenizer's limit, here 40; never more than the encoder's."""
    folder = edited(sentence_bert_config={"max_seq_length": limit}, tokenizer_config={"model_max_length": 40})
    model = bothways.load(folder)
    assert model.max_seq_length == (limit or 40) == sentence_transformer(folder).max_seq_length
    assert (
        apart(encode_quietly(model, ["word " * 350, "short"]), sentence_transformer(folder).encode(["word " * 350, "short"]))
        <= TOLERANCE
    )


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta", "distilbert"])
def test_older_names_of_the_settings(name: str, edited: Edit) -> None:
    folder = edited()
    (folder / "sentence_bert_config.json").unlink()
    (folder / f"sentence_{name}_config.json").write_text('{"max_seq_length": 21}')
    assert bothways.load(folder).max_seq_length == 21


def test_lower_case(edited: Edit, sentence_transformer: Open, tmp_path: Path) -> None:
    """Where the folder asks for it and its tokenizer does not do so itself; a saved model's tokenizer does."""
    tokenizer = json.loads((edited() / "tokenizer.json").read_text())
    cased = {"tokenizer": {"normalizer": {**tokenizer["normalizer"], "lowercase": False}}}
    folder = edited(sentence_bert_config={"max_seq_length": 256, "do_lower_case": True}, **cased)
    model, texts = bothways.load(folder), ["The Quick Brown FOX", "The dog"]
    assert apart(model.encode(texts), model.encode([text.lower() for text in texts])) == 0
    assert apart(model.encode(texts), sentence_transformer(folder).encode(texts)) <= TOLERANCE
    assert apart(model.encode(texts), bothways.load(edited(**cased)).encode(texts)) > 0.01
    again = bothways.load(model.save(tmp_path / "saved"))
    assert (again.fingerprint, apart(again.encode(texts), model.encode(texts))) == (model.fingerprint, 0)


def test_the_similarity_is_kept(edited: Edit, sentence_transformer: Open, tmp_path: Path) -> None:
    model = bothways.load(edited(config_sentence_transformers={"similarity_fn_name": "dot"}))
    assert sentence_transformer(model.save(tmp_path / "saved")).similarity_fn_name == "dot"


def test_what_is_cut_is_counted_and_told_once(model: Model) -> None:
    texts = ["word " * 300, "short", "word " * 256]
    with pytest.warns(CutWarning) as told:
        cut = model.encode(texts)
    assert len(told) == 1
    # 254 words beside [CLS] and [SEP]
    assert "2 of 3 texts were cut to 254 tokens (48 tokens left out)" in str(told[0].message)
    assert apart(cut, model.encode(["word " * 254, "short", "word " * 254])) <= TOLERANCE


def test_texts_that_fit_exactly_are_not_cut(model: Model) -> None:
    model.encode(["word " * 254], overflow="error")
    with pytest.raises(InputError, match="1 of 2 texts have more than 254 tokens; the first is number 1 with 255"):
        model.encode(["short", "word " * 255], overflow="error")


def test_chunks_are_averaged_by_length(edited: Edit) -> None:
    """All of a long text is read: here in pieces of 4 words, the last of 2."""
    model = bothways.load(edited(sentence_bert_config={"max_seq_length": 6}))
    words = ["cat", "dog", "tree", "house", "river", "stone", "bird", "fish", "cloud", "lamp"]
    short = "sun moon"
    found = model.encode([" ".join(words), short], overflow="chunk")
    pieces = raw(model, [" ".join(words[i : i + 4]) for i in (0, 4, 8)])
    mean = (4 * pieces[0] + 4 * pieces[1] + 2 * pieces[2]) / 10
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean), atol=TOLERANCE)
    assert apart(found[1:], model.encode([short])) <= TOLERANCE
    assert apart(found[:1], encode_quietly(model, [" ".join(words)])) > 0.01


@pytest.mark.parametrize("include", [True, False])
def test_every_chunk_has_the_prompt(include: bool, edited: Edit) -> None:
    general = {"prompts": {"query": "find: "}}
    folder = edited(
        sentence_bert_config={"max_seq_length": 8},
        config_sentence_transformers=general,
        **{"1_Pooling__config": {"include_prompt": include}},
    )
    model = bothways.load(folder)
    words = ["cat", "dog", "tree", "house", "river", "stone"]
    found = model.encode_query([" ".join(words)], overflow="chunk")
    pieces = raw(model, [" ".join(words[:4]), " ".join(words[4:])], prompt="find: ")
    mean = (4 * pieces[0] + 2 * pieces[1]) / 6
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean), atol=TOLERANCE)
    with pytest.raises(InputError, match="the prompt has 9 tokens and leaves no room"):
        model.encode(["cat"], prompt="a b c d e f g h i ", overflow="chunk")


def raw(model: Model, texts: list[str], **options: Any) -> np.ndarray:
    """Pooled vectors before they are normalised."""
    settings = model.settings
    model.settings = replace(settings, normalize=False)
    vectors = model.encode(texts, **options)
    model.settings = settings
    return vectors


def test_no_texts(model: Model) -> None:
    assert model.encode([]).shape == (0, 384)
    assert model.hidden_states([]) == []


def test_a_single_string_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="wrap a single one in"):
        model.encode("text")


def test_progress_counts_everything(model: Model) -> None:
    seen: list[tuple[int, int]] = []
    model.encode(
        ["one two", "three", "four five six"], budget=4, progress=lambda sequences, tokens: seen.append((sequences, tokens))
    )
    assert sum(sequences for sequences, _ in seen) == 3
    assert sum(tokens for _, tokens in seen) == 6 + 2 * 3
