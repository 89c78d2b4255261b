"""`bothways lexicon`: n-grams of shards, and what is told of them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import WORDS, Refused, Run

from bothways.data.lexicon import Lexicon
from bothways.data.shard_writer import write_shards
from bothways.data.source import Document
from bothways.data.tokenizer_training import WordPiece, train_tokenizer


def test_lexicon(run: Run, refused: Refused, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(WordPiece(vocab_size=120), [WORDS] * 20)
    for number in range(2):
        texts = (Document(f"{WORDS} the cat sat", f"{number}:{i}") for i in range(4))
        write_shards(texts, tokenizer, tmp_path / str(number))
    out = tmp_path / "lexicon.safetensors"
    ran = run("lexicon", tmp_path / "0", tmp_path / "1", "--out", out, "--size", 6, "--size", 4, "--at-least", 8, "--json")
    assert ran.code == 0, ran
    said, made = json.loads(ran.out), Lexicon.load(out, tokenizer)
    assert said["sizes"] == {"2": 6, "3": 4}
    assert made.sizes == (6, 4)
    assert said["highest"] == [tokenizer.decode(list(made.tokens(0))), tokenizer.decode(list(made.tokens(6)))]
    assert "lexicon.safetensors: exists already" in refused("lexicon", tmp_path / "0", "--out", out)
    told = refused("lexicon", tmp_path / "0", "--out", tmp_path / "x", "--at-least", "999")
    assert "no n-gram of the text occurs 999 times" in told
    refused("lexicon", tmp_path, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()
