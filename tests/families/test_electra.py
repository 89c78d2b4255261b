"""What is peculiar to ELECTRA: a discriminator, its head, and the generator made for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import SIZE, VOCAB, randomise

from bothways.encoder.encoder import Encoder
from bothways.encoder.generator import narrowed
from bothways.errors import InputError
from bothways.families import electra
from bothways.families.convert import Reader
from bothways.families.family import Heads, Spec
from bothways.layers.replaced_token import ReplacedToken, ReplacedTokenHead
from bothways.model.folder import load
from bothways.model.model import Model
from bothways.ragged import Batch, Ragged

# as published, for the discriminators and generators of three sizes: embedding, hidden, layers, heads, intermediate
PUBLISHED = {
    "small": (128, 256, 12, 4, 1024),
    "base": (768, 768, 12, 12, 3072),
    "large": (1024, 1024, 24, 16, 4096),
    "small-generator": (128, 256, 12, 4, 1024),
    "base-generator": (768, 256, 12, 4, 1024),
    "large-generator": (1024, 256, 24, 4, 1024),
}
_KEYS = ("embedding_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_COMMON: dict[str, Any] = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "initializer_range": 0.02,
    "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "electra", "pad_token_id": 0,
    "position_embedding_type": "absolute", "summary_activation": "gelu", "summary_last_dropout": 0.1, "summary_type": "first",
    "summary_use_proj": True, "type_vocab_size": 2, "vocab_size": 30522,
}  # fmt: skip


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_published_configs_are_the_published_sizes(size: str) -> None:
    reader = Reader({**_COMMON, **dict(zip(_KEYS, PUBLISHED[size], strict=True))}, size)
    assert electra.FAMILY.read(reader, ()).encoder == electra.SIZES[size]
    assert not reader.unknown(electra.FAMILY.inert)


def test_what_the_config_leaves_out_is_small() -> None:
    assert electra.FAMILY.read(Reader({"vocab_size": 30522}, "config"), ()).encoder == electra.SIZES["small"]


def test_a_generator_is_a_quarter_as_wide_on_the_same_tables() -> None:
    small, full = narrowed(electra.SIZES["small"], 1 / 4), electra.SIZES["small"]
    assert (small.hidden_size, small.num_layers, small.layer(0).mixer.heads, small.layer(0).mlp.size) == (64, 12, 1, 256)
    with torch.device("meta"):
        one, other = Encoder(small).embedding, Encoder(full).embedding
    assert one.project.weight.shape == (64, 128)
    tables = ("tokens.weight", "positions.weight", "types.weight", "norm.weight", "norm.bias")
    assert all(one.get_parameter(name).shape == other.get_parameter(name).shape for name in tables)
    # a generator as wide as its tables needs no map
    assert narrowed(electra.electra(embedding_size=64), 1 / 4).embedding.size is None


@pytest.mark.parametrize("fraction", [0.0, 1e-3, -1.0])
def test_a_generator_without_width(fraction: float) -> None:
    with pytest.raises(InputError, match=f"width={fraction} of 256 features makes .*: not 1 equal heads"):
        narrowed(electra.SIZES["small"], fraction)


def test_a_generator_whose_heads_do_not_divide_it() -> None:
    with pytest.raises(InputError, match="1024 features makes 200: not 3 equal heads"):
        narrowed(electra.SIZES["large"], 200 / 1024)


def test_the_map_is_there_only_between_different_widths() -> None:
    with torch.device("meta"):
        maps = {size: isinstance(Encoder(config).embedding.project, torch.nn.Linear) for size, config in electra.SIZES.items()}
    assert maps == {size: size == "small" or "generator" in size for size in PUBLISHED}


def test_the_head_has_a_logit_for_each_token_and_no_norm() -> None:
    head = ReplacedToken(ReplacedTokenHead(), SIZE)
    randomise(head)
    x = torch.randn(7, SIZE)
    w = dict(head.named_parameters())
    assert {name: tuple(p.shape) for name, p in w.items()} == {
        "transform.dense.weight": (SIZE, SIZE), "transform.dense.bias": (SIZE,), "out.weight": (1, SIZE), "out.bias": (1,),
    }  # fmt: skip
    dense = torch.nn.functional.gelu(x @ w["transform.dense.weight"].T + w["transform.dense.bias"])
    torch.testing.assert_close(head(x, Ragged.of([4, 3])), dense @ w["out.weight"][0] + w["out.bias"])


def test_generator_and_discriminator_are_told_apart_by_their_weights(tmp_path: Path) -> None:
    tiny = electra.electra(VOCAB, embedding_size=9, hidden_size=SIZE, num_layers=2, heads=3, intermediate_size=20)
    model = Model.create(electra.FAMILY, Spec(encoder=tiny, heads=Heads(replaced_token=ReplacedTokenHead())))
    folder = model.save(tmp_path / "discriminator")
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["ElectraForPreTraining"]
    again = load(folder, strict=True)
    assert set(again.heads) == {"replaced_token"}
    batch = Batch.of([[5, 6, 7], [8]])
    with torch.no_grad():
        logits = again.heads["replaced_token"](again.encoder(batch).hidden, batch.ragged)
        torch.testing.assert_close(logits, model.heads["replaced_token"](model.encoder(batch).hidden, batch.ragged))
    assert logits.shape == (4,)
