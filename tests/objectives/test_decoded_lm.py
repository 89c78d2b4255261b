"""Decoders of pretraining alone: what their layers see, when they are nothing, and what is left of them in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.builders import CONFIGS, SIZE, VOCAB, gap, random_ids, randomise, tiny_encoder
from torch import Tensor

from bothways.data.masking import Masking, Vocabulary
from bothways.data.sample import Sample
from bothways.encoder.decoder_layers import DecoderLayers
from bothways.encoder.enhanced_mask_decoder import EnhancedMaskDecoder, MaskDecoderHead
from bothways.errors import InputError
from bothways.layers.heads import MaskedLm, MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.objectives.decoded_lm import DecodedInputs, DecodedLanguageModeling, GradualUnmasking
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.ragged import Ragged, Visible
from bothways.training.precision import recompute

MASK = 4
VOCABULARY = Vocabulary(VOCAB, MASK, frozenset(range(5)))
HALF = Masking(rate=0.5)
TRUNKS = [name for name in CONFIGS if name != "m2_bert"]  # whose first layer has no attention


def objective(name: str, config: GradualUnmasking | MaskDecoderHead, layers: int = 2) -> DecodedLanguageModeling:
    encoder = tiny_encoder(name, layers=layers)
    head = MaskedLm(MaskedLmHead(transform=Transform(norm=LayerNorm())), SIZE, VOCAB, CONFIGS[name].embedding.size)
    randomise(head, seed=1)
    task = DecodedLanguageModeling(encoder, head, HALF, VOCABULARY, config)
    randomise(task.decoder, seed=2)
    return task.eval()


def samples(lengths: list[int]) -> list[Sample]:
    return [Sample(id=100 + i, sequences=(ids,)) for i, ids in enumerate(random_ids(lengths))]


def test_visible_tokens() -> None:
    """By hand: rows, lengths, and the positions they have in the batch."""
    seen = Visible.of(np.array([True, False, True, False, False, True, True]), Ragged.of([3, 0, 2, 2]))
    assert seen.rows.tolist() == [0, 2, 5, 6]
    assert seen.ragged.lengths == (2, 0, 0, 2)
    assert seen.ragged.positions.tolist() == [0, 2, 0, 1]
    assert seen.ragged.segments.tolist() == [0, 0, 3, 3]


@pytest.mark.parametrize("name", TRUNKS)
def test_without_layers_it_is_plain_masked_language_modelling(name: str) -> None:
    """Reference check 16.(2): no decoder blocks and no mixing give BERT's loss, and every gradient of it; in training too."""
    task = objective(name, GradualUnmasking(layers=0, mixing=0.0)).train()
    plain = MaskedLanguageModeling(task.encoder, task.head, HALF, VOCABULARY).train()
    inputs = task.prepare(samples([30, 7, 12]), 0, 0)
    losses = []
    for some, own in ((task, inputs), (plain, inputs.masked)):
        torch.manual_seed(0)  # the same dropout
        losses.append(some(own)["loss"])  # type: ignore[arg-type]
    one, other = losses
    assert torch.equal(one, other)
    assert torch.equal(inputs.masked.batch.ids, plain.prepare(samples([30, 7, 12]), 0, 0).batch.ids)
    found, expected = (torch.autograd.grad(loss, list(plain.parameters()), allow_unused=True) for loss in (one, other))
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def reach(layers: Callable[[Tensor], Tensor], tokens: int) -> Tensor:
    """Which tokens' vectors reach other tokens, bool [tokens, tokens]: by the gradient."""
    torch.manual_seed(0)
    jacobian = torch.autograd.functional.jacobian(lambda x: layers(x).sum(dim=1), torch.randn(tokens, SIZE))
    return jacobian.abs().sum(dim=2) > 0


def attended(task: DecodedLanguageModeling, inputs: DecodedInputs, layer: int) -> Tensor:
    """`reach` through one layer of the decoder."""
    decoder = task.decoder
    assert isinstance(decoder, DecoderLayers)
    ragged = inputs.batch.ragged
    context = replace(task.encoder.context(ragged), visible=inputs.visible[layer])
    return reach(lambda x: decoder.layers[layer](x, context), ragged.tokens)


def looked_at(name: str, ragged: Ragged, seen: Tensor) -> Tensor:
    """By hand: what of its text a token looks at where `seen` is all there is, and itself by the residual."""
    tokens, segments = torch.arange(ragged.tokens), ragged.segments
    expected = (segments[:, None] == segments[None, :]) & seen[None, :]
    if CONFIGS[name].attentions[0].causal:
        expected &= tokens[:, None] >= tokens[None, :]
    return expected | torch.eye(ragged.tokens, dtype=torch.bool)


