"""A RoBERTa made longer: the published conversion (arXiv 2004.05150, section 5), and what follows its training."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bothways.errors import InputError
from bothways.families.family import Spec
from bothways.families.longformer import FAMILY, global_first, windowed
from bothways.layers.attention import SelfAttention
from bothways.layers.position import Learned
from bothways.model.extension import move_limits
from bothways.model.folder import check_expressed
from bothways.model.model import Model


def from_roberta(model: Model, max_length: int = 4096, window: int = 512) -> Model:
    """A Longformer that begins as this RoBERTa (or XLM-R); the weights are copies.

    The rows of the position table that come before the first token's stay; the others are repeated up to `max_length`.
    Global tokens begin with the projections of local ones. `window` is the full width: window / 2 to each side.
    Texts no longer than that side, with no global tokens, get the RoBERTa's hidden states, bit for bit.

    Raises:
        InputError: an encoder that is no RoBERTa's, a `max_length` below its own, an odd window.
    """
    encoder = model.spec.encoder
    if max_length < encoder.max_length:
        raise InputError(f"from_roberta: max_length={max_length} is less than the {encoder.max_length} tokens it reads already")
    longer = replace(windowed(encoder, window, "from_roberta: window"), max_length=max_length)
    spec = replace(model.spec, encoder=longer, heads=global_first(model.spec.heads, encoder.embedding.dropout))
    made = _empty(model, spec)
    check_expressed(made)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    positions = "encoder.embedding.positions.weight"
    state[positions] = _tiled(state[positions], encoder.embedding.position, max_length)
    for name in (name for name in tuple(state) if ".mixer.qkv." in name):
        query, key, value = state[name].chunk(3)
        state[name.replace("qkv", "everywhere.query")] = query.clone()
        state[name.replace("qkv", "everywhere.key_value")] = torch.cat((key, value))
    made.load_state_dict(state, assign=True)
    return made.requires_grad_(True)


@torch.no_grad()
def copy_local_to_global(model: Model) -> None:
    """Let global tokens begin with the projections of local ones, in every layer and in place.

    To be done once more after masked-language modelling: it has no global tokens, and trains the local ones alone.

    Raises:
        InputError: a layer without global tokens.
    """
    for i, layer in enumerate(model.encoder.stack):
        mixer = layer.mixer
        if not isinstance(mixer, SelfAttention) or mixer.everywhere is None:
            raise InputError(f"copy_local_to_global: layer {i} of {model.name or 'this model'} has no global tokens")
        query, key_value = mixer.everywhere.query, mixer.everywhere.key_value
        size = query.weight.shape[0]
        query.weight.copy_(mixer.qkv.weight[:size])
        key_value.weight.copy_(mixer.qkv.weight[size:])
        if mixer.qkv.bias is not None:
            query.bias.copy_(mixer.qkv.bias[:size])
            key_value.bias.copy_(mixer.qkv.bias[size:])


def _empty(model: Model, spec: Spec) -> Model:
    """The model without weights; what limited its texts to fewer tokens is lifted."""
    with torch.device("meta"):
        made = Model(FAMILY, spec, model.tokenizer, model.settings, model.name)
    move_limits(made, spec.encoder.max_length)
    return made


def _tiled(table: Tensor, position: object, max_length: int) -> Tensor:
    """The rows before the first token's as they are, then all others over and over."""
    assert isinstance(position, Learned)  # else the family could not have expressed it
    before, rows = table.split((position.offset, table.shape[0] - position.offset))
    return torch.cat((before, rows.repeat(-(-max_length // rows.shape[0]), 1)[:max_length]))
