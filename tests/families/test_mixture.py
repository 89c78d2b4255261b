"""The family of what is of no published family: any mixture is read as it was written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.builders import CONFIGS, mixed

import bothways
from bothways import Model
from bothways.encoder.config import EncoderConfig
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.errors import InputError
from bothways.families import BY_NAME, FAMILIES, mixture
from bothways.families.family import Heads, Spec
from bothways.layers.heads import ClassifierHead, MaskedLmHead, Transform
from bothways.layers.norm import RmsNorm
from bothways.layers.replaced_token import ReplacedTokenHead
from bothways.model.folder import check_expressed
from bothways.model.settings import EmbeddingSettings

HEADS = Heads(
    masked_lm=MaskedLmHead(transform=None, bias=False),
    classifier=ClassifierHead(labels=3, pooling="max", transform=Transform(activation="silu", norm=RmsNorm(eps=1e-6))),
    next_sentence=ClassifierHead(labels=2),
    sentence_order=ClassifierHead(labels=2, transform=Transform()),
    replaced_token=ReplacedTokenHead(),
    pooler=Transform(activation="tanh"),
)


@pytest.mark.parametrize("encoder", [*CONFIGS.values(), mixed()], ids=[*CONFIGS, "mixed"])
def test_every_encoder_is_read_as_it_was_written(encoder: EncoderConfig, tmp_path: Path) -> None:
    heads = HEADS if encoder.embedding.size in (None, encoder.hidden_size) else replace(HEADS, masked_lm=MaskedLmHead())
    spec = Spec(encoder=encoder, heads=heads, pad_id=1, labels=("a", "b", "c"), problem="single_label_classification")
    model = Model.create(mixture.FAMILY, spec, seed=3)
    again = bothways.load(model.save(tmp_path / "model"), strict=True)
    assert again.family is mixture.FAMILY
    assert again.spec == spec
    state = model.state_dict()
    assert state.keys() == again.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in again.state_dict().items())


def test_what_published_families_refuse_is_saved() -> None:
    for family in FAMILIES:
        with torch.device("meta"):
            model = Model(family, Spec(encoder=mixed()))
        with pytest.raises(InputError, match=f"^(the family '{family.name}' cannot express|{family.name}: )"):
            check_expressed(model)
    with torch.device("meta"):
        check_expressed(Model(mixture.FAMILY, Spec(encoder=mixed(), heads=HEADS)))


def test_a_decoder_of_masks_is_kept(tmp_path: Path) -> None:
    spec = Spec(encoder=CONFIGS["deberta"], heads=Heads(masked_lm=MaskedLmHead(), mask_decoder=MaskDecoderHead()))
    again = bothways.load(Model.create(mixture.FAMILY, spec).save(tmp_path / "model"), strict=True)
    assert again.spec == spec
    assert "mask_decoder" in again.heads


def test_the_card_names_no_other_library(tmp_path: Path) -> None:
    model = Model(mixture.FAMILY, Spec(encoder=mixed()), settings=EmbeddingSettings(declared=True))
    card = (model.save(tmp_path / "model") / "README.md").read_text()
    assert "library_name: bothways" in card
    assert "sentence-transformers" not in card
    assert "## In Bothways" in card
    assert "## In transformers" not in card


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda config: config.pop("encoder"), "config.json: no 'encoder', which this family needs"),
        (lambda config: config.pop("heads"), "config.json: no 'heads', which this family needs"),
        (lambda config: config["encoder"].update(num_layer=3), "config.json: encoder: EncoderConfig: no field 'num_layer'"),
        (lambda config: config["encoder"].update(hidden_size="wide"), "config.json: encoder: hidden_size: "),
        (lambda config: config["heads"].update(masked_ln={}), "config.json: heads: there is no 'masked_ln'; there are "),
        (lambda config: config["heads"]["masked_lm"].update(tied="so"), "config.json: heads: masked_lm.tied: "),
        (
            lambda config: config["heads"].update(classifier={"labels": 2, "global_first": True}),
            "config.json: heads: ClassifierHead.global_first: no layer",
        ),
        (lambda config: config.update(classifier_pooling="last"), "config.json: classifier_pooling='last' is not supported"),
        (lambda config: config["encoder"].update(hidden_size=48), r"has shape \(.*\), the config implies"),
    ],
)
def test_a_damaged_config_is_named(changed: object, message: str, tmp_path: Path) -> None:
    folder = Model.create(mixture.FAMILY, Spec(encoder=mixed(), heads=Heads(masked_lm=MaskedLmHead()))).save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    changed(config)  # type: ignore[operator]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        bothways.load(folder)


def test_classes_are_as_many_as_their_names(tmp_path: Path) -> None:
    spec = Spec(encoder=mixed(), heads=Heads(classifier=ClassifierHead(labels=2)), labels=("a", "b", "c"))
    with pytest.raises(InputError, match=r"id2label names 3 classes, heads\.classifier\.labels is 2"):
        Model.create(mixture.FAMILY, spec).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_how_a_classifier_to_come_would_pool_is_kept(tmp_path: Path) -> None:
    folder = Model.create(mixture.FAMILY, Spec(encoder=mixed(), classifier_pooling="max")).save(tmp_path / "model")
    assert bothways.load(folder).spec.classifier_pooling == "max"


def test_it_is_the_last_resort() -> None:
    assert list(BY_NAME.values()) == [*FAMILIES, mixture.FAMILY]
