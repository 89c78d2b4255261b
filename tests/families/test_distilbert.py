"""What is peculiar to DistilBERT: its dropouts, its table of positions, and what a student begins with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import references
from tests.builders import HEADS, INNER, LONGEST, SIZE, VOCAB, randomise
from tests.references import CASES

import bothways
from bothways.families import bert, distilbert
from bothways.families.convert import Reader
from bothways.families.family import Heads, Spec
from bothways.layers.heads import Transform
from bothways.layers.position import Learned
from bothways.model.model import Model

# distilbert-base-uncased, as published
PUBLISHED = {
    "activation": "gelu", "architectures": ["DistilBertForMaskedLM"], "attention_dropout": 0.1, "dim": 768, "dropout": 0.1,
    "hidden_dim": 3072, "initializer_range": 0.02, "max_position_embeddings": 512, "model_type": "distilbert", "n_heads": 12,
    "n_layers": 6, "pad_token_id": 0, "qa_dropout": 0.1, "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False,
    "tie_weights_": True, "transformers_version": "4.10.0.dev0", "vocab_size": 30522,
}  # fmt: skip
_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": SIZE, "heads": HEADS, "intermediate_size": INNER, "max_length": LONGEST,
}  # fmt: skip


def test_the_published_config_is_the_published_size() -> None:
    reader = Reader(PUBLISHED, "distilbert-base-uncased")
    assert distilbert.FAMILY.read(reader, ()).encoder == distilbert.SIZES["base"]
    assert not reader.unknown(distilbert.FAMILY.inert)


def test_the_usual_names_of_sizes_are_read_too() -> None:
    usual = {"dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
    reader = Reader({usual.get(key, key): value for key, value in {**PUBLISHED, "n_heads": 6, "n_layers": 3}.items()}, "config")
    encoder = distilbert.FAMILY.read(reader, ()).encoder
    assert (encoder.hidden_size, encoder.num_layers, encoder.layer(0).mixer.heads) == (768, 3, 6)
    assert not reader.unknown(distilbert.FAMILY.inert)


def test_dropout_acts_on_what_the_mlp_adds_alone() -> None:
    layer = distilbert.SIZES["base"].layer(0)
    assert (layer.mixer.out_dropout, layer.mlp.out_dropout, layer.mlp.dropout, layer.dropout) == (0.0, 0.1, 0.0, 0.0)
    config = distilbert.distilbert(**_SIZES, num_layers=1, dropout=0.5, attention_dropout=0.0)
    model = Model.create(distilbert.FAMILY, Spec(encoder=config))
    (one,) = model.encoder.stack
    x = torch.randn(50, SIZE)
    assert not torch.equal(one.mlp.train()(x), one.mlp(x))
    assert torch.equal(one.mlp.eval()(x), one.mlp(x))


@pytest.mark.parametrize("table", ["as stored", "as it began"])
def test_sinusoidal_positions_are_a_table_in_the_weights(table: str, tmp_path: Path) -> None:
    """It is read as it stands there, whatever it began as, and the config keeps saying so."""
    case = next(case for case in CASES if str(case) == "distilbert-masked_lm-sinusoidal")
    theirs: Any = references.build(case)
    if table == "as it began":
        import transformers

        theirs = transformers.DistilBertForMaskedLM(theirs.config)
    stored = theirs.distilbert.embeddings.position_embeddings.weight
    assert torch.allclose(stored[3, :2], torch.tensor([3.0]).sin().new_tensor([0.14112, -0.98999])) == (table == "as it began")
    model = bothways.load(references.save(theirs, tmp_path / "theirs"), strict=True)
    assert model.spec.encoder.embedding.position == Learned()
    assert torch.equal(model.encoder.embedding.positions.weight, stored)  # type: ignore[union-attr]
    assert json.loads((model.save(tmp_path / "ours") / "config.json").read_text())["sinusoidal_pos_embds"] is True


def test_a_student_begins_as_layers_of_its_teacher() -> None:
    encoder = bert.bert(**_SIZES, num_layers=12)
    heads = Heads(masked_lm=bert.masked_lm_head(encoder), pooler=Transform(activation="tanh"))
    teacher = Model(bert.FAMILY, Spec(encoder=encoder, heads=heads))
    randomise(teacher)
    small = distilbert.distilbert(**_SIZES)
    student = Model(distilbert.FAMILY, Spec(encoder=small, heads=replace(heads, pooler=None)))
    student.load_state_dict(distilbert.student(teacher.state_dict()))
    for j, number in enumerate((0, 2, 4, 7, 9, 11)):
        theirs = teacher.encoder.layers[number].state_dict()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in student.encoder.layers[j].state_dict().items())
    for name in ("encoder.embedding.tokens.weight", "encoder.embedding.norm.bias", "heads.masked_lm.transform.dense.weight"):
        assert torch.equal(student.get_parameter(name), teacher.get_parameter(name))
    # copies, not views: a student's step leaves its teacher alone
    with torch.no_grad():
        student.encoder.embedding.tokens.weight.zero_()
    assert teacher.encoder.embedding.tokens.weight.all()
