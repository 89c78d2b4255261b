"""What compares insides: by hand, beside transformers, and between models of different shape."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests import references
from tests.builders import CONFIGS, HEADS, SIZE, gap, random_batch, randomise
from tests.objectives.distillation.sides import distillation, model, samples
from tests.references import CASES
from torch import Tensor

import bothways
from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.families.bert import bert
from bothways.objectives.distillation import relations
from bothways.objectives.distillation.methods import MiniLm, MiniLmV2, TinyBert
from bothways.objectives.distillation.relations import LastAttention, LastRelations, LayerScores
from bothways.objectives.distillation.teacher import Reading, Teacher
from bothways.objectives.distillation.term import matched_layers
from bothways.objectives.distillation.terms import build_terms
from bothways.ragged import Ragged

LENGTHS = [6, 1, 0, 11, 6]


def reading(name: str, layers: int, seed: int = 0) -> Reading:
    return read(replace(CONFIGS[name], num_layers=layers), seed)


def read(config: EncoderConfig, seed: int = 0) -> Reading:
    encoder = Encoder(config)
    randomise(encoder, seed).eval()
    return Reading(encoder, encoder(random_batch(LENGTHS), keep=True))


def small(hidden_size: int, heads: int, num_layers: int = 2) -> EncoderConfig:
    return bert(
        101,
        hidden_size,
        num_layers=num_layers,
        heads=heads,
        intermediate_size=8,
        max_length=32,
        dropout=0.0,
        attention_dropout=0.0,
    )


def thirds(side: Reading, layer: int, heads: int = HEADS) -> Tensor:
    """A post-norm layer's queries, keys and values, [tokens, 3, heads, size], from what entered it."""
    return side.encoder.stack[layer].mixer.qkv(side.encoded.layers[layer]).unflatten(1, (3, heads, -1))  # type: ignore[operator]


def dense(x: Tensor, y: Tensor) -> Tensor:
    return torch.einsum("qhs,khs->hqk", x, y) / math.sqrt(x.shape[2])


def divergence(student: Tensor, teacher: Tensor, first: int, second: int) -> Tensor:
    """KL of the softmax between two of the `thirds`, in every text: the mean over heads, the sum over tokens."""
    total = torch.zeros(())
    for rows in torch.arange(24).split(LENGTHS):
        q, p = (dense(one[rows, first], one[rows, second]).softmax(dim=2) for one in (student, teacher))
        total = total + (p * (p / q).log()).sum() / len(p)
    return total


def test_the_last_layers_attention_is_that_of_transformers(tmp_path: Path) -> None:
    """KL of the probabilities that the reference gives out, padded there; the mean over heads, the sum over tokens."""
    case = next(one for one in CASES if str(one) == "bert-bare")
    student, teacher = (references.build(case, attention="eager").eval() for _ in range(2))
    randomise(teacher, seed=3)
    sides, expected = [], []
    for number, one in enumerate((student, teacher)):
        ours = bothways.load(references.save(one, tmp_path / str(number)), device="cpu")
        batch = random_batch(LENGTHS)
        sides.append(Reading(ours.encoder, ours.encoder(batch, keep=True)))
        with torch.no_grad():
            expected.append(
                [one(row[None], output_attentions=True).attentions[-1][0] for row in batch.ids.split(LENGTHS) if len(row)]
            )
    by_hand = sum((p * (p.log() - q.log())).sum() / HEADS for q, p in zip(*expected, strict=True))
    term = LastAttention(MiniLm(values=0.0), sides[0].encoder.config, sides[1].encoder.config)
    found = term(*sides)
    assert isinstance(by_hand, Tensor)
    assert found.keys() == {"attention"}
    assert gap(found["attention"], by_hand) <= 1e-4
    assert term.counts(random_batch(LENGTHS).ragged) == {"attention": 24}


