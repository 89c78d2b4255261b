"""What several families' folders have in common: what they refuse to hold, and what they read alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import bothways
from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.families import albert, bert, electra, ernie_gram, llama, longformer, m2bert, modernbert, mosaicbert, nomic, roberta
from bothways.families.convert import Reader
from bothways.families.family import Family, Heads, Spec
from bothways.layers.heads import ClassifierHead, MaskedLmHead, Transform
from bothways.layers.position import Rotary
from bothways.layers.scaling import Linear, Llama3, Scaling, Yarn
from bothways.model.extension import with_rotary
from bothways.model.model import Model
from bothways.recipes.finetuning import _classifier

SIZES: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 24, "num_layers": 2, "heads": 3, "intermediate_size": 20, "max_length": 16,
}  # fmt: skip
BERT, LLAMA = bert.bert(**SIZES), llama.llama(**SIZES, kv_heads=1, position=Rotary())
BEHIND_POOLER = ClassifierHead(labels=2, transform=Transform(activation="tanh"), dropout=0.1)
M2BERT = m2bert.m2bert(50, 8, 1, 16, 8, width=4)


def without_types(encoder: EncoderConfig) -> EncoderConfig:
    return replace(encoder, embedding=replace(encoder.embedding, token_types=0))


def edited(folder: Path, **changes: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("family", "encoder", "second"),
    [
        (bert.FAMILY, BERT, "next_sentence"),
        (albert.FAMILY, albert.albert(**SIZES, embedding_size=9), "sentence_order"),
        (ernie_gram.FAMILY, ernie_gram.ernie_gram(**SIZES), "next_sentence"),
    ],
)
def test_two_heads_on_one_pooler(family: Family, encoder: EncoderConfig, second: str, tmp_path: Path) -> None:
    """Their poolers are one tensor in the folder: equal ones are written, unequal ones are not."""
    heads: dict[str, Any] = {"classifier": BEHIND_POOLER, second: BEHIND_POOLER}
    model = Model.create(family, Spec(encoder=encoder, heads=Heads(**heads)))
    with pytest.raises(InputError, match=rf"heads\.classifier\..* and heads\.{second}\..* differ, but are one tensor") as error:
        model.save(tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
    model.heads[second].load_state_dict(model.heads["classifier"].state_dict())
    again = bothways.load(model.save(tmp_path / "out"))
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize(
    ("said", "bases"),
    [
        ({}, (160_000.0, 10_000.0)),
        ({"local_rope_theta": None}, (160_000.0, 160_000.0)),
        ({"local_rope_theta": None, "global_rope_theta": 7.0}, (7.0, 7.0)),
        ({"local_rope_theta": 5.0}, (160_000.0, 5.0)),
    ],
)
def test_a_null_base_of_modernberts_local_layers_is_the_global_one(said: dict[str, Any], bases: tuple[float, float]) -> None:
    """As in `transformers` 4, whose configs have these keys."""
    encoder = modernbert.FAMILY.read(Reader({"vocab_size": 50, **said}, "config.json"), ()).encoder
    positions = [mixer.position for mixer in encoder.attentions[:2]]
    assert all(isinstance(position, Rotary) for position in positions)
    assert tuple(position.theta for position in positions) == bases  # type: ignore[union-attr]


def test_a_null_base_of_modernberts_global_layers_is_refused() -> None:
    with pytest.raises(InputError, match="global_rope_theta=None is not supported"):
        modernbert.FAMILY.read(Reader({"vocab_size": 50, "global_rope_theta": None}, "config.json"), ())


@pytest.mark.parametrize(
    ("family", "encoder"),
    [
        (bert.FAMILY, BERT),
        (roberta.FAMILY, roberta.roberta(**SIZES)),
        (albert.FAMILY, albert.albert(**SIZES, embedding_size=9)),
        (electra.FAMILY, electra.electra(**SIZES, embedding_size=9)),
        (mosaicbert.FAMILY, mosaicbert.mosaicbert(**SIZES)),
        (nomic.FAMILY, nomic.nomic(**SIZES)),
        (longformer.FAMILY, longformer.longformer(**SIZES, windows=4)),
        (m2bert.FAMILY, M2BERT),
    ],
)
def test_no_token_types_where_the_class_needs_one(family: Family, encoder: EncoderConfig, tmp_path: Path) -> None:
    pad_id = int(family in (roberta.FAMILY, longformer.FAMILY))
    model = Model.create(family, Spec(encoder=without_types(encoder), pad_id=pad_id))
    with pytest.raises(InputError, match="type_vocab_size=0 is not supported"):
        model.save(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    folder = Model.create(family, Spec(encoder=encoder, pad_id=pad_id)).save(tmp_path / "some")
    with pytest.raises(InputError, match=r"config\.json: type_vocab_size=0 is not supported"):
        bothways.load(edited(folder, type_vocab_size=0))


def test_a_family_without_classifiers_is_not_fine_tuned() -> None:
    with pytest.raises(InputError, match="this model is of the family 'llama', whose folders hold no classifier"):
        _classifier(Model.create(llama.FAMILY, Spec(encoder=LLAMA)), 3)


def test_a_fresh_classifier_of_m2bert_is_saved_and_read(tmp_path: Path) -> None:
    """As its config without a classifier has it: the first token as it is, with no transform before the classes."""
    model = Model.create(m2bert.FAMILY, Spec(encoder=M2BERT))
    head = _classifier(model, 3)
    assert head.transform is None
    folder = model.with_heads(Heads(classifier=head), labels=("a", "b", "c")).save(tmp_path)
    assert bothways.load(folder).spec.heads.classifier == head


@pytest.mark.parametrize("kind", ["LlamaForTokenClassification", "LlamaForQuestionAnswering"])
def test_a_tied_decoder_under_another_head_has_no_vocabulary_head(kind: str, tmp_path: Path) -> None:
    model = Model.create(llama.FAMILY, Spec(encoder=LLAMA, heads=Heads(masked_lm=MaskedLmHead(transform=None, bias=False))))
    folder = edited(model.save(tmp_path), architectures=[kind])
    save_file(load_file(folder / "model.safetensors") | {"score.weight": torch.zeros(3, 24)}, folder / "model.safetensors")
    with pytest.warns(UserWarning, match=r"the encoder is read without score\.weight"):
        again = bothways.load(folder)
    assert not again.heads
    assert all(torch.equal(one, model.encoder.state_dict()[name]) for name, one in again.encoder.state_dict().items())


@pytest.mark.parametrize(
    "scaling", [Yarn(factor=4.0, original_length=32), Llama3(factor=4.0, original_length=32), Linear(factor=2.0)]
)
def test_an_older_original_length_beside_the_parameters_is_written_anew(scaling: Scaling, tmp_path: Path) -> None:
    """Outside of `rope_parameters` it wins, here and in `transformers`."""
    scaled = llama.llama(**SIZES, kv_heads=1, position=Rotary(scaling=Yarn(factor=2.0, original_length=16)))
    folder = edited(Model.create(llama.FAMILY, Spec(encoder=scaled)).save(tmp_path / "old"), original_max_position_embeddings=16)
    longer = with_rotary(bothways.load(folder), scaling=scaling, max_length=128)
    again = bothways.load(longer.save(tmp_path / "new"))
    assert again.spec.encoder.attentions[0].position == Rotary(scaling=scaling)


@pytest.mark.parametrize("problem", [None, "regression"])
def test_the_kind_of_a_classifier_that_was_loaded_is_not_kept(problem: Any, tmp_path: Path) -> None:
    spec = Spec(encoder=BERT, heads=Heads(classifier=BEHIND_POOLER), labels=("a", "b"), problem="multi_label_classification")
    model = bothways.load(Model.create(bert.FAMILY, spec).save(tmp_path / "old"))
    other = model.with_heads(model.spec.heads, problem=problem, labels=())
    again = bothways.load(other.save(tmp_path / "new")).spec
    assert (again.problem, again.labels) == (problem, ("LABEL_0", "LABEL_1"))


def test_fresh_heads_are_where_the_encoder_is_and_of_its_kind() -> None:
    for model in (
        Model.create(bert.FAMILY, Spec(encoder=BERT)).bfloat16(),
        Model.create(bert.FAMILY, Spec(encoder=BERT)).to("meta"),
    ):
        table = model.encoder.embedding.tokens.weight
        fresh = model.with_heads(Heads(classifier=BEHIND_POOLER)).heads["classifier"]
        assert {(one.device, one.dtype) for one in fresh.parameters()} == {(table.device, table.dtype)}


@pytest.mark.parametrize("name", ["classifier", "next_sentence", "sentence_order"])
def test_a_global_first_token_without_global_tokens_is_refused(name: str) -> None:
    heads: dict[str, Any] = {name: replace(BEHIND_POOLER, global_first=True)}
    with pytest.raises(InputError, match="global_first: no layer of this encoder has global tokens"):
        Model.create(bert.FAMILY, Spec(encoder=BERT, heads=Heads(**heads)))
