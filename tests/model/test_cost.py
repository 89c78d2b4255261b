"""What a model costs, measured."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.builders import CONFIGS, random_batch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.families import FAMILIES
from bothways.families.bert import bert, masked_lm_head
from bothways.families.deberta_v2 import CONVOLUTION, deberta_v2
from bothways.families.deberta_v2 import FAMILY as DEBERTA
from bothways.families.family import Heads, Spec
from bothways.layers.heads import ClassifierHead, Transform
from bothways.layers.replaced_token import ReplacedTokenHead
from bothways.model.cost import flops_per_token, forward_bytes, head_flops, parameters_by_part
from bothways.model.model import Model


class Peak(TorchDispatchMode):
    """The most bytes of results that live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage.nbytes() and storage._cdata not in self.seen:
                self.seen[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.seen.pop, storage._cdata, None)
        self.most = max(self.most, sum(self.seen.values()))
        return out


def model(name: str, inner: int = 96) -> Model:
    config = CONFIGS[name]
    layers = tuple(replace(layer, mlp=replace(layer.mlp, size=inner)) for layer in config.layers)
    family = next(one for one in FAMILIES if one.name == name)
    return Model(family, Spec(replace(config, layers=layers)))


@pytest.mark.parametrize("inner", [24, 96])
@pytest.mark.parametrize("name", ["bert", "modernbert", "neobert"])
def test_the_estimate_of_a_forward_pass(name: str, inner: int) -> None:
    one, batch = model(name, inner), random_batch([100] * 4)
    with torch.inference_mode(), Peak() as peak:
        one.encoder(batch)
    assert forward_bytes(one, 400) == pytest.approx(peak.most, rel=0.3)


def test_parts_add_up() -> None:
    encoder = bert(100, 24, 3, 3, 20, 16)
    tail = ClassifierHead(labels=2, transform=Transform(activation="tanh"))
    family = next(one for one in FAMILIES if one.name == "bert")
    one = Model(family, Spec(encoder, Heads(masked_lm=masked_lm_head(encoder), next_sentence=tail, pooler=Transform())))
    parts = parameters_by_part(one)
    assert sum(parts.values()) == one.parameters_count
    assert parts["mlp"] == 3 * (2 * 24 * 20 + 20 + 24)
    for length, spent in flops_per_token(one, [4, 16]).items():
        assert spent["mlp"] == 3 * 2 * 2 * 24 * 20
        assert spent["attention"] == 3 * (2 * 4 * 24 * 24 + 4 * length * 24)
    hidden = torch.zeros(1, 24)
    with FlopCounterMode(display=False) as counter:
        one.masked_lm(hidden)
    heads = head_flops(one, 16)
    assert heads["masked_lm"] == (counter.get_total_flops(), "a predicted token")
    assert heads["next_sentence"] == (2 * (24 * 24 + 24 * 2), "a text")
    assert heads["pooler"] == (2 * 24 * 24, "a text")


def test_what_heads_over_every_token_cost() -> None:
    encoder = deberta_v2(31, 24, 2, 3, 20, 40)
    heads = Heads(
        replaced_token=ReplacedTokenHead(),
        classifier=ClassifierHead(labels=2, pooling="late"),
        mask_decoder=MaskDecoderHead(passes=2),
    )
    one = Model(DEBERTA, Spec(encoder, heads)).requires_grad_(False)
    costs = head_flops(one, 7)
    assert costs["replaced_token"] == (2 * (24 * 24 + 24), "a token")
    assert costs["classifier"] == (2 * 24 * 2, "a token")
    batch = random_batch([7])
    encoded = one.encoder(replace(batch, ids=batch.ids % 31), keep=True)
    decoder = one.heads["mask_decoder"]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        decoder(one.encoder, encoded)
    assert costs["mask_decoder"] == (counter.get_total_flops() / 7, "a token in texts of 7")


def test_a_convolution_is_a_part_of_its_own() -> None:
    encoder = deberta_v2(31, 24, 2, 3, 20, 40, convolution=CONVOLUTION)
    parts = parameters_by_part(Model(DEBERTA, Spec(encoder)))
    assert parts["convolution"] == 3 * 24 * 24 + 24 + 2 * 24
    assert parts["norms"] == 2 * 2 * 2 * 24