def test_scores_by_hand() -> None:
    """TinyBERT's: every pair of every text, the mean over heads, from queries and keys that are read out of the layers."""
    student, teacher = reading("bert", 2), reading("bert", 4, seed=1)
    expected = torch.zeros(())
    for i, number in enumerate((1, 3)):
        sides = thirds(student, i), thirds(teacher, number)
        for rows in torch.arange(24).split(LENGTHS):
            scores = [dense(one[rows, 0], one[rows, 1]) for one in sides]
            expected = expected + ((scores[0] - scores[1]) ** 2).sum() / HEADS
    term = LayerScores(TinyBert(), student.encoder.config, teacher.encoder.config)
    assert term.layers == (1, 3)
    found = term(student, teacher)["attention"]
    assert gap(found, expected) <= 1e-5
    # squares are made again on the way back: of each layer, not of the last one
    weights = [layer.mixer.qkv.weight for layer in student.encoder.stack]  # type: ignore[union-attr]
    pairs = zip(torch.autograd.grad(found, weights, retain_graph=True), torch.autograd.grad(expected, weights), strict=True)
    assert all(gap(ours, theirs) <= 1e-5 for ours, theirs in pairs)
    assert term.counts(student.encoded.ragged) == {"attention": 36 + 1 + 121 + 36}


def test_hidden_states_by_hand() -> None:
    """The embedding and each layer with its like, through one projection."""
    task = distillation(model("bert", 2), model("bert", 4, seed=1), TinyBert(attention=0.0))
    inputs = task.prepare(samples(LENGTHS), 0, 0)
    ours, theirs = (one(inputs.batch, keep=True).layers for one in (task.encoder, task.teacher.encoder))
    projection = task.terms[0].projection
    pairs = ((0, 0), (1, 2), (2, 4))
    expected = sum(((projection(ours[i]) - theirs[j]) ** 2).mean(1).sum() for i, j in pairs)  # type: ignore[operator]
    assert gap(task(inputs)["hidden"], expected) <= 1e-5  # type: ignore[arg-type]
    assert task.counts(inputs) == {"hidden": 24}


def test_relations_by_hand() -> None:
    """Two tokens, one relation head of one feature: V = (0, 1) of the teacher, (0, 0) of the student."""
    zero = torch.zeros(2, 1, 1)
    one = torch.tensor([0.0, 1.0]).reshape(2, 1, 1)
    # the first token's row is uniform on both sides, the second's is softmax(0, 1) of the teacher
    p = math.e / (1 + math.e)
    expected = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    assert relations._related(Ragged.of([2]), zero, one).item() == pytest.approx(expected, rel=1e-5)
    assert relations._related(Ragged.of([1, 1]), zero, one).item() == pytest.approx(0, abs=1e-7)  # apart, they have no relation


@pytest.mark.parametrize("name", ["queries", "keys", "values"])
def test_each_relation_is_its_own(name: str) -> None:
    """A teacher whose values alone differ differs in the relation of values alone; so for queries and keys."""
    student, teacher = reading("bert", 2), reading("bert", 2)
    rows = dict(zip(("queries", "keys", "values"), torch.arange(3 * SIZE).split(SIZE), strict=True))[name]
    mixer = teacher.encoder.stack[1].mixer
    with torch.no_grad():
        mixer.qkv.weight[rows] *= 2  # type: ignore[union-attr, index]
    sums = LastRelations(MiniLmV2(relation_heads=6), student.encoder.config, teacher.encoder.config)(student, teacher)
    assert {key for key, value in sums.items() if value.item() > 1e-3} == {name}


def test_widths_may_differ() -> None:
    """Reference check A8, by hand: MiniLM between 24 features and 12, in three heads each, on either side."""
    one, other = read(small(24, 3)), read(small(12, 3, num_layers=3), seed=1)
    for student, teacher in ((one, other), (other, one)):
        (term,) = build_terms(MiniLm(), student.encoder.config, teacher.encoder.config)
        ours, theirs = (thirds(side, side.encoder.config.num_layers - 1) for side in (student, teacher))
        sums = term(student, teacher)
        assert sums.keys() == {"attention", "values"}
        assert gap(sums["attention"], divergence(ours, theirs, 0, 1)) <= 1e-5
        assert gap(sums["values"], divergence(ours, theirs, 2, 2)) <= 1e-5


