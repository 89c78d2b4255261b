"""The speedrun's task: one corpus, one tokenizer, one held-out set with fixed masks, one figure.

99 English novels (ELTeC), of which every tenth is held out; a WordPiece vocabulary of 8,192 trained on the
others; sequences of 128. The figure is the mean cross-entropy, in nats, of the masked tokens of 1,024 held-out
sequences: 15 % of them replaced by the mask token, once and for all. (With a tenth of them left standing, as in
training BERT, copying alone would bring half a nat.) Whoever takes part reads the same masked sequences and
predicts the same tokens.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bothways.data.masking import Masking, mask_tokens
from bothways.data.shard_writer import write_shards
from bothways.data.shards import Shards
from bothways.data.source import Document
from bothways.data.token_data import TokenData
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import WordPiece, train_tokenizer
from bothways.data.vocabulary import Vocabulary

LENGTH, VOCABULARY, LAYERS, WIDTH = 128, 8192, 4, 128
SEQUENCES = 1024
_HIDDEN = Masking(rate=0.15, mask=1.0, random=0.0, count="rounded")


def novels(corpus: Path) -> tuple[list[str], list[str]]:
    """Paragraphs to learn from, and held-out ones: every tenth novel."""
    kept: list[str] = []
    held: list[str] = []
    with gzip.open(corpus, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            (held if number % 10 == 9 else kept).extend(one for one in json.loads(line)["text"].split("\n") if one.strip())
    return kept, held


@dataclass(frozen=True)
class Task:
    """What every contender is given.

    Attributes:
        ids, masked: int32 [sequences, length]: the held-out text, and as it is read; `places` is true where a token is predicted.
        frequencies: the logarithms of those of the training text's tokens, each counted once more than it occurs.
        unigram: cross-entropy of the predicted tokens under them.
    """

    tokenizer: Tokenizer
    shards: Shards
    data: TokenData
    ids: np.ndarray
    masked: np.ndarray
    places: np.ndarray
    frequencies: np.ndarray
    unigram: float


def prepare(corpus: Path, work: Path) -> Task:
    """The task, its tokenizer and shards written to `work` at the first call."""
    if not (work / "train" / "manifest.json").exists():
        kept, held = novels(corpus)
        train_tokenizer(WordPiece(vocab_size=VOCABULARY), kept, LENGTH).save(work / "tokenizer")
        tokenizer = Tokenizer.load(work / "tokenizer")
        for name, texts in (("heldout", _joined(held)), ("train", _joined(kept))):
            write_shards((Document(text, "") for text in texts), tokenizer, work / name)
    return prepared(work)


def prepared(work: Path) -> Task:
    """The task that `prepare` has written."""
    tokenizer = Tokenizer.load(work / "tokenizer")
    shards = Shards(work / "train", tokenizer, "sizes")
    data = TokenData(shards, tokenizer, LENGTH)
    heldout = TokenData(Shards(work / "heldout", tokenizer, "sizes"), tokenizer, LENGTH)
    full = np.flatnonzero(heldout.lengths == LENGTH)
    chosen = full[np.linspace(0, len(full) - 1, SEQUENCES).astype(int)]
    ids = np.stack([heldout[int(number)].sequences[0] for number in chosen])
    lengths = np.full(SEQUENCES, LENGTH)
    corrupted = mask_tokens(_HIDDEN, Vocabulary.of(tokenizer, VOCABULARY), ids.ravel(), lengths, np.arange(SEQUENCES), 0, 0)
    places = np.zeros(ids.size, dtype=bool)
    places[corrupted.positions] = True
    frequencies = _log_frequencies(shards)
    unigram = float(-frequencies[corrupted.labels].mean())
    shape = ids.shape
    return Task(tokenizer, shards, data, ids, corrupted.ids.reshape(shape), places.reshape(shape), frequencies, unigram)


def _joined(paragraphs: list[str], most: int = 20_000) -> list[str]:
    """Runs of paragraphs, as run_mlm's `group_texts` joins them, so that sequences are full."""
    runs: list[list[str]] = [[]]
    size = 0
    for one in paragraphs:
        if size > most:
            runs.append([])
            size = 0
        runs[-1].append(one)
        size += len(one)
    return ["\n".join(run) for run in runs]


def _log_frequencies(shards: Shards) -> np.ndarray:
    counts = 1 + shards.counts(VOCABULARY)
    return np.log(counts / counts.sum()).astype(np.float32)
