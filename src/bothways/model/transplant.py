"""A new tokenizer for a trained model: what it knew of old pieces begins the new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bothways.data.pieces import Pieces
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError
from bothways.layers.position import Learned
from bothways.model.model import Model

# Of a config's ids of special tokens, those that a folder may hold and that no family writes
_ID_KEYS = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id", "unk_token_id")
# What has a row for each token, by its name in the state dict
_TABLES = ("encoder.embedding.tokens.weight", "heads.masked_lm.decoder.weight", "heads.masked_lm.bias")


@dataclass(frozen=True, eq=False)
class Transplanted:
    """A model with a new tokenizer, and where the rows of its vocabulary came from.

    Attributes:
        copied: pieces that the old vocabulary has too, and special tokens, which are matched by their role.
        composed: pieces that begin as the mean of the old pieces of their text.
        fresh: pieces of which the old vocabulary knows nothing, drawn at random as the old rows are spread.
        unused: rows that no piece has.
        pieces: the old pieces of a composed one, on average; 0 where there is none.
    """

    model: Model
    copied: int
    composed: int
    fresh: int
    unused: int
    pieces: float


def transplant(model: Model, tokenizer: Tokenizer, multiple: int = 64, seed: int = 0, fewest: int = 0) -> Transplanted:
    """The model with another tokenizer; all but the rows of its vocabulary stays as it is.

    A piece that both vocabularies have keeps its embedding, its row of an untied output table, and its output bias. Any
    other begins as the mean of those of the old pieces of its text.

    Args:
        multiple: of the number of rows, unless the new vocabulary is as large as the old one.
        seed: of the rows that are drawn at random.
        fewest: so many rows there are at least.

    Raises:
        InputError: a model without tokenizer, a tokenizer without a token for the role of one that the model needs, or
            whose padding token would move the positions.
    """
    old = model.tokenizer
    if old is None:
        raise InputError(f"{model.name or 'this model'} has no tokenizer, so nothing is known of the pieces it was trained on")
    _check(model, tokenizer)
    before = model.spec.encoder.vocab_size
    needed = before if tokenizer.vocab_size == old.vocab_size else -(-tokenizer.vocab_size // multiple) * multiple
    rows = max(needed, fewest)
    sources = _sources(old, tokenizer, before, rows)
    # what a new row has nothing of is drawn as the rows of ordinary pieces are spread
    ordinary = sorted(set(old.backend.get_vocab().values()) - old.special_ids)
    moved = _emptied(model, tokenizer, rows)
    state = {
        name: _moved(tensor, sources, ordinary, seed) if name in _TABLES else tensor.clone()
        for name, tensor in model.state_dict().items()
    }
    moved.load_state_dict(state, assign=True)
    moved.requires_grad_(True)
    used = [sources[i] for i in sorted(set(tokenizer.backend.get_vocab().values()))]
    composed = [len(one) for one in used if len(one) > 1]
    return Transplanted(
        moved.train(model.training),
        copied=sum(len(one) == 1 for one in used),
        composed=len(composed),
        fresh=sum(not one for one in used),
        unused=rows - len(used),
        pieces=sum(composed) / len(composed) if composed else 0.0,
    )


def _check(model: Model, tokenizer: Tokenizer) -> None:
    assert model.tokenizer is not None
    if "masked_lm" in model.heads and tokenizer.mask_id is None:
        raise InputError("the new tokenizer has no mask token, and the model predicts masked tokens; name one (mask_token)")
    for role in ("cls_token", "sep_token"):
        if role in model.tokenizer.tokens and role not in tokenizer.tokens:
            raise InputError(f"the new tokenizer names no {role}, and the old one does ({model.tokenizer.tokens[role]}); add one")
    position = model.spec.encoder.embedding.position
    if isinstance(position, Learned) and position.offset and position.offset != (tokenizer.pad_id or 0) + 1:
        raise InputError(
            f"positions of the family '{model.family.name}' begin behind the padding token's id: "
            f"it was {position.offset - 1}, and is {tokenizer.pad_id} in the new tokenizer; train one "
            f"with specials='roberta', or renumber its special tokens"
        )


def _sources(old: Tokenizer, new: Tokenizer, before: int, rows: int) -> list[list[int]]:
    """The old rows that each new row is made of."""
    ours, theirs = Pieces(old), Pieces(new)
    known = {piece: i for piece, i in ours.ids.items() if i not in old.special_ids}
    spelt: dict[object, int] = {}
    for piece, i in sorted(known.items(), key=lambda item: item[1]):
        spelling = ours.spelling(piece)
        if spelling is not None:
            spelt.setdefault(spelling, i)
    roles = {
        new.backend.token_to_id(token): old.backend.token_to_id(old.tokens[role])
        for role, token in new.tokens.items()
        if role in old.tokens
    }
    sources: list[list[int]] = [[] for _ in range(rows)]
    used = set(theirs.ids.values())
    for i in set(range(min(before, rows))) - used - set(ours.ids.values()):
        sources[i] = [i]  # unused then and now
    for piece, i in theirs.ids.items():
        spelling = theirs.spelling(piece)
        if i in new.special_ids:
            same = roles.get(i, ours.ids.get(piece))
            sources[i] = [] if same is None else [same]
        elif ours.marks == theirs.marks and piece in known:
            sources[i] = [known[piece]]
        elif spelling is not None:
            sources[i] = [spelt[spelling]] if spelling in spelt else ours.spell(spelling)
    return sources


def _moved(
    table: Float[Tensor, "old ..."], sources: Sequence[Sequence[int]], ordinary: Sequence[int], seed: int
) -> Float[Tensor, "new ..."]:
    """A table of the new rows: copies and means of old ones, and draws as these are spread."""
    generator = torch.Generator().manual_seed(seed)
    typical = table[torch.tensor(ordinary)].double().cpu()
    new = torch.empty(len(sources), *table.shape[1:], dtype=table.dtype)
    held = table.detach().cpu()
    for i, rows in enumerate(sources):
        if len(rows) == 1:
            new[i] = held[rows[0]]
        elif rows:
            new[i] = held[list(rows)].double().mean(dim=0).to(table.dtype)
    empty = torch.tensor([i for i, rows in enumerate(sources) if not rows], dtype=torch.int64)
    noise = torch.randn(len(empty), *table.shape[1:], generator=generator, dtype=torch.float64)
    new[empty] = (typical.mean(dim=0) + typical.std(dim=0) * noise).to(table.dtype)
    return new.to(table.device)


def _emptied(model: Model, tokenizer: Tokenizer, rows: int) -> Model:
    """A model of the new shape, without weights."""
    old = model.tokenizer
    assert old is not None
    given = Tokenizer(tokenizer.backend, dict(tokenizer.tokens), tokenizer.max_length or old.max_length)
    encoder = model.spec.encoder
    filler = None if encoder.filler is None else tokenizer.pad_id
    if encoder.filler is not None and filler is None:
        raise InputError(
            "the new tokenizer has no padding token, and the model fills its texts up with one; name one (pad_token)"
        )
    position = encoder.embedding.position
    fixed = isinstance(position, Learned) and position.offset
    pad = model.spec.pad_id if fixed or tokenizer.pad_id == old.pad_id else tokenizer.pad_id or 0
    spec = replace(model.spec, encoder=replace(encoder, vocab_size=rows, filler=filler), pad_id=pad)
    with torch.device("meta"):
        return Model(model.family, spec, given, model.settings, model.name, _renumbered(model.published, old, tokenizer))


def _renumbered(published: Mapping[str, Any], old: Tokenizer, new: Tokenizer) -> dict[str, Any]:
    """The config with the new ids of special tokens, by role; an id that had no role is left out."""
    roles = {old.backend.token_to_id(token): role for role, token in old.tokens.items()}
    kept = dict(published)
    for key in _ID_KEYS:
        if key in kept:
            role = roles.get(kept.pop(key))
            if role in new.tokens:
                kept[key] = new.backend.token_to_id(new.tokens[role])
    return kept
