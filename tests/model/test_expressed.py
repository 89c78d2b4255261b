"""A family writes only what its config can say: what it would read back as another network is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from bothways.data.source import TextFiles
from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.families import FAMILIES, bert, deberta, deberta_v2, modernbert, neobert, roberta
from bothways.families.family import Family, Heads, Spec
from bothways.layers.heads import ClassifierHead, MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm, RmsNorm
from bothways.layers.position import Rotary
from bothways.model import Model
from bothways.model.folder import check_expressed
from bothways.recipes.published import RECIPES, Size
from bothways.training.schedule import Steps

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_layers": 2,
    "heads": 3,
    "intermediate_size": 20,
    "max_length": 16,
}
BERT, MODERNBERT, NEOBERT = bert.bert(**SIZES), modernbert.modernbert(**SIZES), neobert.neobert(**SIZES)
DEBERTA, DEBERTA_V2 = deberta.deberta(**SIZES), deberta_v2.deberta_v2(**SIZES)
DEBERTA_LM = bert.masked_lm_head(DEBERTA)
BERT_LM = bert.masked_lm_head(BERT)
NEOBERT_LM = MaskedLmHead(transform=None, tied=False)
MODERNBERT_LM = MaskedLmHead(transform=Transform(bias=False, norm=LayerNorm(bias=False)))


def model_of(family: Family, encoder: EncoderConfig, **heads: Any) -> Model:
    with torch.device("meta"):
        return Model(family, Spec(encoder=encoder, heads=Heads(**heads), pad_id=1 if family is roberta.FAMILY else 0))


def with_layers(encoder: EncoderConfig, change: Callable[[Any], Any]) -> EncoderConfig:
    return replace(encoder, layers=tuple(change(layer) for layer in encoder.layers))


def activated(encoder: EncoderConfig, name: str) -> EncoderConfig:
    return with_layers(encoder, lambda layer: replace(layer, mlp=replace(layer.mlp, activation=name)))


def test_a_windowed_bert_has_no_published_form(tmp_path: Path) -> None:
    mixed = with_layers(BERT, lambda layer: replace(layer, mixer=replace(layer.mixer, window=4, position=Rotary())))
    with pytest.raises(InputError, match=r"the family 'bert' cannot express this encoder's layers.0.mixer.window and"):
        Model.create(bert.FAMILY, Spec(encoder=mixed)).save(tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()
    Model.create(bert.FAMILY, Spec(encoder=BERT)).save(tmp_path / "plain")


def test_positions_that_the_padding_id_would_shift_are_refused(tmp_path: Path) -> None:
    encoder = roberta.roberta(**SIZES)
    with pytest.raises(InputError, match="cannot express this encoder's"):
        Model.create(roberta.FAMILY, Spec(encoder=encoder, pad_id=0)).save(tmp_path / "shifted")
    with pytest.raises(InputError, match="max_length"):
        check_expressed(Model.create(roberta.FAMILY, Spec(encoder=encoder, pad_id=40)))
    Model.create(roberta.FAMILY, Spec(encoder=encoder, pad_id=1)).save(tmp_path / "right")


@pytest.mark.parametrize(
    ("family", "encoder", "heads"),
    [
        (bert.FAMILY, BERT, {"masked_lm": BERT_LM}),
        (bert.FAMILY, activated(BERT, "relu"), {"masked_lm": bert.masked_lm_head(activated(BERT, "relu"))}),
        (roberta.FAMILY, roberta.roberta(**SIZES), {"masked_lm": bert.masked_lm_head(roberta.roberta(**SIZES))}),
        (modernbert.FAMILY, MODERNBERT, {"masked_lm": MODERNBERT_LM}),
        (neobert.FAMILY, NEOBERT, {"masked_lm": NEOBERT_LM}),
        (deberta.FAMILY, DEBERTA, {"masked_lm": DEBERTA_LM}),
        (deberta_v2.FAMILY, DEBERTA_V2, {"masked_lm": DEBERTA_LM}),
        (deberta_v2.FAMILY, replace(DEBERTA_V2, convolution=deberta_v2.CONVOLUTION), {}),
    ],
)
def test_what_a_family_can_say(family: Family, encoder: EncoderConfig, heads: dict[str, Any]) -> None:
    check_expressed(model_of(family, encoder, **heads))


@pytest.mark.parametrize(
    ("family", "encoder", "heads", "lacking"),
    [
        # the head's activation is that of the layers
        (bert.FAMILY, activated(BERT, "relu"), {"masked_lm": BERT_LM}, "masked_lm head's transform.activation"),
        (bert.FAMILY, BERT, {"masked_lm": replace(BERT_LM, tied=False)}, "masked_lm head's tied"),
        (bert.FAMILY, BERT, {"masked_lm": replace(BERT_LM, transform=None)}, "masked_lm head's transform"),
        (bert.FAMILY, BERT, {"masked_lm": replace(BERT_LM, bias=False)}, "masked_lm head's bias"),
        (bert.FAMILY, BERT, {"classifier": ClassifierHead(labels=2, pooling="mean")}, "classifier head's pooling and"),
        (bert.FAMILY, activated(BERT, "tanh"), {}, "encoder's layers.0.mlp.activation 'tanh'"),
        (bert.FAMILY, with_layers(BERT, lambda layer: replace(layer, norm=RmsNorm())), {}, "encoder's layers.0.norm.type"),
        (bert.FAMILY, replace(BERT, embedding=replace(BERT.embedding, norm=RmsNorm())), {}, "encoder's embedding.norm"),
        (roberta.FAMILY, replace(BERT, embedding=replace(BERT.embedding, position=None)), {}, "encoder's embedding.position"),
        (roberta.FAMILY, roberta.roberta(**SIZES), {"next_sentence": ClassifierHead(labels=2)}, "next_sentence head;"),
        (modernbert.FAMILY, activated(MODERNBERT, "tanh"), {}, "encoder's layers.0.mlp.activation 'tanh'"),
        (modernbert.FAMILY, BERT, {}, "encoder's layers.0.mixer.position"),
        (modernbert.FAMILY, with_layers(MODERNBERT, lambda layer: replace(layer, norm=RmsNorm())), {}, "encoder's layers.0.norm"),
        (modernbert.FAMILY, MODERNBERT, {"masked_lm": BERT_LM}, "masked_lm head's transform.norm.eps"),
        (neobert.FAMILY, BERT, {}, "encoder's layers.0.norm"),
        (deberta.FAMILY, DEBERTA_V2, {}, "encoder's layers.0.mixer"),
        (deberta.FAMILY, replace(DEBERTA, convolution=deberta_v2.CONVOLUTION), {}, "encoder's convolution"),
        (deberta_v2.FAMILY, DEBERTA, {}, "encoder's layers.0.mixer.key_bias"),
        (deberta.FAMILY, DEBERTA, {"masked_lm": replace(DEBERTA_LM, tied=False)}, "masked_lm head's tied"),
        (
            neobert.FAMILY,
            with_layers(NEOBERT, lambda layer: replace(layer, mlp=replace(layer.mlp, size=100))),
            {},
            "encoder's layers.0.mlp.size 100, which is no multiple of 8",
        ),
    ],
)
def test_what_it_cannot_is_named(family: Family, encoder: EncoderConfig, heads: dict[str, Any], lacking: str) -> None:
    with pytest.raises(InputError) as error:
        check_expressed(model_of(family, encoder, **heads))
    message = str(error.value)
    assert message.startswith(f"the family '{family.name}' cannot express this {lacking}")
    assert message.endswith("; nothing was written")


@pytest.mark.parametrize("size", get_args(Size))
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_what_its_family_can_say(name: str, size: Size) -> None:
    run = RECIPES[name](TextFiles(paths=("texts",)), Steps(count=1), size)
    family = next(one for one in FAMILIES if one.name == run.family)
    check_expressed(model_of(family, run.encoder, masked_lm=run.head))


def test_dropout_and_initialisation_are_no_part_of_a_trained_network() -> None:
    head = ClassifierHead(labels=2, transform=Transform(activation="tanh"), dropout=0.3, input_dropout=0.2)
    check_expressed(model_of(bert.FAMILY, with_layers(BERT, lambda layer: replace(layer, dropout=0.4)), classifier=head))
