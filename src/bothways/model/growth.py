"""New tokens for a trained model: words of a domain, each of which begins as the mean of the pieces it was cut into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bothways.data.added_tokens import is_known, with_tokens
from bothways.errors import InputError
from bothways.model.model import Model
from bothways.model.transplant import transplant


@dataclass(frozen=True, eq=False)
class Grown:
    """A model that reads new tokens.

    Attributes:
        added: the tokens, in the order of their ids, which follow the old ones.
        known: those asked for that the tokenizer reads as one token already; nothing is done for them.
        pieces: of how many old pieces a new token is made, on average; 0 where none is made of any.
        fresh: how many have a text that the old vocabulary does not know: drawn at random as its rows are spread.
    """

    model: Model
    added: tuple[str, ...]
    known: tuple[str, ...]
    pieces: float
    fresh: int


def grow(model: Model, tokens: Sequence[str], multiple: int = 64, seed: int = 0) -> Grown:
    """The model with tokens added to its vocabulary; the weights of all others stay as they are, bit for bit.

    A new token's embedding, its row of an untied output table and its output bias begin as the mean of those of the pieces
    that its text was cut into. A table that has room for them (many are larger than their vocabulary) stays as large.

    Args:
        multiple: of the number of rows, where a table is enlarged.
        seed: of the rows that are drawn at random.

    Raises:
        InputError: a model without a tokenizer, or a token that cannot be one, as of `with_tokens`.
    """
    if model.tokenizer is None:
        raise InputError(f"{model.name or 'this model'} has no tokenizer that tokens could be added to")
    tokenizer = with_tokens(model.tokenizer, tokens)
    known = tuple(token for token in tokens if is_known(model.tokenizer, token))
    added = tuple(token for token in tokens if token not in known)
    if not added:
        return Grown(model, (), known, pieces=0.0, fresh=0)
    found = transplant(model, tokenizer, multiple, seed, fewest=model.spec.encoder.vocab_size)
    return Grown(found.model, added, known, found.pieces, found.fresh)
