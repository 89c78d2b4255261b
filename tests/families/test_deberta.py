"""DeBERTa's golden values, its configs, and the heads that `transformers` does not have."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import references
from tests.builders import LONGEST, gap, random_batch, randomise
from tests.parity.test_parity import TOLERANCE
from tests.references import CASES, Case
from torch import Tensor, nn

import bothways
from bothways.encoder.config import EncoderConfig
from bothways.encoder.enhanced_mask_decoder import EnhancedMaskDecoder, MaskDecoderHead
from bothways.errors import InputError
from bothways.families import deberta_v2
from bothways.families.bert import bert
from bothways.families.family import Heads, Spec
from bothways.families.m2bert import m2bert
from bothways.layers.heads import MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.layers.position import Disentangled
from bothways.layers.replaced_token import ReplacedTokenHead
from bothways.model.model import Model
from bothways.ops.disentangled import Disentangled as Disentangling
from bothways.ops.disentangled import Rows, log_buckets

GOLDEN = {127: 127, 128: 128, 129: 129, 150: 143, 200: 169, 256: 192, 300: 207, 400: 233, 511: 255, 512: 256, -200: -169}


def folder_of(name: str, folder: Path, **changes: Any) -> Path:
    """A case of theirs as a folder, its config changed; None takes a key away."""
    case = next(case for case in CASES if str(case) == name)
    references.save(references.build(case), folder)
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def test_the_golden_buckets() -> None:
    """256 buckets up to 512, of the released models."""
    assert dict(zip(GOLDEN, log_buckets(torch.tensor(list(GOLDEN)), 256, 512).tolist(), strict=True)) == GOLDEN


def test_distances_past_the_buckets_share_the_last() -> None:
    rows = Disentangled(buckets=256, max_distance=512).rows
    assert rows.of(torch.tensor([0, 511, 512, 900, -511, -512, -900])).tolist() == [256, 511, 511, 511, 1, 0, 0]
    assert rows.within(1) == (256, 257)
    assert rows.within(100) == (157, 356)
    assert rows.within(5000) == (0, 512)


@pytest.mark.parametrize("buckets", [1, 1022])
def test_buckets_that_reach_no_further(buckets: int) -> None:
    with pytest.raises(ValueError, match=f"Disentangled.buckets: {buckets} should be at least 2 and less than 1022"):
        Disentangled(buckets=buckets)


@pytest.mark.parametrize("buckets", [256, -1])
def test_sequences_longer_than_the_positions(buckets: int, tmp_path: Path) -> None:
    """700 tokens, of which the positions tell 512 apart."""
    shape = {"max_position_embeddings": 700, "max_relative_positions": 512, "position_buckets": buckets, "num_hidden_layers": 2}
    case = Case("deberta-v2", "bare", {"share_att_key": True, "position_biased_input": False, **shape})
    theirs = references.build(case)
    ours = bothways.load(references.save(theirs, tmp_path))
    batch = random_batch([700, 3])
    with torch.no_grad():
        expected = theirs(batch.ids[None, :700]).last_hidden_state[0]
        assert gap(ours.encoder(batch).split()[0], expected) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "changes", "refused"),
    [
        ("deberta-bare", {"talking_head": True}, "talking_head=True is not supported"),
        ("deberta-bare", {"pos_att_type": "c2p|p2p"}, r"pos_att_type='c2p\|p2p' is not supported; supported: c2p, p2c"),
        (
            "deberta-bare",
            {"relative_attention": False},
            r"pos_att_type=\['c2p', 'p2c'\] is not supported without relative_attention",
        ),
        ("deberta-bare", {"embedding_size": 12}, "embedding_size=12 is not supported"),
        ("deberta-v2-bare", {"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd='batch_norm' is not supported"),
        ("deberta-v2-bare", {"attention_head_size": 5}, "attention_head_size=5 is not supported"),
        ("deberta-v2-bare", {"conv_kernel_size": 4}, "Convolution.kernel: 4 has no middle"),
    ],
)
def test_what_a_config_cannot_say(name: str, changes: dict[str, Any], refused: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=refused):
        bothways.load(folder_of(name, tmp_path, **changes))


def test_a_norm_of_a_table_that_is_not_there(tmp_path: Path) -> None:
    off = {"relative_attention": False, "pos_att_type": None}
    with pytest.raises(InputError, match="norm_rel_ebd='layer_norm' is not supported without relative_attention"):
        bothways.load(folder_of("deberta-v2-bare", tmp_path, **off))


class Released(nn.Module):
    """The discriminator's head of the released v3 weights, written out."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(size, eps=1e-7)
        self.dense = nn.Linear(size, size)
        self.classifier = nn.Linear(size, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        beside = self.LayerNorm(hidden[:1] + hidden)
        return self.classifier(nn.functional.gelu(self.dense(beside)))[:, 0]


def released(folder: Path) -> tuple[Path, Released, dict[str, Tensor]]:
    """A folder as v3 was released: no `legacy` in its config, and the weights of two heads and of absolute positions."""
    name = "deberta-v2-masked_lm-convolution"
    folder_of(name, folder, legacy=None)
    head: Released = randomise(Released(24), seed=7)  # type: ignore[assignment]
    weights = load_file(folder / "model.safetensors")
    weights |= {f"mask_predictions.{key}": tensor.detach() for key, tensor in head.named_parameters()}
    weights["deberta.embeddings.position_embeddings.weight"] = torch.randn(
        LONGEST, 24, generator=torch.Generator().manual_seed(1)
    )
    save_file(weights, folder / "model.safetensors")
    return folder, head, weights


def test_the_released_heads(tmp_path: Path) -> None:
    """All of them are read, and written back to the bit; the discriminator's is equal to its definition."""
    folder, head, weights = released(tmp_path / "theirs")
    model = bothways.load(folder, strict=True)
    assert set(model.heads) == {"masked_lm", "mask_decoder", "replaced_token"}
    saved = model.save(tmp_path / "ours")
    written = load_file(saved / "model.safetensors")
    assert set(written) == set(weights)
    assert all(torch.equal(written[name], tensor) for name, tensor in weights.items())
    assert json.loads((saved / "config.json").read_text())["legacy"] is False
    encoded = model.encoder(random_batch([9, 30, 1]))
    expected = torch.cat([head(hidden) for hidden in encoded.split()])
    assert gap(model.heads["replaced_token"](encoded.hidden, encoded.ragged), expected) <= TOLERANCE


def enhanced(seed: int = 0) -> Model:
    norm = LayerNorm(eps=1e-7)
    encoder = deberta_v2.deberta_v2(31, 24, 4, 3, 20, 40, position=Disentangled(buckets=8, max_distance=20, shared=True))
    heads = Heads(masked_lm=MaskedLmHead(transform=Transform(norm=norm)), mask_decoder=MaskDecoderHead())
    return randomise(Model(deberta_v2.FAMILY, Spec(encoder=encoder, heads=heads)), seed).eval()  # type: ignore[return-value]


def test_the_enhanced_mask_decoder_is_the_last_layer_twice() -> None:
    """Only that layer, with its own input as keys and values; written out here for one sequence."""
    model = enhanced()
    encoder, decoder = model.encoder, model.heads["mask_decoder"]
    batch = random_batch([17])
    batch = batch.with_ids(batch.ids % 31)
    calls: list[int] = []

    def note(number: int, module: nn.Module, args: object) -> None:
        calls.append(number)

    for i, layer in enumerate(encoder.stack):
        layer.register_forward_pre_hook(partial(note, i))
    encoded = encoder(batch, keep=True)
    assert calls == [0, 1, 2, 3]
    found = decoder(encoder, encoded)
    assert calls == [0, 1, 2, 3, 3, 3]
    seen, layer = encoded.layers[-2], encoder.stack[-1]
    x = seen + decoder.positions.weight[:17]  # type: ignore[index, union-attr]
    for _ in range(2):
        x = by_hand(layer, x, seen, encoder.relative(17))  # type: ignore[misc]
    assert gap(found, x) <= TOLERANCE


def by_hand(layer: Any, x: Tensor, seen: Tensor, table: Tensor) -> Tensor:
    """A layer of shared projections whose queries are of `x`, keys and values of `seen`; a position at a time."""
    of = dict(zip("qkv", zip(layer.mixer.qkv.weight.chunk(3), layer.mixer.qkv.bias.chunk(3), strict=True), strict=True))
    q, k, v = (nn.functional.linear(y, *of[name]).unflatten(1, (3, 8)) for name, y in zip("qkv", (x, seen, seen), strict=True))
    far_q, far_k = (nn.functional.linear(table, *of[name]).unflatten(1, (3, 8)) for name in "qk")
    rows = layer.mixer.config.position.rows
    scores = torch.zeros(3, len(x), len(x))
    for i in range(len(x)):
        for j in range(len(x)):
            row = int(rows.of(torch.tensor(i - j))) - rows.within(len(x))[0]
            scores[:, i, j] = (q[i] * k[j] + q[i] * far_k[row] + k[j] * far_q[row]).sum(1) / math.sqrt(3 * 8)
    mixed = torch.einsum("hij,jhd->ihd", scores.softmax(2), v).flatten(1)
    x = layer.mixer_norm(x + layer.mixer.out(mixed))
    return layer.mlp_norm(x + layer.mlp(x))


def test_absolute_positions_are_the_mask_decoders_alone() -> None:
    """Others change the logits, and no output of the encoder."""
    model = enhanced()
    batch = random_batch([17, 5])
    batch = batch.with_ids(batch.ids % 31)
    decoder = model.heads["mask_decoder"]
    with torch.no_grad():
        before = model.encoder(batch, keep=True)
        logits = model.masked_lm(decoder(model.encoder, before))
        decoder.positions.weight.copy_(decoder.positions.weight.flip(0))  # type: ignore[union-attr, operator]
        after = model.encoder(batch, keep=True)
        others = model.masked_lm(decoder(model.encoder, after))
    assert all(torch.equal(one, other) for one, other in zip(before.layers, after.layers, strict=True))
    assert gap(logits, others) > 0.01


def test_a_mask_decoder_and_its_encoder() -> None:
    model = enhanced()
    with pytest.raises(InputError, match="encode with keep=True"):
        model.heads["mask_decoder"](model.encoder, model.encoder(random_batch([3]).with_ids(torch.tensor([1, 2, 3]))))
    with pytest.raises(InputError, match="at least two post-norm layers"):
        EnhancedMaskDecoder(MaskDecoderHead(), bert(num_layers=1))
    convolved = m2bert(vocab_size=31, hidden_size=24, num_layers=2, intermediate_size=20, max_length=16, width=8)
    layers = tuple(replace(layer, mixer_residual=False) for layer in bert(num_layers=2).layers)
    for encoder in (convolved, replace(bert(num_layers=2), layers=layers)):
        with pytest.raises(InputError, match="needs a last layer of attention with a residual"):
            EnhancedMaskDecoder(MaskDecoderHead(), encoder)


def test_fresh_heads_of_v3_are_saved_and_read(tmp_path: Path) -> None:
    """By no config of theirs."""
    encoder = deberta_v2.deberta_v2(31, 24, 2, 3, 20, 40)
    norm = LayerNorm(eps=1e-7)
    heads = Heads(masked_lm=MaskedLmHead(transform=Transform(norm=norm)), replaced_token=ReplacedTokenHead(beside_first=norm))
    model = Model.create(deberta_v2.FAMILY, Spec(encoder=encoder, heads=heads, legacy=False))
    assert bothways.load(model.save(tmp_path), strict=True).spec.heads == heads


@pytest.mark.parametrize("size", sorted(deberta_v2.SIZES))
def test_the_norms_of_a_size_agree(size: str) -> None:
    """That of the table and of the convolution have the epsilon of the layers."""
    config: EncoderConfig = deberta_v2.SIZES[size]
    position = config.layers[0].mixer.position
    assert isinstance(position, Disentangled)
    assert position.norm == config.layers[0].norm == config.embedding.norm
    assert config.convolution is None or config.convolution.norm == position.norm


def test_a_logarithm_that_is_off_by_a_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices round differently: the furthest distance then has the last row of the table that the CPU cut, and no other's."""
    rows, plain = Rows(256, 256, 512), torch.log
    first, end = rows.within(512)
    torch.manual_seed(0)
    tables = [torch.randn(2, end - first, 4) for _ in range(2)]
    positions, scores = Disentangling(*tables, rows, first, 0.5), torch.randn(1, 2, 512, 4)
    expected = positions.dense(scores, scores, torch.arange(512), torch.arange(512))

    def above(x: torch.Tensor) -> torch.Tensor:
        return torch.nextafter(plain(x), torch.full_like(x, 99.0)) if x.dim() else plain(x)

    monkeypatch.setattr(torch, "log", above)
    assert rows.of(torch.tensor([-511])).item() < first
    for added in (
        positions.dense(scores, scores, torch.arange(512), torch.arange(512)),
        positions.consecutive(scores, scores, 0, 0),
    ):
        assert added is not None
        torch.testing.assert_close(added[..., 0, 511], expected[..., 0, 511])
        torch.testing.assert_close(added[..., 511, 0], expected[..., 511, 0])
