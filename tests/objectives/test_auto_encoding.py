"""Auto-encoding: what each side is shown, and that the decoder knows the encoder's text by its vector alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from tests.builders import CONFIGS, SIZE, VOCAB, gap, random_ids, randomise, tiny_encoder

from bothways.data.mask_units import PerBatch
from bothways.data.masking import Masking, Vocabulary
from bothways.data.sample import Sample
from bothways.encoder.encoder import Encoder, EncoderLayer
from bothways.errors import InputError
from bothways.layers.attention import SelfAttention
from bothways.layers.heads import MaskedLm, MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.objectives import auto_encoding
from bothways.objectives.auto_encoding import (
    AutoEncoding,
    Denoising,
    PrepareAutoEncoding,
    RetroMae,
    delete_tokens,
    draw_pairs,
)
from bothways.objectives.masked_lm import MaskedLanguageModeling

MASK = 4
VOCABULARY = Vocabulary(VOCAB, MASK, frozenset(range(5)))
PLAIN = RetroMae(decoding="plain")
EACH = pytest.mark.parametrize("config", [RetroMae(), PLAIN, Denoising()], ids=["enhanced", "plain", "denoising"])
TRUNKS = [name for name in CONFIGS if name not in ("m2_bert", "longformer")]


def objective(name: str, config: RetroMae | Denoising) -> AutoEncoding:
    head = MaskedLm(MaskedLmHead(transform=Transform(norm=LayerNorm())), SIZE, VOCAB, CONFIGS[name].embedding.size)
    task = AutoEncoding(tiny_encoder(name, layers=2), head, VOCABULARY, config)
    randomise(head, seed=1)
    randomise(task.decoder, seed=2)
    return task.eval()


def without_residual() -> Encoder:
    config = CONFIGS["bert"]
    return Encoder(replace(config, layers=tuple(replace(one, mixer_residual=False) for one in config.layers)))


def samples(lengths: list[int], first: int = 100) -> list[Sample]:
    rows = [np.concatenate([[2], ids, [3]]) for ids in random_ids(lengths)]
    return [Sample(id=first + i, sequences=(ids,)) for i, ids in enumerate(rows)]


@EACH
@pytest.mark.parametrize("name", TRUNKS)
def test_packed_is_alone(name: str, config: RetroMae | Denoising) -> None:
    task, given = objective(name, config), samples([9, 30, 1, 17])
    packed, alone = task.prepare(given, 0, 0), [task.prepare([one], 0, 0) for one in given]
    assert task(packed).keys() == task.counts(packed).keys()
    for key, total in task(packed).items():
        assert gap(total.float(), torch.stack([task(one)[key].float() for one in alone]).sum()) <= 1e-5
        assert task.counts(packed)[key] == sum(task.counts(one)[key] for one in alone)


@EACH
def test_the_decoder_knows_the_text_by_its_vector_alone(config: RetroMae | Denoising) -> None:
    """The decoder's loss has a gradient in the encoder's output at first tokens, and at no others."""
    task = objective("bert", config)
    inputs = task.prepare(samples([9, 30]), 0, 0)
    kept: list[Any] = []
    hook = task.encoder.final_norm.register_forward_hook(lambda module, args, output: kept.append(output))
    loss = task(inputs)["decoder"]
    hook.remove()
    (gradient,) = torch.autograd.grad(loss, kept[0])
    starts = inputs.encoder.batch.ragged.starts[:-1].tolist()
    assert gradient.abs().sum(dim=1).nonzero().flatten().tolist() == starts


def test_what_retromae_shows() -> None:
    """Plain decoding: half of the text's tokens are hidden, others than the encoder's; all of them are predicted."""
    task, given = objective("bert", replace(PLAIN, masked=0.5)), samples([200] * 20)
    inputs = task.prepare(given, 0, 0)
    hidden = [(one.batch.ids == MASK).float().mean().item() for one in (inputs.encoder, inputs.decoder)]
    assert hidden[0] == pytest.approx(0.24, abs=0.02)
    assert hidden[1] == pytest.approx(0.5, abs=0.03)
    both = np.isin(inputs.encoder.rows.numpy(), inputs.decoder.rows.numpy()).mean()
    assert both == pytest.approx(0.5, abs=0.06)
    plain = MaskedLanguageModeling(task.encoder, task.head, Masking(rate=0.3), VOCABULARY)
    assert torch.equal(task(inputs)["encoder"], plain(plain.prepare(given, 0, 0))["loss"])
    assert dict(task.weights) == {"decoder": 1.0, "encoder": 1.0}


@pytest.mark.parametrize(
    "masking",
    [
        Masking(rate=0.3, count="rounded", at_most=2),
        Masking(rate=0.3, count=PerBatch(rows=3)),
        Masking(rate=0.3, count="stochastic", specials="like_any_token"),
    ],
)
def test_the_decoders_share_is_its_own(masking: Masking) -> None:
    """Whatever bounds the encoder's masks. The first token, in whose place the vector stands, is not among the predicted."""
    decoder = PrepareAutoEncoding(replace(PLAIN, masked=0.5), VOCABULARY, masking)(samples([100] * 20), 0, 0).decoder
    assert len(decoder.labels) == pytest.approx(1000, rel=0.1)
    assert (decoder.batch.ids[decoder.rows] == MASK).all()
    assert (decoder.batch.ragged.positions[decoder.rows] > 0).all()


