"""Longformer: who sees what, by which projections, and the conversion from RoBERTa (reference, section 6)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import references
from tests.builders import SIZE, gap, lengths_lists, random_ids, randomise, tiny_encoder
from tests.parity.test_parity import TOLERANCE, run, worst
from tests.references import CASES, Case
from torch import Tensor

import bothways
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.families.longformer import FAMILY, SIZES, longformer
from bothways.families.roberta import roberta
from bothways.layers.attention import Attention
from bothways.model import Model
from bothways.model import longformer as lengthening
from bothways.model.folder import check_expressed
from bothways.ops.attention import REFERENCE
from bothways.ragged import Batch

SHAPE: dict[str, Any] = {"vocab_size": 101, "hidden_size": SIZE, "num_layers": 3, "heads": 3, "intermediate_size": 20}
LENGTHS = (9, 0, 150, 9, 1)


def case_of(name: str) -> Case:
    return next(case for case in CASES if str(case) == name)


def loaded(name: str, folder: Path, **changes: Any) -> Model:
    """Our model of a reference; `changes` are made in its config."""
    case = case_of(name)
    theirs = references.save(references.build(replace(case, changes={**case.changes, **changes})), folder)
    return bothways.load(theirs)


def states(model: Model | Encoder, batch: Batch) -> tuple[Tensor, ...]:
    encoder = model.encoder if isinstance(model, Model) else model
    with torch.no_grad():
        return encoder(batch, keep=True).layers


def masked(lengths: tuple[int, ...] | list[int], share: float = 0.2) -> tuple[list[np.ndarray], list[np.ndarray]]:
    generator = np.random.default_rng(5)
    return random_ids(lengths), [generator.random(length) < share for length in lengths]


def test_the_published_sizes() -> None:
    """attention_window 512 is 256 to each side; 4096 tokens, two rows of positions before them."""
    base = SIZES["base"]
    assert (base.max_length, base.layers[0].mixer.window, base.embedding.token_types) == (4096, 256, 1)
    assert replace(base, max_length=512, layers=roberta().layers) == roberta()
    with torch.device("meta"):
        assert Encoder(base).embedding.positions.weight.shape == (4098, 768)  # type: ignore[union-attr]


def test_a_token_sees_w_plus_one_keys() -> None:
    """Width 8: four to each side and itself."""
    encoder = randomise(Encoder(longformer(**{**SHAPE, "num_layers": 1}, max_length=64, windows=8))).eval()
    with torch.no_grad():
        before = encoder(Batch.of([np.arange(5, 45)])).hidden  # type: ignore[operator]
        for row in (19, 20, 28, 29):
            ids = np.arange(5, 45)
            ids[row] = 99
            changed = encoder(Batch.of([ids])).hidden  # type: ignore[operator]
            assert torch.equal(changed[24], before[24]) == (abs(row - 24) > 4)


# -- the checks of the reference ----------------------------------------------------------------


def test_a_window_twice_the_length_is_full_attention(tmp_path: Path) -> None:
    """Check 2: without global tokens it is then a RoBERTa, its own projections of global tokens left out."""
    model = loaded("longformer-masked_lm", tmp_path, attention_window=2 * 230)
    plain = Encoder(replace(model.spec.encoder, layers=roberta(**SHAPE, max_length=256).layers))
    plain.load_state_dict({n: x for n, x in model.encoder.state_dict().items() if ".everywhere." not in n})
    batch = Batch.of(random_ids([1, 230, 17, 40, 2]))
    for ours, theirs in zip(states(model, batch), states(plain.eval(), batch), strict=True):
        assert gap(ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("part", ["query", "key_value"])
def test_projections_of_global_tokens_act_in_their_rows_alone(part: str) -> None:
    """Check 3, first half: after the first layer, the other rows are the same, bit for bit."""
    encoder, (ids, masks) = tiny_encoder("longformer"), masked(LENGTHS)
    batch = Batch.of(ids, global_mask=masks)
    before = states(encoder, batch)[1]
    with torch.no_grad():
        encoder.layers[0].mixer.everywhere.get_submodule(part).weight.add_(0.3)  # type: ignore[union-attr, operator]
    changed = (states(encoder, batch)[1] != before).any(dim=1)
    assert batch.global_mask is not None
    assert torch.equal(changed, batch.global_mask)


def test_local_tokens_see_global_ones_through_local_keys_and_values() -> None:
    """Check 3, second half: other local keys and values, and a far local token's view of a global one is another."""
    encoder = tiny_encoder("longformer", layers=1)
    ids = random_ids([60])
    batch = Batch.of(ids, global_mask=[np.arange(60) == 2])
    far = ids[0].copy()
    far[2] = 99

    def view() -> Tensor:
        """What the global token's being another changes, far from it."""
        here, there = (states(encoder, replace(batch, ids=torch.from_numpy(one)))[1] for one in (ids[0], far))
        return (here - there)[40]

    before = view()
    assert before.any()
    with torch.no_grad():
        encoder.layers[0].mixer.qkv.weight[SIZE:].add_(0.3)  # type: ignore[union-attr, index]
    assert gap(view(), before) > 0.01
    local = Batch.of([ids[0]]), Batch.of([far])
    assert torch.equal(*(states(encoder, one)[1][40] for one in local))


