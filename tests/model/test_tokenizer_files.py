"""Tokenizers from the old vocabulary files give the ids that `transformers` gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError

TEXTS = [
    "The quick brown fox, naïve as ever, jumped over 3.14 lazy dogs!",
    "THE Quick Brown",
    "Ünïcödé é́ façade — “quotes” and... dots",
    "我爱自然语言 処理 mixed in",
    "a[MASK]b [MASK] <mask> x<mask>y  <mask>",
    "[CLS] written out [SEP] and <s> too </s>",
    "tabs\tand\nnewlines  and   spaces ",
    "supercalifragilisticexpialidocious" * 5,
    "e-mail@example.com isn't it? don't",
    "\u200bzero\u00adwidth\ufffd control\x07",
    "emoji 🙂🇩🇪 and \U0001d518\U0001d52b\U0001d526",
    "",
    "   ",
]
PAIRS = [("first text", "second one"), ("", "alone"), ("über", "[MASK]")]
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

# as RoBERTa's files say it: the space before a mask belongs to the mask
_MASK = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}


def word_list(folder: Path, settings: dict[str, Any]) -> Path:
    """A WordPiece vocabulary in which a line separator is a token, as in multilingual ones."""
    characters = sorted(
        {c for text in TEXTS for form in (text, text.lower()) for c in form if not c.isspace()}
        | set("abcdefghijklmnopqrstuvwxyzüéïçö")
    )
    pieces = [
        *_SPECIAL,
        "\u2028",
        "the",
        "quick",
        "##ck",
        "brown",
        "fox",
        "dog",
        "##s",
        "jump",
        "##ed",
        "over",
        "naive",
        "naïve",
        "text",
    ]
    words = list(dict.fromkeys([*pieces, *characters, *("##" + c for c in characters)]))
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **settings}))
    return folder


def byte_pairs(folder: Path, settings: dict[str, Any]) -> Path:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    folder.mkdir()
    backend.model.save(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**vocabulary, "<mask>": len(vocabulary)}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "RobertaTokenizer", "mask_token": _MASK, **settings})
    )
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"model_max_length": 77},
    ],
    ids=str,
)
def test_word_lists(settings: dict[str, Any], tmp_path: Path) -> None:
    from transformers import BertTokenizer

    folder = word_list(tmp_path / "bert", settings)
    assert_same(Tokenizer.load(folder), BertTokenizer.from_pretrained(folder), typed=True)
    assert Tokenizer.load(folder).max_length == settings.get("model_max_length")


@pytest.mark.parametrize("settings", [{}, {"add_prefix_space": True}], ids=str)
def test_byte_pairs(settings: dict[str, Any], tmp_path: Path) -> None:
    from transformers import RobertaTokenizer

    folder = byte_pairs(tmp_path / "roberta", settings)
    assert_same(Tokenizer.load(folder), RobertaTokenizer.from_pretrained(folder), typed=False)


def assert_same(ours: Tokenizer, theirs: Any, typed: bool) -> None:
    for text, ids in zip(TEXTS, ours.encode(TEXTS), strict=True):
        assert ids.tolist() == theirs(text)["input_ids"], text
        assert ids.dtype == np.int32
    for pair, (ids, types) in zip(PAIRS, ours.encode_pairs(PAIRS), strict=True):
        expected = theirs(*pair, return_token_type_ids=True)
        assert ids.tolist() == expected["input_ids"], pair
        assert types.tolist() == (expected["token_type_ids"] if typed else [0] * len(ids)), pair
    bare = ours.encode(TEXTS, specials=False)
    assert [ids.tolist() for ids in bare] == [theirs(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert [ours.wrap(ids).tolist() for ids in bare] == [ids.tolist() for ids in ours.encode(TEXTS)]
    named = (ours.pad_id, ours.mask_id, ours.unk_id)
    assert named == (theirs.pad_token_id, theirs.mask_token_id, theirs.unk_token_id)
    assert set(named) <= ours.special_ids
    assert ours.vocab_size == len(theirs)
    assert ours.specials_per_sequence == 2


@pytest.mark.parametrize("make", [word_list, byte_pairs])
def test_what_is_saved_is_read_by_both(make: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours = Tokenizer.load(make(tmp_path / "old", {"model_max_length": 50}))
    ours.save(tmp_path / "new")
    again = Tokenizer.load(tmp_path / "new")
    assert again.fingerprint == ours.fingerprint
    assert again.max_length == 50
    assert_same(again, AutoTokenizer.from_pretrained(tmp_path / "new"), typed=make is word_list)


def test_nothing_is_cut_or_padded(tmp_path: Path) -> None:
    """Whatever the file says of truncation and padding."""
    folder = word_list(tmp_path / "bert", {})
    backend = Tokenizer.load(folder).backend
    backend.enable_truncation(4)
    backend.enable_padding(length=9)
    backend.save(str(folder / "tokenizer.json"))
    assert [len(ids) for ids in Tokenizer.load(folder).encode(["the the the the the the", "the"])] == [8, 3]


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tokenizer"):
        Tokenizer.load(tmp_path)