def test_what_enhanced_decoding_shows() -> None:
    """Every token but the special ones is predicted, from the first and half of the others, drawn for it alone; never itself."""
    task, given = objective("bert", RetroMae(masked=0.5)), samples([200] * 3)
    inputs = task.prepare(given, 0, 0)
    whole = np.concatenate([one.sequences[0] for one in given])
    assert torch.equal(inputs.decoder.batch.ids, torch.from_numpy(whole))
    assert inputs.decoder.rows.tolist() == np.flatnonzero(whole > 4).tolist()
    assert torch.equal(inputs.decoder.labels, torch.from_numpy(whole[whole > 4]))
    assert inputs.pairs is not None
    masks = inputs.pairs.split(inputs.decoder.batch.ragged)
    for mask in masks:
        assert mask[:, 0].all()
        assert not mask.diagonal()[1:].any()
        others = mask[~torch.eye(202, dtype=torch.bool)].view(202, 201)[1:, 1:]
        assert others.float().mean().item() == pytest.approx(0.5, abs=0.01)
        assert others.float().mean(dim=0).std() < 0.06
        assert len({tuple(row.tolist()) for row in others}) == 201
    assert not torch.equal(masks[0], masks[1])
    again = task.prepare(given[1:], 0, 0)
    assert again.pairs is not None
    assert torch.equal(again.pairs.split(again.decoder.batch.ragged)[0], masks[1])


def test_pairs_of_long_texts_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    given = samples([60, 9])
    whole = draw_pairs(given, 0.5, 3, 1)
    monkeypatch.setattr(auto_encoding, "_ROWS", 7)
    assert torch.equal(draw_pairs(given, 0.5, 3, 1).masks, whole.masks)


def test_enhanced_decoding_by_hand() -> None:
    """Queries are the vector and each place; keys and values the vector, then tokens; the residual is the queries'."""
    task = objective("bert", RetroMae())
    inputs = task.prepare(samples([7]), 0, 0)
    assert inputs.pairs is not None
    encoded = task.encoder(inputs.encoder.batch)
    vector, embedding, layer = encoded.hidden[0], task.encoder.embedding, cast("EncoderLayer", task.decoder.layers[0])
    mixer = cast("SelfAttention", layer.mixer)
    assert embedding.positions is not None
    asking = vector + embedding.positions.weight[:9]
    seen = torch.cat((vector[None], embedding(inputs.decoder.batch)[1:]))
    (q, _, _), (_, k, v) = ((mixer.qkv(x).view(9, 3, mixer.heads, -1).transpose(1, 2)).unbind(2) for x in (asking, seen))
    scores = torch.einsum("qhd,khd->hqk", q, k) / mixer.head_size**0.5
    weights = scores.masked_fill(~inputs.pairs.masks.view(9, 9), -torch.inf).softmax(dim=-1)
    gathered = mixer.out(torch.einsum("hqk,khd->qhd", weights, v).flatten(1))
    x = layer.mixer_norm(asking + gathered)
    assert gap(task._decoded(encoded, inputs), layer.mlp_norm(x + layer.mlp(x))) <= 1e-5


@pytest.mark.parametrize("name", [*TRUNKS, "longformer"])
def test_no_token_is_predicted_from_itself(name: str) -> None:
    """Another token in a place changes what others are decoded to, as far as they see it, and never what that place is.

    However far away they are: a trunk's window is not the decoder's.
    """
    task = objective(name, RetroMae())
    inputs = task.prepare(samples([12]), 0, 0)
    assert inputs.pairs is not None
    encoded = task.encoder(inputs.encoder.batch)
    before, ids = task._decoded(encoded, inputs), inputs.decoder.batch.ids.clone()
    ids[5] = 50 if ids[5] != 50 else 51
    changed = replace(inputs, decoder=replace(inputs.decoder, batch=inputs.decoder.batch.with_ids(ids)))
    moved = (task._decoded(encoded, changed) - before).abs().amax(dim=1) > 0
    behind = torch.arange(14) > 5 if task.encoder.config.attentions[0].causal else torch.tensor(True)
    assert torch.equal(moved, inputs.pairs.masks.view(14, 14)[:, 5] & behind)


