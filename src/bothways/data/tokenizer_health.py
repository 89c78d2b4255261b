"""How well a tokenizer suits a text: what it costs in tokens, what it does not know, what it loses."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np

from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError

T = TypeVar("T")

_BATCH = 256
_ALL, _MOST_GROUPS = "all", 200


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


class Tally:
    """What a tokenizer makes of texts that come one lot after another."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._seen = np.zeros(tokenizer.vocab_size, dtype=np.int64)
        self._texts = self._words = self._characters = self._lost = 0
        self._seconds = 0.0

    def add(self, texts: Sequence[str]) -> None:
        start = time.perf_counter()
        encoded = self._tokenizer.encode(texts, specials=False)
        self._seconds += time.perf_counter() - start
        if encoded:
            self._seen += np.bincount(np.concatenate(encoded), minlength=len(self._seen))
        self._texts += len(texts)
        self._words += sum(len(text.split()) for text in texts)
        self._characters += sum(map(len, texts))
        self._lost += sum(_is_lost(self._tokenizer, text, ids) for text, ids in zip(texts, encoded, strict=True))

    def merge(self, other: Tally) -> None:
        """Take over what another of the same tokenizer has counted."""
        self._seen += other._seen
        self._texts, self._words = self._texts + other._texts, self._words + other._words
        self._characters, self._lost = self._characters + other._characters, self._lost + other._lost
        self._seconds += other._seconds

    @property
    def any(self) -> bool:
        """Whether there were words, and tokens of them."""
        return bool(self._words and self._seen.any())

    def health(self) -> TokenizerHealth:
        """The figures of all texts so far. Raises InputError where they hold no words."""
        tokenizer, seen, tokens = self._tokenizer, self._seen, int(self._seen.sum())
        if not self.any:
            raise InputError(f"tokenizer health: no words in {self._texts} texts")
        ordinary = np.ones(len(seen), dtype=bool)
        ordinary[list(tokenizer.special_ids)] = False
        return TokenizerHealth(
            texts=self._texts,
            words=self._words,
            characters=self._characters,
            tokens=tokens,
            vocab_size=tokenizer.vocab_size,
            vocabulary_used=float((seen[ordinary] > 0).mean()),
            tokens_per_word=tokens / self._words,
            characters_per_token=self._characters / tokens,
            unknown_rate=0.0 if tokenizer.unk_id is None else int(seen[tokenizer.unk_id]) / tokens,
            texts_lost=self._lost,
            tokens_per_second=tokens / self._seconds,
        )


def tokenizer_health(tokenizer: Tokenizer, texts: Iterable[str]) -> TokenizerHealth:
    """Measure a tokenizer on texts, held out from its training where there are enough.

    Raises:
        InputError: the texts hold no words.
    """
    tally = Tally(tokenizer)
    for batch in _batches(texts):
        tally.add(batch)
    return tally.health()


def health_by_group(
    tokenizers: Mapping[str, Tokenizer], texts: Iterable[tuple[str, str]]
) -> dict[str, dict[str, TokenizerHealth]]:
    """Measure tokenizers side by side on texts of several languages or domains.

    Args:
        tokenizers: by a name of each.
        texts: the group and the text of each, in any order.

    Returns:
        for each group in alphabetical order, then for "all", the figures of each tokenizer. A group without words is left
        out, and counts in "all".

    Raises:
        InputError: no words at all; a group called "all", or more than 200 groups.
    """
    groups: dict[str, dict[str, Tally]] = {}
    whole = {name: Tally(tokenizer) for name, tokenizer in tokenizers.items()}
    for batch in _batches(texts):
        lots: dict[str, list[str]] = {}
        for group, text in batch:
            lots.setdefault(group, []).append(text)
        for group, lot in lots.items():
            tallies = groups.setdefault(group, {name: Tally(tokenizer) for name, tokenizer in tokenizers.items()})
            if group == _ALL or len(groups) > _MOST_GROUPS:
                what = f"a group is called '{_ALL}'" if group == _ALL else f"over {_MOST_GROUPS} groups"
                raise InputError(f"tokenizer health: {what}; name a column of languages or domains")
            for name in tokenizers:
                tallies[name].add(lot)
    for lot in groups.values():
        for name, tally in lot.items():
            whole[name].merge(tally)
    measured = {group: lot for group, lot in sorted(groups.items()) if all(tally.any for tally in lot.values())}
    return {group: {name: tally.health() for name, tally in lot.items()} for group, lot in {**measured, _ALL: whole}.items()}


def _is_lost(tokenizer: Tokenizer, text: str, ids: np.ndarray) -> bool:
    normalizer = tokenizer.backend.normalizer
    expected = text if normalizer is None else normalizer.normalize_str(text)
    return "".join(tokenizer.decode(ids.tolist(), skip_special_tokens=False).split()) != "".join(expected.split())


def _batches(texts: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(texts)
    while batch := list(islice(rest, _BATCH)):
        yield batch
