"""MosaicBERT: told from BERT, and what its distances promise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import references
from tests.builders import gap, random_ids, tiny_encoder
from tests.references import CASES

import bothways
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.families import bert, mosaicbert
from bothways.families.family import Heads, Spec
from bothways.layers.heads import Transform
from bothways.layers.norm import LayerNorm
from bothways.model.folder import check_expressed
from bothways.model.model import Model
from bothways.ragged import Batch

MASKED_LM = next(case for case in CASES if str(case) == "mosaicbert-masked_lm")


def folder_with(tmp_path: Path, **changes: Any) -> Path:
    folder = references.save(references.build(MASKED_LM), tmp_path / "theirs")
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model_type": None},
        {"alibi_starting_size": None, "auto_map": {"AutoModelForMaskedLM": "bert_layers.BertForMaskedLM"}},
        {"alibi_starting_size": None, "auto_map": {"AutoModelForMaskedLM": "someone/mosaic--bert_layers.BertForMaskedLM"}},
    ],
)
def test_its_config_is_told_from_berts(changes: dict[str, Any], tmp_path: Path) -> None:
    assert bothways.load(folder_with(tmp_path, **changes)).family is mosaicbert.FAMILY


@pytest.mark.parametrize("code", [{}, {"AutoModel": "modeling_bert.JinaBertModel"}])
def test_a_config_without_its_marks_is_berts_unless_told(code: dict[str, str], tmp_path: Path) -> None:
    folder = folder_with(tmp_path, alibi_starting_size=None, auto_map=code)
    with pytest.raises(InputError, match="weights missing"):
        bothways.load(folder)
    assert bothways.load(folder, family="mosaicbert").spec.encoder.max_length == 512


def test_what_it_is_told_to_be_it_is(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="alibi_starting_size"), pytest.raises(InputError, match="weights missing"):
        bothways.load(folder_with(tmp_path), family="bert")


def test_a_family_of_its_own_claims_nothing() -> None:
    assert not mosaicbert.FAMILY.claims({"model_type": "m2_bert", "alibi_starting_size": 512})


def test_hidden_states_depend_on_distances_alone(tmp_path: Path) -> None:
    """Behind a padded prefix, where every place is another, the reference says the same of the real tokens."""
    theirs = references.build(MASKED_LM)
    ours = bothways.load(references.save(theirs, tmp_path))
    ids = torch.from_numpy(random_ids([20])[0])
    row = torch.cat((torch.zeros(7, dtype=torch.long), ids))[None]
    given = {"input_ids": row, "attention_mask": (row > 0).long(), "token_type_ids": torch.zeros_like(row)}
    with torch.no_grad():
        shifted = theirs(**given).logits[0, 7:]
        logits = ours.masked_lm(ours.encoder(Batch.of([ids.numpy()])).hidden)
    assert gap(logits, shifted) <= 1e-5


def test_reading_backwards_is_reading_forwards() -> None:
    """Symmetric: a sequence turned around gives the same hidden states, turned around."""
    encoder, ids = tiny_encoder("mosaicbert"), random_ids([20])[0]
    with torch.no_grad():
        forwards, backwards = (encoder(Batch.of([np.ascontiguousarray(one)])).hidden for one in (ids, ids[::-1]))
    assert gap(backwards.flip(0), forwards) <= 1e-5


def test_longer_sequences_need_no_new_parameters() -> None:
    short = tiny_encoder("mosaicbert", layers=2)
    long = Encoder(replace(short.config, max_length=512)).eval()
    long.load_state_dict(short.state_dict())
    assert sum(p.numel() for p in long.parameters()) == sum(p.numel() for p in short.parameters())
    ids = random_ids([512])[0]
    with pytest.raises(InputError, match="takes at most 256"):
        short(Batch.of([ids]))
    with torch.no_grad():
        assert long(Batch.of([ids])).hidden.isfinite().all()
        assert torch.equal(long(Batch.of([ids[:99]])).hidden, short(Batch.of([ids[:99]])).hidden)


def test_the_length_is_a_setting(tmp_path: Path) -> None:
    """As the model's card says: raise `alibi_starting_size`."""
    assert bothways.load(folder_with(tmp_path, alibi_starting_size=1024)).max_seq_length == 1024


def test_the_published_defaults() -> None:
    config = mosaicbert.FAMILY.write(Spec(encoder=mosaicbert.SIZES["base"]))
    expected = {"model_type": "bert", "alibi_starting_size": 512, "vocab_size": 30528, "intermediate_size": 3072}
    expected |= {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.1, "type_vocab_size": 2, "hidden_act": "gelu"}
    assert {key: config[key] for key in expected} == expected


def test_what_is_dropped_out() -> None:
    """The sum of the embedding, what attention adds, and the middle of the MLP."""
    layer = Model(mosaicbert.FAMILY, Spec(encoder=mosaicbert.mosaicbert(50, 24, 1, 3, 20, dropout=0.25))).encoder.stack[0]
    assert (layer.mixer.dropout.p, layer.mlp.dropout.p, layer.dropout.p) == (0.25, 0.25, 0.0)


def test_what_its_config_cannot_say() -> None:
    encoder = mosaicbert.mosaicbert(50, 24, 2, 3, 20)
    windowed = tuple(replace(layer, mixer=replace(layer.mixer, window=4)) for layer in encoder.layers)
    loose = replace(mosaicbert.masked_lm_head(), transform=Transform(norm=LayerNorm(eps=1e-5)))
    for spec, lacking in (
        (Spec(encoder=bert.bert(50, 24, 2, 3, 20)), "encoder's"),
        (Spec(encoder=replace(encoder, layers=windowed)), "encoder's layers.0.mixer.window"),
        (Spec(encoder=encoder, heads=Heads(masked_lm=loose)), "masked_lm head's transform.norm.eps"),
    ):
        with pytest.raises(InputError, match=f"the family 'mosaicbert' cannot express this {lacking}"):
            check_expressed(Model(mosaicbert.FAMILY, spec))
    check_expressed(Model(mosaicbert.FAMILY, Spec(encoder=encoder, heads=Heads(masked_lm=mosaicbert.masked_lm_head("relu")))))
