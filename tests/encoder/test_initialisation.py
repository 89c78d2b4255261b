"""Fresh weights: the published distributions, and a function of the seed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from bothways.encoder.config import EncoderConfig, TruncatedNormal
from bothways.encoder.encoder import Encoder
from bothways.encoder.initialisation import initialise
from bothways.families.bert import bert
from bothways.families.modernbert import modernbert
from bothways.families.neobert import neobert
from bothways.ragged import Batch

_SIZES: dict[str, Any] = {"vocab_size": 2000, "hidden_size": 96, "num_layers": 4, "heads": 4}
CONFIGS = {"bert": bert(**_SIZES), "modernbert": modernbert(**_SIZES, intermediate_size=192), "neobert": neobert(**_SIZES)}


def fresh(config: EncoderConfig, seed: int) -> dict[str, torch.Tensor]:
    encoder = Encoder(config)
    initialise(encoder, config.initialisation, config.num_layers, seed)
    return encoder.state_dict()


# N(0, 0.02²) cut at two standard deviations has 0.8796 of that deviation
CUT = 0.02 * 0.8796


@pytest.mark.parametrize(
    ("name", "weight", "deviation", "bound"),
    [
        ("bert", "embedding.tokens.weight", CUT, 0.04),
        ("bert", "layers.2.mlp.down.weight", CUT, 0.04),
        ("modernbert", "layers.2.mixer.qkv.weight", CUT, 0.04),
        ("modernbert", "layers.2.mixer.out.weight", CUT / math.sqrt(8), 0.04 / math.sqrt(8)),
        ("modernbert", "layers.2.mlp.down.weight", CUT / math.sqrt(8), 0.04 / math.sqrt(8)),
        ("neobert", "embedding.tokens.weight", 0.02 / math.sqrt(3), 0.02),
        ("neobert", "layers.3.mlp.up.weight", 0.02 / math.sqrt(3), 0.02),
    ],
)
def test_distributions(name: str, weight: str, deviation: float, bound: float) -> None:
    drawn = fresh(CONFIGS[name], 0)[weight]
    assert drawn.abs().max() <= bound
    assert drawn.abs().max() > 0.98 * bound
    assert drawn.std().item() == pytest.approx(deviation, rel=0.02)
    assert abs(drawn.mean().item()) < 5 * deviation / math.sqrt(drawn.numel())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_norms_are_1_and_biases_0(config: EncoderConfig) -> None:
    for name, tensor in fresh(config, 0).items():
        if name.endswith("bias"):
            assert not tensor.any(), name
        elif "norm" in name:
            assert (tensor == 1).all(), name
        else:
            assert tensor.std() > 0, name


def test_a_function_of_the_seed() -> None:
    one, again, other = fresh(CONFIGS["bert"], 1), fresh(CONFIGS["bert"], 1), fresh(CONFIGS["bert"], 2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["embedding.tokens.weight"], other["embedding.tokens.weight"])


def test_layers_can_begin_as_the_identity() -> None:
    """What writes into the residual stream is zero, and nothing else; an encoder then returns its embeddings, normalised."""
    config = replace(modernbert(**_SIZES, intermediate_size=192), initialisation=TruncatedNormal(zero_residual=True))
    encoder = Encoder(config).eval()
    initialise(encoder, config.initialisation, config.num_layers, 0)
    zero = {name for name, weight in encoder.named_parameters() if name.endswith("weight") and not weight.any()}
    assert zero == {f"layers.{i}.{part}.weight" for i in range(4) for part in ("mixer.out", "mlp.down")}
    encoded = encoder(Batch.of([[5, 6, 7]]), keep=True)
    assert all(torch.equal(layer, encoded.layers[0]) for layer in encoded.layers)
