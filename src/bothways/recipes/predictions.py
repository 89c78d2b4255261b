"""What a model guesses for a token of a few held-out texts, for a run's report."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from bothways.data.sample import Samples
from bothways.model.model import Model


def predictions(model: Model, heldout: Samples, count: int = 4, around: int = 12) -> list[dict[str, str]]:
    """What the model puts in the place of one token of a few held-out texts."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    assert tokenizer.mask_id is not None
    rows = []
    longest = np.argsort(-heldout.lengths, kind="stable")[:count]
    for number in longest.tolist():
        ids = heldout[number].sequences[0].copy()
        place = _middle(ids, tokenizer.special_ids)
        truth, ids[place] = int(ids[place]), tokenizer.mask_id
        with torch.no_grad():
            hidden = model.hidden_states([ids])[0][place]
            logits = model.masked_lm(torch.from_numpy(hidden).to(model.device)[None])[0]
        best = logits[: tokenizer.vocab_size].topk(min(3, tokenizer.vocab_size)).indices.tolist()
        left, right = tokenizer.decode(ids[max(place - around, 0) : place]), tokenizer.decode(ids[place + 1 : place + around])
        rows.append(
            {
                "text": f"{left} ____ {right}",
                "was": tokenizer.decode([truth]),
                "guesses": ", ".join(tokenizer.decode([token]) for token in best),
            }
        )
    return rows


def _middle(ids: np.ndarray, specials: Collection[int]) -> int:
    """The place of the token of the text that is nearest to the middle."""
    words = np.flatnonzero(~np.isin(ids, list(specials)))
    return int(words[np.argmin(np.abs(words - len(ids) // 2))]) if len(words) else len(ids) // 2
