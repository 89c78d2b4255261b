"""How well a tokenizer suits a text: what it costs in tokens, what it does not know, what it loses."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError

_BATCH = 256


@dataclass(frozen=True)
class TokenizerHealth:
    """Figures over a collection of texts; special tokens that frame a text are not counted.

    Attributes:
        vocabulary_used: the share of the ordinary (not special) vocabulary that occurs at all.
        tokens_per_word: a word is what stands between spaces.
        characters_per_token: characters of the text, spaces included.
        unknown_rate: the share of tokens that are the unknown token.
        texts_lost: texts that do not come back from their ids, apart from spaces and from what the tokenizer
            normalises away on purpose (such as case).
        tokens_per_second: of this machine, at this moment.
    """

    texts: int
    words: int
    characters: int
    tokens: int
    vocab_size: int
    vocabulary_used: float
    tokens_per_word: float
    characters_per_token: float
    unknown_rate: float
    texts_lost: int
    tokens_per_second: float


def tokenizer_health(tokenizer: Tokenizer, texts: Iterable[str]) -> TokenizerHealth:
    """Measure a tokenizer on texts, held out from its training where there are enough.

    Raises:
        InputError: the texts hold no words.
    """
    seen = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    number = words = characters = lost = 0
    seconds = 0.0
    for batch in _batches(texts):
        start = time.perf_counter()
        encoded = tokenizer.encode(batch, specials=False)
        seconds += time.perf_counter() - start
        seen += np.bincount(np.concatenate(encoded), minlength=len(seen))
        number += len(batch)
        words += sum(len(text.split()) for text in batch)
        characters += sum(map(len, batch))
        lost += sum(_is_lost(tokenizer, text, ids) for text, ids in zip(batch, encoded, strict=True))
    tokens = int(seen.sum())
    if not words or not tokens:
        raise InputError(f"tokenizer health: no words in {number} texts")
    ordinary = np.ones(len(seen), dtype=bool)
    ordinary[list(tokenizer.special_ids)] = False
    return TokenizerHealth(
        texts=number,
        words=words,
        characters=characters,
        tokens=tokens,
        vocab_size=tokenizer.vocab_size,
        vocabulary_used=float((seen[ordinary] > 0).mean()),
        tokens_per_word=tokens / words,
        characters_per_token=characters / tokens,
        unknown_rate=0.0 if tokenizer.unk_id is None else int(seen[tokenizer.unk_id]) / tokens,
        texts_lost=lost,
        tokens_per_second=tokens / seconds,
    )


def _is_lost(tokenizer: Tokenizer, text: str, ids: np.ndarray) -> bool:
    normalizer = tokenizer.backend.normalizer
    expected = text if normalizer is None else normalizer.normalize_str(text)
    return "".join(tokenizer.decode(ids.tolist(), skip_special_tokens=False).split()) != "".join(expected.split())


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, _BATCH)):
        yield batch