def test_a_converted_roberta_is_the_same_on_short_texts(tmp_path: Path) -> None:
    """Check 4: hidden states and logits bit for bit where the window holds the text on either side."""
    model = loaded("roberta-masked_lm", tmp_path)
    longer = lengthening.from_roberta(model, max_length=1000, window=512)
    batch = Batch.of(random_ids([1, 256, 17, 40, 2]))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(states(longer, batch), states(model, batch), strict=True))
    with torch.no_grad():
        hidden = longer.encoder(batch).hidden
        assert torch.equal(longer.masked_lm(hidden), model.masked_lm(hidden))


# -- conversion ---------------------------------------------------------------------------------


def test_positions_are_tiled_behind_the_two_first_rows(tmp_path: Path) -> None:
    model = loaded("roberta-masked_lm", tmp_path)
    old = model.encoder.embedding.positions.weight  # type: ignore[union-attr]
    new = lengthening.from_roberta(model, max_length=700, window=8).encoder.embedding.positions.weight  # type: ignore[union-attr]
    assert (old.shape[0], new.shape[0]) == (258, 702)
    assert torch.equal(new[:258], old)
    assert torch.equal(new[258:514], old[2:])
    assert torch.equal(new[514:], old[2:190])


@pytest.mark.parametrize("name", ["roberta-bare", "roberta-masked_lm", "xlm-roberta-classifier"])
def test_converted_folders_are_read_by_them(name: str, tmp_path: Path) -> None:
    """With every head; and ours and theirs agree on them, the classifier's global token included."""
    model = lengthening.from_roberta(loaded(name, tmp_path / "short"), max_length=400, window=8)
    folder = model.save(tmp_path / "long")
    again = bothways.load(folder, strict=True)
    assert (again.family, again.spec.encoder, again.spec.heads) == (FAMILY, model.spec.encoder, model.spec.heads)
    case = case_of(f"longformer-{name.rpartition('-')[2]}")
    ids = random_ids([300, 5, 20])
    with torch.no_grad():
        theirs = references.run(case, references.reload(case, folder), ids, None)
        assert worst(run(model, Batch.of(ids)), theirs) <= TOLERANCE


