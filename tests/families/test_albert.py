"""What is peculiar to ALBERT: shared layers, and an embedding of another width."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.builders import HEADS, INNER, LONGEST, SIZE, VOCAB, gap, random_batch, random_ids, randomise

from bothways.encoder.config import EncoderConfig, Groups
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.families import albert
from bothways.families.convert import Reader
from bothways.families.family import Spec
from bothways.model.folder import load
from bothways.model.model import Model
from bothways.ragged import Batch

_SIZES: dict[str, Any] = {"vocab_size": VOCAB, "embedding_size": 9, "hidden_size": SIZE, "heads": HEADS, "max_length": LONGEST}
SHARING = ((1, 1), (1, 2), (2, 1), (2, 2), (3, 2))


def tiny(num_layers: int = 6, groups: int = 1, inner: int = 1) -> EncoderConfig:
    return albert.albert(**_SIZES, intermediate_size=INNER, num_layers=num_layers, groups=groups, inner=inner)


def encoder(config: EncoderConfig) -> Encoder:
    model = Encoder(config)
    randomise(model)
    return model.eval()


# albert-base-v2 as published: with keys of the first version
PUBLISHED = {
    "architectures": ["AlbertForMaskedLM"], "attention_probs_dropout_prob": 0, "bos_token_id": 2, "classifier_dropout_prob": 0.1,
    "down_scale_factor": 1, "embedding_size": 128, "eos_token_id": 3, "gap_size": 0, "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0, "hidden_size": 768, "initializer_range": 0.02, "inner_group_num": 1, "intermediate_size": 3072,
    "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "albert", "net_structure_type": 0,
    "num_attention_heads": 12, "num_hidden_groups": 1, "num_hidden_layers": 12, "num_memory_blocks": 0, "pad_token_id": 0,
    "type_vocab_size": 2, "vocab_size": 30000,
}  # fmt: skip


def test_the_published_config_is_the_published_size() -> None:
    reader = Reader(PUBLISHED, "albert-base-v2")
    assert albert.FAMILY.read(reader, ()).encoder == albert.SIZES["base-v2"]
    assert not reader.unknown(albert.FAMILY.inert)


def test_what_the_config_leaves_out_is_xxlarge() -> None:
    """As in `transformers`."""
    assert albert.FAMILY.read(Reader({"vocab_size": 30000}, "config"), ()).encoder == albert.SIZES["xxlarge-v2"]


@pytest.mark.parametrize(("groups", "inner"), SHARING)
def test_a_shared_gradient_is_the_sum_over_its_uses(groups: int, inner: int) -> None:
    """Against the same layers as copies, one at each depth."""
    config = tiny(num_layers=12, groups=groups, inner=inner)
    shared, unrolled = encoder(config).double(), Encoder(replace(config, shared=None)).double()
    state = shared.state_dict()
    own = {name: tensor for name, tensor in state.items() if not name.startswith("layers.")}
    for depth, module in enumerate(config.depths):
        part = shared.layers[module].state_dict()
        own |= {f"layers.{depth}.{name}": tensor for name, tensor in part.items()}
    unrolled.load_state_dict(own)
    batch = random_batch([9, 3, 40])
    one, other = shared(batch).hidden, unrolled.eval()(batch).hidden
    assert gap(one, other) <= 1e-12
    weight = torch.randn(one.shape, dtype=torch.float64)
    (one * weight).sum().backward()
    (other * weight).sum().backward()
    for module, layer in enumerate(shared.layers):
        uses = [unrolled.layers[depth] for depth, number in enumerate(config.depths) if number == module]
        assert len(uses) > 1
        for name, parameter in layer.named_parameters():
            gradients = [use.get_parameter(name).grad for use in uses]
            assert all(gradient is not None for gradient in gradients)
            assert parameter.grad is not None
            # a key's bias has no gradient but rounding: softmax ignores it
            assert (parameter.grad - sum(gradients)).abs().max() <= 1e-9 * max(1.0, parameter.grad.abs().max().item())  # type: ignore[arg-type]


def test_the_number_of_parameters_does_not_depend_on_the_depth() -> None:
    counts = {sum(p.numel() for p in Encoder(tiny(num_layers=n)).parameters()) for n in (1, 2, 12)}
    assert len(counts) == 1
    by_group = [sum(p.numel() for p in Encoder(tiny(groups=n)).parameters()) for n in (1, 2, 3)]
    assert by_group[2] - by_group[1] == by_group[1] - by_group[0] > 0


def test_a_group_is_a_stretch_of_the_depth() -> None:
    assert tiny(num_layers=12, groups=3).depths == (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2)
    assert tiny(num_layers=5, groups=2).depths == (0, 0, 0, 1, 1)
    assert tiny(num_layers=8, groups=2, inner=2).depths == (0, 1, 0, 1, 2, 3, 2, 3)


def test_layers_stay_one_module(tmp_path: Path) -> None:
    """In a copy, after a move, and after saving and loading; so a step cannot drive them apart."""
    model = Model.create(albert.FAMILY, Spec(encoder=tiny(groups=2, inner=1)))
    saved = load(model.save(tmp_path / "saved"))
    for one in (model, copy.deepcopy(model), model.to(torch.float64), saved):
        stack = one.encoder.stack
        assert [stack.index(layer) for layer in stack] == [0, 0, 0, 3, 3, 3]
        assert len(list(one.encoder.layers)) == 2


def test_the_embedding_is_normalised_then_widened_once() -> None:
    model = encoder(tiny())
    part, (ids,) = model.embedding, random_ids([7])
    assert part.positions is not None
    assert part.types is not None
    summed = part.tokens.weight[torch.from_numpy(ids)] + part.positions.weight[:7] + part.types.weight[0]
    normed = F.layer_norm(summed, (9,), part.norm.weight, part.norm.bias, 1e-12)  # type: ignore[arg-type]
    expected = F.linear(normed, part.project.weight, part.project.bias)  # type: ignore[arg-type]
    torch.testing.assert_close(model.embedding(Batch.of([ids])), expected)
    assert sum(tuple(p.shape) == (SIZE, 9) for p in model.parameters()) == 1


def test_dropout_acts_on_what_attention_adds_alone() -> None:
    layer = albert.SIZES["base-v1"].layer(0)
    assert (layer.mixer.out_dropout, layer.mlp.out_dropout, layer.mlp.dropout, layer.dropout) == (0.1, 0.0, 0.0, 0.0)


def test_groups_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="3 layers are not 4 groups of repeated 1"):
        albert.FAMILY.read(Reader({**PUBLISHED, "num_hidden_layers": 3, "num_hidden_groups": 4}, "c"), ())
    # 14 / (18 / 14) is a little less than 7 in floating point
    with pytest.raises(InputError, match="c: num_hidden_groups=14 of num_hidden_layers=18 is not supported"):
        albert.FAMILY.read(Reader({**PUBLISHED, "num_hidden_layers": 18, "num_hidden_groups": 14}, "c"), ())


def test_sharing_is_written_as_published() -> None:
    config = albert.FAMILY.write(Spec(encoder=tiny(num_layers=12, groups=2, inner=3)))
    assert [config[key] for key in ("num_hidden_layers", "num_hidden_groups", "inner_group_num")] == [4, 2, 3]
    assert albert.SIZES["base-v2"].shared == Groups(groups=1, inner=1)