kinds = pytest.mark.parametrize("name", ["bert", "modernbert", "deberta", "mosaicbert", "albert", "llama"])


@kinds
def test_what_each_layer_sees(name: str) -> None:
    """Reference check 16.(3): the first layer sees the tokens that show no mask and a part of the others, the second all."""
    task = objective(name, GradualUnmasking(layers=3, readmitted=(0.0, 0.4, 1.0)))
    inputs = task.prepare(samples([14, 11]), 0, 0)
    hidden = (inputs.batch.ids == MASK).numpy()
    assert 4 < hidden.sum() < 20
    seen = [np.ones(25, bool) if one is None else np.isin(np.arange(25), one.rows.numpy()) for one in inputs.visible]
    assert (seen[0] == ~hidden).all()
    assert (seen[1] >= seen[0]).all()
    assert 0 < (seen[1] & hidden).sum() < hidden.sum()
    assert inputs.visible[2] is None
    for layer, mask in enumerate(seen):
        expected = looked_at(name, inputs.batch.ragged, torch.from_numpy(mask))
        assert torch.equal(attended(task, inputs, layer), expected), layer


@kinds
def test_hidden_tokens_reach_only_themselves(name: str) -> None:
    """Reference check 16.(3), through the decoder as it is called: of one layer that readmits nothing."""
    task = objective(name, GradualUnmasking(layers=1, readmitted=(0.0,)))
    inputs = task.prepare(samples([14, 11]), 0, 0)
    ragged, shown = inputs.batch.ragged, inputs.batch.ids != MASK
    assert 4 < shown.sum() < 21
    found = reach(lambda x: task.decoder(task.encoder, x, ragged, inputs.visible), ragged.tokens)
    assert torch.equal(found, looked_at(name, ragged, shown))


@pytest.mark.parametrize("name", TRUNKS)
def test_the_decoder_is_its_layers_each_with_what_it_sees(name: str) -> None:
    """Reference check 16.(3): nothing hidden in the first, all in the second; so in the loss, which is another without."""
    task = objective(name, GradualUnmasking(layers=2, readmitted=(0.0, 1.0)))
    inputs, decoder = task.prepare(samples([14, 11]), 0, 0), task.decoder
    assert isinstance(decoder, DecoderLayers)
    encoded, ragged, (first, second) = task.encode(inputs), inputs.batch.ragged, decoder.layers
    context, (seen, everything) = task.encoder.context(ragged), inputs.visible
    assert seen is not None
    assert everything is None
    by_hand = decoder.final_norm(second(first(encoded.hidden, replace(context, visible=seen)), context))
    assert torch.equal(decoder(task.encoder, encoded.hidden, ragged, inputs.visible), by_hand)
    assert gap(decoder(task.encoder, encoded.hidden, ragged), by_hand) > 1e-2
    assert torch.equal(task(inputs)["loss"], task.masked.read(replace(encoded, hidden=by_hand), inputs.masked)["loss"])


def test_unmasking_as_published() -> None:
    """A part of the mask tokens in the first layer, the rest in the second (arXiv 2401.15861); how large a part is our choice."""
    assert GradualUnmasking().readmitted == (0.5, 1.0)
    assert GradualUnmasking().layers >= 2


def test_a_window_and_hidden_tokens_are_both_kept_to() -> None:
    """A decoder of windowed layers (Longformer's): positions survive where tokens between are hidden."""
    task = objective("longformer", GradualUnmasking(layers=1, readmitted=(0.0,)))
    inputs = task.prepare(samples([40]), 0, 0)
    shown = inputs.batch.ids != MASK
    near = (torch.arange(40)[:, None] - torch.arange(40)[None, :]).abs() <= 4
    assert torch.equal(attended(task, inputs, 0), (near & shown[None, :]) | torch.eye(40, dtype=torch.bool))


def test_what_is_readmitted_is_as_much_as_asked_and_pure() -> None:
    task = objective("bert", GradualUnmasking(readmitted=(0.3, 1.0)))
    given = samples([200] * 40)
    inputs = task.prepare(given, 0, 0)
    hidden = (inputs.batch.ids == MASK).sum().item()
    assert inputs.visible[0] is not None
    back = len(inputs.visible[0].rows) - (inputs.tokens - hidden)
    assert abs(back - 0.3 * hidden) < 3.29 * np.sqrt(hidden * 0.21)
    again = task.prepare(given[::-1], 0, 0)
    assert again.visible[0] is not None
    flipped = inputs.visible[0].ragged.lengths[::-1]
    assert again.visible[0].ragged.lengths == flipped
    other = task.prepare(given, 0, 1)
    assert other.visible[0] is not None
    assert not torch.equal(other.visible[0].rows, inputs.visible[0].rows)