def test_the_copies_are_copies(tmp_path: Path) -> None:
    """Training the longer model leaves the RoBERTa alone; local and global projections part, and can be joined again."""
    model = loaded("roberta-masked_lm", tmp_path)
    longer = lengthening.from_roberta(model, window=8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    local, wide = longer.encoder.layers[0].mixer.qkv, longer.encoder.layers[0].mixer.everywhere  # type: ignore[union-attr]
    joined: Callable[[str], bool] = lambda part: torch.equal(  # noqa: E731
        getattr(local, part), torch.cat((getattr(wide.query, part), getattr(wide.key_value, part)))
    )
    assert joined("weight")
    assert joined("bias")
    assert all(parameter.requires_grad for parameter in longer.parameters())
    with torch.no_grad():
        local.weight.add_(1.0)
        local.bias.add_(1.0)
    assert not joined("weight")
    lengthening.copy_local_to_global(longer)
    assert joined("weight")
    assert joined("bias")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    bert, model = loaded("bert-bare", tmp_path / "bert"), loaded("roberta-bare", tmp_path / "roberta")
    with pytest.raises(InputError, match="the family 'longformer' cannot express this encoder's"):
        lengthening.from_roberta(bert)
    with pytest.raises(InputError, match="max_length=100 is less than the 256 tokens"):
        lengthening.from_roberta(model, max_length=100)
    with pytest.raises(InputError, match="from_roberta: window: 7 should be an even"):
        lengthening.from_roberta(model, window=7)
    with pytest.raises(InputError, match=r"layer 0 of .* has no global tokens"):
        lengthening.copy_local_to_global(model)


# -- batches with global tokens -----------------------------------------------------------------


@settings(max_examples=15)
@given(lengths=lengths_lists, share=st.sampled_from([0.1, 0.5]))
def test_packed_is_alone_with_global_tokens(lengths: list[int], share: float) -> None:
    encoder, (ids, masks) = tiny_encoder("longformer"), masked(lengths, share)
    with torch.no_grad():
        packed = encoder(Batch.of(ids, global_mask=masks)).split()
        for together, one, mask in zip(packed, ids, masks, strict=True):
            assert gap(together, encoder(Batch.of([one], global_mask=[mask])).hidden) <= TOLERANCE


def test_both_ways_of_attention_agree() -> None:
    encoder, (ids, masks) = tiny_encoder("longformer"), masked((250, 7, 0, 250), 0.05)
    batch, found = Batch.of(ids, global_mask=masks), []
    for backend in (None, REFERENCE):
        encoder.backend = backend
        found.append(states(encoder, batch)[-1])
    assert gap(*found) <= TOLERANCE


def test_no_marked_token_is_no_mask() -> None:
    encoder, ids = tiny_encoder("longformer"), random_ids([9, 30])
    unmarked = Batch.of(ids, global_mask=[np.zeros(len(one), dtype=bool) for one in ids])
    assert torch.equal(states(encoder, unmarked)[-1], states(encoder, Batch.of(ids))[-1])


def test_a_mask_for_an_encoder_without_global_tokens_is_refused() -> None:
    batch = Batch.of(random_ids([5])).with_first_global()
    with pytest.raises(InputError, match="global_mask, but no layer of this encoder has global tokens"):
        tiny_encoder("bert")(batch)


@pytest.mark.parametrize("change", [{"window": None}, {"causal": True}, {"kv_heads": 1}])
def test_impossible_attention(change: dict[str, Any]) -> None:
    config = longformer(**SHAPE, max_length=64)
    mixer: Attention = replace(config.layers[0].mixer, **change)
    with pytest.raises(ValueError, match=r"mixer.global_tokens: they need a window"):
        replace(config, layers=(replace(config.layers[0], mixer=mixer),))


# -- config.json --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("windows", "pattern"),
    [(8, (4,)), ([8] * 5, (4,)), ([4, 8, 4, 8, 4], (2, 4)), ([4, 4, 4, 4, 8], (2, 2, 2, 2, 4)), (None, (256,))],
)
def test_windows_of_a_config(windows: Any, pattern: tuple[int, ...], tmp_path: Path) -> None:
    folder = references.save(references.build(case_of("longformer-bare")), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_window": windows}))
    model = bothways.load(folder, strict=True)
    assert tuple(layer.mixer.window for layer in model.spec.encoder.layers) == pattern
    saved = json.loads((model.save(tmp_path / "saved") / "config.json").read_text())["attention_window"]
    assert saved == [2 * pattern[i % len(pattern)] for i in range(5)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_window": 7}, "attention_window: 7 should be an even whole number, at least 2"),
        ({"attention_window": [8, 8, 0, 8, 8]}, "attention_window: 0 should be"),
        ({"attention_window": [8, 8]}, "attention_window has 2 widths for 5 layers"),
        ({"attention_window": "8"}, "attention_window='8' should be a whole number, or a list of them"),
        ({"attention_mode": "n2"}, "attention_mode='n2' is not supported"),
        ({"ignore_attention_mask": True}, "ignore_attention_mask=True is not supported"),
    ],
)
def test_configs_that_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = references.save(references.build(case_of("longformer-bare")), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        bothways.load(folder)


def test_a_classifier_marks_the_first_token(tmp_path: Path) -> None:
    model = loaded("longformer-classifier", tmp_path)
    head: Any = model.heads["classifier"]
    batch = Batch.of(random_ids([5, 0, 3]))
    marked = head.marked(batch)
    assert marked.global_mask.nonzero().flatten().tolist() == [0, 5]
    chosen = replace(batch, global_mask=torch.ones(8, dtype=torch.bool))
    assert head.marked(chosen) is chosen
    plain = replace(head.config, global_first=False)
    with pytest.raises(InputError, match="classifier head's global_first"):
        check_expressed(model.with_heads(replace(model.spec.heads, classifier=plain)))
