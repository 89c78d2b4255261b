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
from bothways.families import (
    FAMILIES,
    albert,
    bert,
    deberta,
    deberta_v2,
    distilbert,
    electra,
    eurobert,
    llama,
    longformer,
    modernbert,
    neobert,
    roberta,
)
from bothways.families.family import Family, Heads, Spec
from bothways.layers.heads import ClassifierHead, MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm, RmsNorm
from bothways.layers.position import Alibi, Rotary, Sinusoidal
from bothways.layers.replaced_token import ReplacedTokenHead
from bothways.layers.scaling import Linear, Yarn
from bothways.model import Model
from bothways.model.folder import check_expressed
from bothways.recipes.published import RECIPES
from bothways.recipes.recipe import Size
from bothways.recipes.runs import Staged
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
LONGFORMER = longformer.longformer(**SIZES, windows=[4, 8])
EUROBERT = eurobert.eurobert(**SIZES, kv_heads=1)
LLAMA = llama.llama(**SIZES, kv_heads=1)
DEBERTA, DEBERTA_V2 = deberta.deberta(**SIZES), deberta_v2.deberta_v2(**SIZES)
DEBERTA_LM = bert.masked_lm_head(DEBERTA)
BERT_LM = bert.masked_lm_head(BERT)
TANH = Transform(activation="tanh")
BERT_TANH_LM = MaskedLmHead(transform=Transform(activation="gelu_tanh", norm=LayerNorm(eps=1e-12)))
ALBERT, DISTILBERT = albert.albert(**SIZES, embedding_size=9), distilbert.distilbert(**SIZES)
ELECTRA = electra.electra(**SIZES, embedding_size=9)
NEOBERT_LM = MaskedLmHead(transform=None, tied=False)
MODERNBERT_LM = MaskedLmHead(transform=Transform(bias=False, norm=LayerNorm(bias=False)))


def model_of(family: Family, encoder: EncoderConfig, **heads: Any) -> Model:
    with torch.device("meta"):
        pad_id = int(family in (roberta.FAMILY, roberta.CAMEMBERT_FAMILY, longformer.FAMILY))
        return Model(family, Spec(encoder=encoder, heads=Heads(**heads), pad_id=pad_id))


def with_layers(encoder: EncoderConfig, change: Callable[[Any], Any]) -> EncoderConfig:
    return replace(encoder, layers=tuple(change(layer) for layer in encoder.layers))


def activated(encoder: EncoderConfig, name: str) -> EncoderConfig:
    return with_layers(encoder, lambda layer: replace(layer, mlp=replace(layer.mlp, activation=name)))


def positioned(encoder: EncoderConfig, position: Any) -> EncoderConfig:
    return with_layers(encoder, lambda layer: replace(layer, mixer=replace(layer.mixer, position=position)))


def windowed(encoder: EncoderConfig, window: int) -> EncoderConfig:
    return with_layers(encoder, lambda layer: replace(layer, mixer=replace(layer.mixer, window=window)))


def biased(encoder: EncoderConfig) -> EncoderConfig:
    """Biases of queries, keys and values alone."""
    return with_layers(encoder, lambda layer: replace(layer, mixer=replace(layer.mixer, bias=True, out_bias=False)))