@pytest.mark.parametrize("name", TRUNKS)
def test_packed_is_alone(name: str) -> None:
    task, given = objective(name, GradualUnmasking()), samples([9, 30, 1, 17])
    packed, alone = task.prepare(given, 0, 0), [task.prepare([one], 0, 0) for one in given]
    for key, total in task(packed).items():
        assert gap(total.float(), torch.stack([task(one)[key].float() for one in alone]).sum()) <= 1e-5


def test_mixing_is_of_training_alone() -> None:
    """Some rows are predicted from the encoder's output then; of 1, all are, and the decoder learns nothing."""
    task = objective("bert", GradualUnmasking(mixing=1.0))
    plain = MaskedLanguageModeling(task.encoder, task.head, HALF, VOCABULARY)
    inputs = task.prepare(samples([30, 20]), 0, 0)
    assert not torch.equal(task(inputs)["loss"], plain(inputs.masked)["loss"])
    task.train()
    loss = task(inputs)["loss"]
    assert torch.equal(loss, plain(inputs.masked)["loss"])
    assert not any(
        one is not None and one.any() for one in torch.autograd.grad(loss, list(task.decoder.parameters()), allow_unused=True)
    )
    some = objective("bert", GradualUnmasking(mixing=0.3)).prepare(samples([200] * 30), 0, 0)
    assert abs(some.direct.sum().item() - 0.3 * len(some.direct)) < 3.29 * np.sqrt(len(some.direct) * 0.21)


@pytest.mark.parametrize("name", ["bert", "mosaicbert", "deberta", "deberta-v2", "longformer", "mpnet"])
def test_an_enhanced_mask_decoder_on_post_norm_trunks(name: str) -> None:
    """Absolute positions enter at the end alone: permuting their table changes the loss, and not what the encoder gives."""
    task = objective(name, MaskDecoderHead())
    assert isinstance(task.decoder, EnhancedMaskDecoder)
    inputs = task.prepare(samples([30, 7]), 0, 0)
    before, encoded = task(inputs)["loss"], task.encode(inputs).hidden
    with torch.no_grad():
        task.decoder.positions.weight.copy_(task.decoder.positions.weight.flip(0))
    assert not torch.equal(task(inputs)["loss"], before)
    assert torch.equal(task.encode(inputs).hidden, encoded)


@pytest.mark.parametrize("name", ["modernbert", "neobert", "llama", "m2_bert"])
def test_an_enhanced_mask_decoder_refuses_other_trunks(name: str) -> None:
    with pytest.raises(InputError, match="an enhanced mask decoder needs"):
        EnhancedMaskDecoder(MaskDecoderHead(), CONFIGS[name])


def test_refusals() -> None:
    with pytest.raises(InputError, match="needs attention in the first of them"):
        objective("m2_bert", GradualUnmasking())
    with pytest.raises(ValueError, match="falls"):
        GradualUnmasking(readmitted=(0.5, 0.2))


def test_flops_count_the_decoder() -> None:
    task = objective("bert", GradualUnmasking(layers=2))
    inputs = task.prepare(samples([30, 7]), 0, 0)
    encoder = task.encoder.flops_by_part(inputs.batch.ragged)
    assert task.flops(inputs) == task.masked.flops(inputs.masked) + encoder["attention"] + encoder["mlp"]


@pytest.mark.parametrize("config", [GradualUnmasking(layers=4), MaskDecoderHead(passes=4)])
def test_a_decoder_too_is_computed_again_on_the_way_back(config: GradualUnmasking | MaskDecoderHead) -> None:
    """Less is kept of it than of its layers; with dropout, which draws the same again, every gradient is the same to the bit."""
    task, kept, gradients = objective("bert", config).train(), {}, {}
    inputs = task.prepare(samples([30, 7, 12]), 0, 0)
    encoded = task.encode(inputs)
    for wanted in (False, True):
        recompute(task, wanted)
        saved: list[int] = []
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x):
            loss = task.read(encoded, inputs)["loss"]
        task.zero_grad()
        loss.backward(retain_graph=True)
        kept[wanted] = sum(saved)
        gradients[wanted] = [p.grad.clone() for p in task.parameters() if p.grad is not None]
    assert kept[True] < 0.6 * kept[False]
    assert len(gradients[True]) == len(gradients[False]) > 0
    assert all(map(torch.equal, gradients[True], gradients[False]))