def test_widths_and_heads_may_differ() -> None:
    """MiniLMv2 between 24 features in three heads and 16 in two, on either side: by hand, of both in four."""
    one, other = read(small(24, 3)), read(small(16, 2, num_layers=3), seed=1)
    for student, teacher in ((one, other), (other, one)):
        (term,) = build_terms(MiniLmV2(relation_heads=4), student.encoder.config, teacher.encoder.config)
        ours, theirs = (thirds(side, side.encoder.config.num_layers - 1, heads=4) for side in (student, teacher))
        sums = term(student, teacher)
        assert sums.keys() == term.weights.keys() == {"queries", "keys", "values"}
        for number, name in enumerate(("queries", "keys", "values")):
            assert gap(sums[name], divergence(ours, theirs, number, number)) <= 1e-5, name
    with pytest.raises(InputError, match="relation_heads: 3 does not divide 16, the features of the teacher's heads"):
        build_terms(MiniLmV2(relation_heads=3), one.encoder.config, other.encoder.config)


def test_the_chosen_layer_of_the_teacher() -> None:
    student, teacher = reading("bert", 2), reading("bert", 4, seed=1)
    configs = student.encoder.config, teacher.encoder.config
    last, same, upper = (
        LastRelations(MiniLmV2(relation_heads=3, teacher_layer=layer), *configs)(student, teacher)["values"]
        for layer in (None, 3, 2)
    )
    assert torch.equal(last, same)
    assert not torch.equal(last, upper)
    with pytest.raises(InputError, match="teacher_layer: 4, but the teacher's layers are 0 to 3"):
        LastRelations(MiniLmV2(relation_heads=3, teacher_layer=4), *configs)


def test_the_map_of_layers() -> None:
    twelve, six, four = (small(24, 3, layers) for layers in (12, 6, 4))
    assert matched_layers(four, twelve, None) == (2, 5, 8, 11)
    assert matched_layers(six, twelve, None) == (1, 3, 5, 7, 9, 11)
    assert matched_layers(six, six, None) == (0, 1, 2, 3, 4, 5)
    assert matched_layers(four, twelve, (0, 1, 10, 11)) == (0, 1, 10, 11)
    for wrong in ((0, 1, 2), (0, 1, 2, 12)):
        with pytest.raises(InputError, match="4 numbers are needed, each below 12"):
            matched_layers(four, twelve, wrong)


def test_what_cannot_be_compared() -> None:
    three, two = small(24, 3), small(24, 2)
    with pytest.raises(InputError, match="the student has 2 heads, the teacher 3"):
        build_terms(TinyBert(), two, three)
    with pytest.raises(InputError, match=r"the student has 2 heads, the teacher 3.*choose minilm_v2"):
        build_terms(MiniLm(), two, three)
    assert len(build_terms(TinyBert(attention=0.0), two, three)) == 1
    with pytest.raises(InputError, match="see other tokens; choose minilm_v2"):
        build_terms(MiniLm(), CONFIGS["modernbert"], CONFIGS["bert"])  # its last layer has a window
    with pytest.raises(InputError, match="the student's layer 0 has no attention"):
        build_terms(TinyBert(), CONFIGS["m2_bert"], CONFIGS["bert"])


def test_hidden_pairs_count_as_nothing() -> None:
    """Scores outside a window are 0 on that side, so two windowed layers differ in nothing there."""
    one = reading("modernbert", 2)
    term = LayerScores(TinyBert(), one.encoder.config, one.encoder.config)
    assert term(one, one)["attention"].item() == 0
    far = reading("bert", 2)
    mixed = LayerScores(TinyBert(), one.encoder.config, far.encoder.config)(one, far)["attention"]
    assert mixed.isfinite()


def test_a_teacher_reads_where_the_batch_is() -> None:
    whole = model("bert", 2)
    read = Teacher(whole).read(random_batch(LENGTHS))
    assert len(read.encoded.layers) == 3
    assert not read.encoded.hidden.requires_grad
