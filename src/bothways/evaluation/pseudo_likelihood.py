"""How likely a masked language model finds a text: its pseudo-log-likelihood.

Every token is masked in turn and predicted from all others (Salazar et al., arXiv 1910.14659). Masked copies of many
texts are packed together, equal copies are computed once, and the vocabulary is reached for masked rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError
from bothways.model.batching import Progress, run
from bothways.model.model import Model
from bothways.model.overflow import check_lengths
from bothways.ragged import Encoded

Scoring = Literal["token", "word_l2r"]
"""`token`: each token is masked alone. `word_l2r`: with the tokens of its word that come after it, so that the end of a
rare word does not give away its beginning (Kauf and Ivanova, arXiv 2305.10588)."""


def pseudo_log_likelihoods(
    model: Model,
    texts: Sequence[str],
    scoring: Scoring = "token",
    budget: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """The sum over each text's tokens, special ones apart, of their log-probabilities in nats: float64 [texts].

    Args:
        budget: tokens of a batch.
        progress: told of masked copies and their tokens.

    Raises:
        InputError: no masked-language head, no mask token, a text without tokens or too long, or a score that is not finite.
    """
    name = model.name or "this model"
    if "masked_lm" not in model.heads:
        raise InputError(f"{name} has no masked-language-model head; a pseudo-log-likelihood needs one")
    tokenizer = model.tokenizer
    if tokenizer is None or tokenizer.mask_id is None:
        raise InputError(f"{name} has no tokenizer with a mask token; a pseudo-log-likelihood needs one")
    copies = _Copies(tokenizer.mask_id)
    owners = _mask_all(copies, tokenizer, texts, model.max_seq_length, scoring)

    def reduce(encoded: Encoded, chosen: list[int]) -> Sequence[Tensor]:
        asked = [copies.asked[i] for i in chosen]
        rows = [start + position for start, one in zip(encoded.ragged.offsets, asked, strict=False) for position, _ in one]
        targets = torch.tensor([target for one in asked for _, target in one], device=encoded.hidden.device)
        logits = model.masked_lm(encoded.hidden[rows]).float()
        found = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(dim=1)
        return found.cpu().split([len(one) for one in asked])

    answers = run(model.encoder, copies.ids, reduce, budget=budget, progress=progress)
    found = [answer.double().numpy() for answer in answers]
    scores = np.array([sum(found[copy][place] for copy, place in owned) for owned in owners], dtype=np.float64)
    if not np.isfinite(scores).all():
        first = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise InputError(f"{name}: the score of {texts[first]!r} is {scores[first]}; are there NaNs among its weights?")
    return scores


@dataclass
class _Copies:
    """Masked sequences, each once, and what is asked of them: (position, token that stood there)."""

    mask: int
    ids: list[np.ndarray] = field(default_factory=list)
    asked: list[list[tuple[int, int]]] = field(default_factory=list)
    numbers: dict[bytes, int] = field(default_factory=dict)

    def add(self, ids: np.ndarray, hidden: np.ndarray, position: int) -> tuple[int, int]:
        """Ask for the token at a position where these are hidden; returns the copy's number and the question's place in it."""
        copy = ids.copy()
        copy[hidden] = self.mask
        number = self.numbers.setdefault(copy.tobytes(), len(self.ids))
        if number == len(self.ids):
            self.ids.append(copy)
            self.asked.append([])
        question = (position, int(ids[position]))
        asked = self.asked[number]
        if question not in asked:
            asked.append(question)
        return number, asked.index(question)


def _mask_all(
    copies: _Copies, tokenizer: Tokenizer, texts: Sequence[str], longest: int, scoring: Scoring
) -> list[list[tuple[int, int]]]:
    """Ask for every token of every text; returns each text's questions."""
    pieces = tokenizer.encode_words(texts)
    check_lengths([len(ids) for ids, _ in pieces], longest - tokenizer.specials_per_sequence, "error", "texts")
    before = len(tokenizer.template.before)
    owners: list[list[tuple[int, int]]] = []
    for text, (content, words) in zip(texts, pieces, strict=True):
        if not len(content):
            raise InputError(f"the text {text!r} has no tokens; there is nothing to score")
        ids = tokenizer.wrap(content)
        owned = []
        for place in range(len(content)):
            end = place + 1
            if scoring == "word_l2r":
                while end < len(content) and words[end] == words[place]:
                    end += 1
            owned.append(copies.add(ids, np.arange(before + place, before + end), before + place))
        owners.append(owned)
    return owners
