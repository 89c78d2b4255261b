"""A student begins as layers of its teacher, bit for bit, and is saved like any model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import CONFIGS, HEADS, INNER, LONGEST, SIZE, VOCAB, random_batch, randomise

import bothways
from bothways.encoder.picking import spread_layers
from bothways.errors import InputError
from bothways.families import FAMILIES, bert, modernbert
from bothways.families.family import Heads, Spec
from bothways.layers.heads import ClassifierHead, Transform
from bothways.model.model import Model
from bothways.model.student import distilbert_of, student_of

_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": SIZE, "heads": HEADS, "intermediate_size": INNER, "max_length": LONGEST,
}  # fmt: skip


def teacher(num_layers: int = 12, **heads: Any) -> Model:
    encoder = bert.bert(**_SIZES, num_layers=num_layers)
    model = Model(bert.FAMILY, Spec(encoder=encoder, heads=Heads(masked_lm=bert.masked_lm_head(encoder), **heads)))
    randomise(model)
    return model


def test_a_distilbert_of_a_bert(tmp_path: Path) -> None:
    """Layers 0, 2, 4, 7, 9, 11; no token types and no pooler; the folder is read by transformers' own class."""
    from transformers import AutoModelForMaskedLM

    whole = teacher(pooler=Transform(activation="tanh"))
    student = distilbert_of(whole, spread_layers(12, 6))
    assert student.family.name == "distilbert"
    assert student.spec.heads.present() == {"masked_lm"}
    assert student.encoder.embedding.types is None
    for j, number in enumerate((0, 2, 4, 7, 9, 11)):
        theirs = whole.encoder.layers[number].state_dict()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in student.encoder.layers[j].state_dict().items())
    assert torch.equal(student.encoder.embedding.tokens.weight, whole.encoder.embedding.tokens.weight)
    assert all(parameter.requires_grad for parameter in student.parameters())
    theirs = AutoModelForMaskedLM.from_pretrained(student.save(tmp_path / "student")).eval()
    ids = random_batch([9]).ids
    with torch.no_grad():
        expected = theirs(ids[None]).logits[0]
        hidden = student.eval().encoder(random_batch([9])).hidden
    torch.testing.assert_close(student.masked_lm(hidden), expected, atol=1e-4, rtol=1e-4)


def test_a_student_of_its_teachers_family(tmp_path: Path) -> None:
    """Heads, token types and labels stay; its folder is read again as the same weights."""
    head = ClassifierHead(labels=3, pooling="cls", transform=Transform(activation="tanh"), dropout=0.1)
    whole = teacher(6).with_heads(Heads(classifier=head), labels=("a", "b", "c"), problem="single_label_classification")
    randomise(whole)
    student = student_of(whole, (0, 2, 5))
    assert student.spec.labels == ("a", "b", "c")
    state, other = student.state_dict(), whole.state_dict()
    for name, tensor in state.items():
        number = name.split(".")[2] if name.startswith("encoder.layers.") else None
        origin = name if number is None else name.replace(f"layers.{number}", f"layers.{(0, 2, 5)[int(number)]}", 1)
        assert torch.equal(tensor, other[origin])
        assert tensor.data_ptr() != other[origin].data_ptr()
    read = bothways.load(student.save(tmp_path / "student"), strict=True)
    assert all(torch.equal(tensor, state[name]) for name, tensor in read.state_dict().items())


def test_all_layers_are_the_teacher() -> None:
    whole = teacher(5)
    batch = random_batch([7, 3])
    assert torch.equal(student_of(whole, range(5)).encoder(batch).hidden, whole.encoder(batch).hidden)


@pytest.mark.parametrize("family", ["bert", "modernbert", "neobert", "mpnet", "deberta", "deberta-v2", "llama", "mosaicbert"])
def test_families_of_every_kind(family: str) -> None:
    """Every weight has its counterpart, and texts go through."""
    model = Model(next(one for one in FAMILIES if one.name == family), Spec(encoder=CONFIGS[family]))
    randomise(model)
    student = student_of(model, (0, 2, 4))
    assert student.spec.encoder.num_layers == 3
    assert student.eval().encoder(random_batch([6, 2])).hidden.isfinite().all()


def test_kinds_of_layers_stand_in_the_familys_order(tmp_path: Path) -> None:
    """A ModernBERT of the teacher's layers 0, 3 and 4 is global, local, local, and so is its folder."""
    encoder = modernbert.modernbert(**{**_SIZES, "num_layers": 6, "window": 4})
    model = Model(modernbert.FAMILY, Spec(encoder=encoder))
    randomise(model)
    student = student_of(model, (0, 3, 4))
    windows = [layer.config.mixer.window for layer in student.encoder.stack]  # type: ignore[union-attr]
    assert [window is None for window in windows] == [True, False, False]
    read = bothways.load(student.save(tmp_path / "student"))
    batch = random_batch([20])
    assert torch.equal(read.encoder(batch).hidden, student.eval().encoder(batch).hidden)


def test_a_distilbert_begins_as_a_bert() -> None:
    model = Model(next(one for one in FAMILIES if one.name == "neobert"), Spec(encoder=CONFIGS["neobert"]), name="mine")
    with pytest.raises(InputError, match=r"^mine is of the family neobert; a DistilBERT begins as a BERT's layers"):
        distilbert_of(model, (0, 2))
