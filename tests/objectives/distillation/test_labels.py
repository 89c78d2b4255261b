"""Soft labels: by hand, aligned with their rows, and beside hints of the teacher's inside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import CONFIGS, HEADS, INNER, SIZE, gap, random_ids, randomise, tiny_encoder
from tests.objectives.distillation.sides import model

from bothways.data.sample import Sample
from bothways.data.table import LabelledRows, SingleText
from bothways.data.tokenizer_training import WordPiece, train_tokenizer
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.families.bert import FAMILY, bert
from bothways.families.family import Heads, Spec
from bothways.layers.heads import Classifier, ClassifierHead, Transform
from bothways.model.model import Model
from bothways.objectives.classification import SequenceClassification
from bothways.objectives.distillation.labels import LabelledDistillation, SoftLabels
from bothways.objectives.distillation.methods import MiniLmV2, TinyBert
from bothways.objectives.distillation.teacher import Teacher
from bothways.ragged import Batch
from bothways.recipes.distilling_tasks import teacher_logits

LABELS, ROWS = 3, 8
LOGITS = np.random.default_rng(3).normal(size=(ROWS, LABELS)).astype(np.float32)


def task(
    soft: SoftLabels, logits: np.ndarray = LOGITS, hints: TinyBert | MiniLmV2 | None = None, regression: bool = False
) -> LabelledDistillation:
    head = Classifier(ClassifierHead(labels=1 if regression else LABELS, transform=Transform(activation="tanh")), SIZE)
    randomise(head, seed=1)
    teacher = Teacher(model("modernbert", 4, seed=1)) if hints else None
    made = LabelledDistillation(tiny_encoder("bert", layers=2), head, logits, soft, regression, teacher, hints)
    randomise(made.terms, seed=5)
    return made.eval()


def samples(lengths: list[int]) -> list[Sample]:
    return [Sample(id=i, sequences=(ids,), label=i % LABELS) for i, ids in enumerate(random_ids(lengths))]


TASKS = {
    "kl": task(SoftLabels()),
    "squared": task(SoftLabels(compare="squared")),
    "soft-alone": task(SoftLabels(hard=0.0)),
    "tinybert": task(SoftLabels(), hints=TinyBert()),
    "minilm_v2": task(SoftLabels(soft=0.0, hard=0.0), hints=MiniLmV2(relation_heads=4)),
    "regression": task(SoftLabels(), LOGITS[:, :1], regression=True),
}
tasks = pytest.mark.parametrize("name", TASKS)


@tasks
@settings(max_examples=4)
@given(lengths=st.lists(st.integers(1, 14), min_size=1, max_size=ROWS), random=st.randoms(use_true_random=False))
def test_packed_is_alone_in_any_order(name: str, lengths: list[int], random: object) -> None:
    """Each row meets its own logits, in whatever company."""
    one, rows = TASKS[name], samples(lengths)
    if one.regression:
        rows = [replace(row, label=float(row.id)) for row in rows]
    shuffled = random.sample(rows, len(rows))  # type: ignore[attr-defined]
    packed, mixed = (one.prepare(some, 0, 0) for some in (rows, shuffled))
    alone = [one.prepare([row], 0, 0) for row in rows]
    sums = one(packed)
    assert sums.keys() == one.counts(packed).keys() >= one.weights.keys()
    for key, total in sums.items():
        apart = torch.stack([one(part)[key] for part in alone]).sum()
        assert abs(total.item() - apart.item()) <= 2e-5 * max(1.0, abs(apart.item())), key
        assert abs(one(mixed)[key].item() - apart.item()) <= 2e-5 * max(1.0, abs(apart.item())), key
        assert one.counts(packed)[key] == sum(one.counts(part)[key] for part in alone)


@pytest.mark.parametrize(("student", "teacher"), [(0, 2), (2, 1), (2, 2), (1, 0)])
def test_each_side_reads_pairs_by_its_own_token_types(student: int, teacher: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DistilBERT of a BERT has none, and its teacher's inside is that of the types which it learned its task with."""
    bert = CONFIGS["bert"]
    encoder, other = (
        randomise(Encoder(replace(bert, num_layers=2, embedding=replace(bert.embedding, token_types=types))), seed).eval()
        for seed, types in enumerate((student, teacher))
    )
    whole = model("bert", 2, seed=1)
    whole.encoder = other  # type: ignore[assignment]
    head = TASKS["kl"].head
    one = LabelledDistillation(encoder, head, LOGITS, SoftLabels(), False, Teacher(whole), MiniLmV2(relation_heads=4)).eval()  # type: ignore[arg-type]
    rows = [replace(row, types=(np.arange(len(row.sequences[0])) // 3 % 2,)) for row in samples([6, 9])]
    seen: list[Batch] = []
    forward = other.forward
    monkeypatch.setattr(other, "forward", lambda batch, keep=False: seen.append(batch) or forward(batch, keep))
    inputs = one.prepare(rows, 0, 0)
    one(inputs)
    expected = np.concatenate([row.types[0] for row in rows if row.types]) if teacher > 1 else None
    assert (None if seen[0].types is None else seen[0].types.tolist()) == (None if expected is None else expected.tolist())
    plain = LabelledDistillation(encoder, head, LOGITS, SoftLabels()).eval()  # type: ignore[arg-type]
    assert torch.equal(one(inputs)["soft"], plain(plain.prepare(rows, 0, 0))["soft"])


def test_logits_belong_to_their_rows() -> None:
    """Permuted logits are another loss: the rows are told apart by their numbers, not by their places."""
    rows = samples([5, 9, 3, 7, 4, 4, 8, 6])
    order = np.random.default_rng(0).permutation(ROWS)
    straight, crossed = task(SoftLabels(hard=0.0)), task(SoftLabels(hard=0.0), LOGITS[order])
    inputs = straight.prepare(rows, 0, 0)
    assert inputs.batch.samples is not None
    assert torch.equal(inputs.logits, torch.from_numpy(LOGITS[list(inputs.batch.samples)]))
    assert gap(crossed(crossed.prepare(rows, 0, 0))["soft"], straight(inputs)["soft"]) > 0.05
    with pytest.raises(InputError, match="sample 8: the teacher's logits are of 8 rows"):
        straight.prepare([replace(rows[0], id=8)], 0, 0)


def test_a_teacher_left_in_training_says_the_same() -> None:
    """Reference check A8: it is asked in evaluation mode, whatever dropout it learned with."""
    texts, names = ("the tide comes in", "a ship", "the captain waits for the ship"), ("land", "sea")
    tokenizer = train_tokenizer(WordPiece(vocab_size=80), texts)
    encoder = bert(
        tokenizer.vocab_size, SIZE, num_layers=2, heads=HEADS, intermediate_size=INNER, max_length=32,
        dropout=0.5, attention_dropout=0.5,
    )  # fmt: skip
    spec = Spec(encoder=encoder, heads=Heads(classifier=ClassifierHead(labels=2, dropout=0.5)), labels=names)
    teacher = Model(FAMILY, spec, tokenizer)
    randomise(teacher)
    rows = LabelledRows(SingleText(), tuple((text,) for text in texts), ("sea",) * 3, ("",) * 3)
    evaluated, left = (teacher_logits(teacher.train(training), rows, names, regression=False) for training in (False, True))
    assert np.array_equal(left, evaluated)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_soft_loss_is_t_squared_kl(temperature: float) -> None:
    one = task(SoftLabels(temperature=temperature))
    inputs = one.prepare(samples([5, 9, 3]), 0, 0)
    encoded = one.encoder(inputs.batch)
    q = (one.head(encoded.hidden, encoded.ragged) / temperature).softmax(1)
    p = (inputs.logits / temperature).softmax(1)
    assert gap(one(inputs)["soft"], (p * (p / q).log()).sum() * temperature**2) <= 1e-5
    plain = SequenceClassification(one.encoder, one.head)
    assert torch.equal(one(inputs)["hard"], plain(inputs.labelled)["loss"])
    assert torch.equal(one(inputs)["accuracy"], plain(inputs.labelled)["accuracy"])


def test_a_student_that_says_the_same_has_no_soft_loss() -> None:
    rows = samples([5, 9, 3, 7, 4, 4, 8, 6])
    first = task(SoftLabels())
    inputs = first.prepare(rows, 0, 0)
    encoded = first.encoder(inputs.batch)
    said = np.empty_like(LOGITS)
    assert inputs.batch.samples is not None
    said[list(inputs.batch.samples)] = first.head(encoded.hidden, encoded.ragged).detach().numpy()
    for soft in (SoftLabels(), SoftLabels(compare="squared")):
        same = task(soft, said)
        assert same(same.prepare(rows, 0, 0))["soft"].item() == pytest.approx(0, abs=1e-5)


def test_squares_are_summed_over_the_classes() -> None:
    one = task(SoftLabels(compare="squared"))
    inputs = one.prepare(samples([5, 9]), 0, 0)
    encoded = one.encoder(inputs.batch)
    assert gap(one(inputs)["soft"], ((one.head(encoded.hidden, encoded.ragged) - inputs.logits) ** 2).sum()) <= 1e-5
    assert one.counts(inputs)["soft"] == 2


def test_what_contradicts_itself() -> None:
    with pytest.raises(InputError, match=r"the teacher's logits are \[8, 2\], the student has 3 outputs"):
        task(SoftLabels(), LOGITS[:, :2])
    with pytest.raises(InputError, match="all weights are 0"):
        task(SoftLabels(soft=0.0, hard=0.0))
    with pytest.raises(InputError, match=r"tinybert.masked_lm: 1.0, but rows with labels have no masked tokens"):
        task(SoftLabels(), hints=TinyBert(masked_lm=1.0))
    with pytest.raises(InputError, match="comparing insides needs the teacher itself"):
        LabelledDistillation(tiny_encoder("bert", layers=2), TASKS["kl"].head, LOGITS, SoftLabels(), hints=TinyBert())


def test_weights_of_nothing_are_not_computed() -> None:
    assert TASKS["soft-alone"].weights.keys() == {"soft"}
    inputs = TASKS["soft-alone"].prepare(samples([5]), 0, 0)
    assert TASKS["soft-alone"](inputs).keys() == {"soft", "accuracy"}


def test_work_is_counted() -> None:
    with_hints, without = TASKS["tinybert"], TASKS["kl"]
    inputs = without.prepare(samples([5, 9]), 0, 0)
    assert with_hints.teacher is not None
    theirs = with_hints.teacher.encoder.flops(inputs.batch.ragged)
    assert with_hints.flops(inputs) == pytest.approx(without.flops(inputs) + theirs / 3)