def test_what_denoising_shows() -> None:
    """The encoder's text keeps its special tokens, and two fifths of the others in their order; the decoder's is whole."""
    task, given = objective("bert", Denoising(deleted=0.6)), samples([200] * 20)
    inputs = task.prepare(given, 0, 0)
    assert inputs.decoder.batch.ragged.lengths == (202,) * 20
    assert sum(inputs.encoder.batch.ragged.lengths) - 40 == pytest.approx(0.4 * 4000, rel=0.06)
    for sample, fewer in zip(given, delete_tokens(given, 0.6, VOCABULARY, 0, 0), strict=True):
        left = iter(sample.sequences[0].tolist())
        assert all(token in left for token in fewer.sequences[0].tolist())  # a subsequence
        assert (fewer.sequences[0][0], fewer.sequences[0][-1]) == (2, 3)
    assert len(inputs.decoder.rows) == 20 * 201
    assert dict(task.weights) == {"decoder": 1.0}


@pytest.mark.parametrize("share", [0.6, 0.9, 1.0])
def test_of_every_text_a_token_is_left(share: float) -> None:
    """Where all would go one stays, each of them as often."""
    given = [Sample(id=i, sequences=(np.array([2, 50, 51, 52, 3]),)) for i in range(3000)]
    left = [one.sequences[0][1:-1].tolist() for one in delete_tokens(given, share, VOCABULARY, 0, 0)]
    assert all(left)
    alone = np.array([ids[0] for ids in left if len(ids) == 1]) - 50
    # one is left by itself: because two of three went, or all three
    assert len(alone) == pytest.approx(3000 * (3 * share**2 * (1 - share) + share**3), rel=0.1)
    counts = np.bincount(alone, minlength=3)
    assert np.abs(counts - len(alone) / 3).max() < 4 * np.sqrt(len(alone) * 2 / 9)
    again = delete_tokens(given[::-1], share, VOCABULARY, 0, 0)[::-1]
    assert [one.sequences[0][1:-1].tolist() for one in again] == left
    assert [one.sequences[0][1:-1].tolist() for one in delete_tokens(given, share, VOCABULARY, 0, 1)] != left


@pytest.mark.parametrize("ids", [[], [2, 3], [2, 0, 3]])
def test_a_text_of_special_tokens_stays_as_it_is(ids: list[int]) -> None:
    given = Sample(id=7, sequences=(np.array(ids, dtype=np.int64),))
    (found,) = delete_tokens([given], 1.0, VOCABULARY, 0, 0)
    assert found.sequences[0].tolist() == ids


def test_the_spelling_decoder_does_not_look_ahead() -> None:
    task = objective("bert", Denoising())
    inputs = task.prepare(samples([12]), 0, 0)
    encoded = task.encoder(inputs.encoder.batch)
    before = task._decoded(encoded, inputs)
    ids = inputs.decoder.batch.ids.clone()
    ids[-1] = 50
    changed = inputs.decoder.__class__(inputs.decoder.batch.with_ids(ids), inputs.decoder.rows, inputs.decoder.labels, 0)
    assert torch.equal(task._decoded(encoded, replace(inputs, decoder=changed))[:-1], before[:-1])


@EACH
def test_prepared_by_seed_epoch_and_number(config: RetroMae | Denoising) -> None:
    task, given = objective("bert", config), samples([30, 20])
    one, same = task.prepare(given, 0, 0), task.prepare(given[::-1], 0, 0)
    lengths = list(one.encoder.batch.ragged.lengths)
    assert torch.equal(one.encoder.batch.ids.split(lengths)[0], same.encoder.batch.ids.split(lengths[::-1])[1])
    assert not torch.equal(one.encoder.batch.ids, task.prepare(given, 0, 1).encoder.batch.ids)


def test_trunks_that_are_refused() -> None:
    with pytest.raises(InputError, match="needs attention in the first"):
        objective("m2_bert", RetroMae())
    with pytest.raises(InputError, match=r"RetroMae\.decoding: enhanced decoding needs a first layer with a residual"):
        AutoEncoding(without_residual(), objective("bert", PLAIN).head, VOCABULARY, RetroMae())
    with pytest.raises(InputError, match="a causal decoder cannot be of layers with global tokens"):
        objective("longformer", Denoising())


@EACH
def test_flops(config: RetroMae | Denoising) -> None:
    task = objective("bert", config)
    inputs = task.prepare(samples([30, 7]), 0, 0)
    rows = len(inputs.encoder.labels) + len(inputs.decoder.labels)
    parts = task.encoder.flops(inputs.encoder.batch.ragged) + task.decoder.flops(inputs.decoder.batch.ragged)
    assert task.flops(inputs) == parts + rows * 2 * SIZE * (VOCAB + SIZE)
