"""What generator and discriminator have in common: which tables of their embeddings are one."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import nn

from bothways.config import config
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.shifted import ShiftedEmbedding


@config
class WholeEmbedding:
    """The whole embedding but for the map behind it: tokens, positions, types and their norm (ELECTRA, arXiv 2003.10555)."""

    type: Literal["embedding"] = "embedding"


@config
class SharedTables:
    """The tables of tokens and of positions (ES in arXiv 2111.09543)."""

    type: Literal["tables"] = "tables"


@config
class DisentangledTables:
    """The same, but that the discriminator's loss does not reach them: it learns a difference (GDES in arXiv 2111.09543)."""

    type: Literal["disentangled_tables"] = "disentangled_tables"


@config
class NothingShared:
    """Two networks of their own (NES in arXiv 2111.09543)."""

    type: Literal["nothing"] = "nothing"


Sharing = Annotated[WholeEmbedding | SharedTables | DisentangledTables | NothingShared, Field(discriminator="type")]

_PARTS = {"embedding": ("tokens", "positions", "types", "norm")}
_TABLES = ("tokens", "positions")


def share(sharing: Sharing, generator: Encoder, discriminator: Encoder) -> None:
    """Make parts of two embeddings the same modules, in place.

    Raises:
        InputError: their shapes differ; the message names the part.
    """
    if isinstance(sharing, NothingShared):
        return
    ours, theirs = generator.embedding, discriminator.embedding
    for name in _PARTS.get(sharing.type, _TABLES):
        one, other = getattr(ours, name), getattr(theirs, name)
        _check_same(name, one, other)
        if isinstance(sharing, DisentangledTables):
            if one is not None:
                setattr(theirs, name, ShiftedEmbedding(one))
        else:
            setattr(ours, name, other)


def folded(encoder: Encoder) -> Encoder:
    """An encoder without differences: on the same modules, but with tables of its own in place of what was shifted.

    `refold` brings them up to date.
    """
    with torch.device("meta"):
        plain = Encoder(encoder.config)
    for name, module in encoder.named_children():
        if name != "embedding":
            setattr(plain, name, module)
    for name, module in encoder.embedding.named_children():
        if not isinstance(module, ShiftedEmbedding):
            setattr(plain.embedding, name, module)
            continue
        table, filler = module.base.weight, module.base.padding_idx
        rows, size = table.shape
        setattr(plain.embedding, name, nn.Embedding(rows, size, filler, dtype=table.dtype, device=table.device))
    refold(encoder, plain)
    return plain.train(encoder.training)


def refold(encoder: Encoder, plain: Encoder) -> None:
    """Write what base and difference make together into the tables of `folded`'s encoder."""
    with torch.no_grad():
        for module, table in _shifted(encoder, plain):
            table.weight.copy_(module.weight)


def unfold(encoder: Encoder, plain: Encoder, based: bool = False) -> None:
    """The other way round: the tables become the base, and the difference nothing.

    `based`: the base stays as it is, and the difference is what the tables have beside it.
    """
    with torch.no_grad():
        for module, table in _shifted(encoder, plain):
            if not based:
                module.base.weight.copy_(table.weight)
            module.delta.copy_(table.weight - module.base.weight)


def _shifted(encoder: Encoder, plain: Encoder) -> list[tuple[ShiftedEmbedding, nn.Embedding]]:
    return [
        (module, cast("nn.Embedding", getattr(plain.embedding, name)))
        for name, module in encoder.embedding.named_children()
        if isinstance(module, ShiftedEmbedding)
    ]


def _check_same(name: str, one: nn.Module | None, other: nn.Module | None) -> None:
    shapes = [
        {key: tuple(tensor.shape) for key, tensor in (module.state_dict() if module is not None else {}).items()}
        for module in (one, other)
    ]
    if shapes[0] != shapes[1] or type(one) is not type(other):
        parts = " and ".join(str(shape.get("weight", "absent")) for shape in shapes)
        raise InputError(
            f"sharing: the embedding's {name} of generator and discriminator are {parts}; they have to be alike to be one: "
            'give the generator an embedding of the same kind and size, or set sharing.type to "nothing"'
        )