def normed(encoder: EncoderConfig) -> EncoderConfig:
    return with_layers(encoder, lambda layer: replace(layer, mixer=replace(layer.mixer, qk_norm=layer.norm)))


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
        (longformer.FAMILY, LONGFORMER, {"masked_lm": bert.masked_lm_head(LONGFORMER)}),
        (modernbert.FAMILY, MODERNBERT, {"masked_lm": MODERNBERT_LM}),
        (neobert.FAMILY, NEOBERT, {"masked_lm": NEOBERT_LM}),
        (albert.FAMILY, ALBERT, {"masked_lm": BERT_TANH_LM, "sentence_order": ClassifierHead(labels=2, transform=TANH)}),
        (albert.FAMILY, albert.albert(**{**SIZES, "num_layers": 12}, groups=2, inner=3), {"pooler": TANH}),
        (distilbert.FAMILY, DISTILBERT, {"masked_lm": BERT_LM}),
        (electra.FAMILY, ELECTRA, {"masked_lm": BERT_LM, "replaced_token": ReplacedTokenHead()}),
        (roberta.CAMEMBERT_FAMILY, roberta.roberta(**SIZES), {}),
        (eurobert.FAMILY, EUROBERT, {"masked_lm": MaskedLmHead(transform=None, tied=False, bias=False)}),
        (eurobert.FAMILY, positioned(EUROBERT, Rotary(scaling=Yarn(factor=2.0, original_length=8))), {}),
        (modernbert.FAMILY, positioned(MODERNBERT, Rotary(scaling=Linear(factor=2.0))), {}),
        (llama.FAMILY, LLAMA, {"masked_lm": MaskedLmHead(transform=None, bias=False)}),
        (llama.FAMILY, llama.llama(**SIZES, kv_heads=3, causal=False), {"masked_lm": replace(NEOBERT_LM, bias=False)}),
        (llama.MISTRAL_FAMILY, windowed(LLAMA, 3), {}),
        (llama.QWEN2_FAMILY, biased(LLAMA), {}),
        (llama.QWEN3_FAMILY, normed(LLAMA), {}),
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
        (albert.FAMILY, BERT, {}, "encoder's shared"),
        (albert.FAMILY, replace(ALBERT, embedding=replace(ALBERT.embedding, size=None)), {}, "encoder's embedding.size"),
        (albert.FAMILY, ALBERT, {"next_sentence": ClassifierHead(labels=2)}, "next_sentence head;"),
        (
            albert.FAMILY,
            ALBERT,
            {name: ClassifierHead(labels=n, transform=TANH) for name, n in (("classifier", 2), ("sentence_order", 3))},
            "sentence_order head's labels",
        ),
        (bert.FAMILY, ALBERT, {}, "encoder's embedding.size and"),
        (bert.FAMILY, replace(ALBERT, embedding=BERT.embedding), {}, "encoder's shared"),
        (distilbert.FAMILY, BERT, {}, "encoder's embedding.token_types"),
        (
            distilbert.FAMILY,
            replace(DISTILBERT, embedding=replace(DISTILBERT.embedding, position=Sinusoidal())),
            {},
            "encoder's embedding.position",
        ),
        (distilbert.FAMILY, DISTILBERT, {"classifier": ClassifierHead(labels=2, transform=TANH)}, "classifier head's transform"),
        (electra.FAMILY, ELECTRA, {"classifier": ClassifierHead(labels=2, transform=TANH)}, "classifier head's transform"),
        (electra.FAMILY, ELECTRA, {"replaced_token": ReplacedTokenHead(transform=TANH)}, "replaced_token head's transform"),
        (electra.FAMILY, ELECTRA, {"pooler": TANH}, "pooler head"),
        (longformer.FAMILY, roberta.roberta(**SIZES), {}, "encoder's layers.0.mixer.window"),
        (
            longformer.FAMILY,
            with_layers(LONGFORMER, lambda layer: replace(layer, mixer=replace(layer.mixer, global_tokens=False))),
            {},
            "encoder's layers.0.mixer.global_tokens and",
        ),
        (longformer.FAMILY, NEOBERT, {}, "encoder's embedding.position"),
        (roberta.FAMILY, LONGFORMER, {}, "encoder's layers.0.mixer.window and"),
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
        (eurobert.FAMILY, LLAMA, {}, "encoder's layers.0.mixer.causal"),
        (eurobert.FAMILY, BERT, {}, "encoder's layers.0.norm"),
        (eurobert.FAMILY, positioned(EUROBERT, Alibi()), {}, "encoder's layers.0.mixer.position"),
        (eurobert.FAMILY, EUROBERT, {"masked_lm": MaskedLmHead(transform=None, bias=False)}, "masked_lm head's tied"),
        (eurobert.FAMILY, EUROBERT, {"classifier": ClassifierHead(labels=2, pooling="max")}, "classifier head's pooling 'max'"),
        (llama.FAMILY, windowed(LLAMA, 3), {}, "encoder's layers.0.mixer.window"),
        (llama.FAMILY, biased(LLAMA), {}, "encoder's layers.0.mixer.out_bias"),
        (llama.FAMILY, normed(LLAMA), {}, "encoder's layers.0.mixer.qk_norm"),
        (llama.QWEN3_FAMILY, LLAMA, {}, "encoder's layers.0.mixer.qk_norm"),
        (llama.QWEN2_FAMILY, LLAMA, {}, "encoder's layers.0.mixer.bias"),
        (llama.FAMILY, LLAMA, {"classifier": ClassifierHead(labels=2)}, "classifier head;"),
        (bert.FAMILY, BERT, {"classifier": ClassifierHead(labels=2, pooling="late")}, "classifier head's pooling and"),
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
    """Its last stage at least, which is what is saved: an earlier one may read forwards alone."""
    made = RECIPES[name](TextFiles(paths=("texts",)), Steps(count=9), size)
    stages = made.runs if isinstance(made, Staged) else (made,)
    for run in [*(one for one in stages[:-1] if one.predicts == "masked"), stages[-1]]:
        family = next(one for one in FAMILIES if one.name == run.family)
        check_expressed(model_of(family, run.encoder, masked_lm=run.head))


def test_dropout_and_initialisation_are_no_part_of_a_trained_network() -> None:
    head = ClassifierHead(labels=2, transform=Transform(activation="tanh"), dropout=0.3, input_dropout=0.2)
    check_expressed(model_of(bert.FAMILY, with_layers(BERT, lambda layer: replace(layer, dropout=0.4)), classifier=head))
