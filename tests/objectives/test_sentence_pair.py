"""The second task: both losses and all gradients beside `transformers`, the laws of sums, folders that load there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import references
from tests.builders import CONFIGS, SIZE, VOCAB, gap, random_ids, randomise, tiny_encoder
from tests.references import CASES, Case
from torch import Tensor

import bothways
from bothways.data.masking import BERT, Vocabulary
from bothways.data.sample import Sample
from bothways.errors import InputError
from bothways.families.convert import expand, to_theirs
from bothways.layers.heads import Classifier, ClassifierHead, MaskedLm, MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.model.model import Model
from bothways.objectives.decoded_lm import DecodedLanguageModeling, GradualUnmasking
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.objectives.sentence_pair import PairedInputs, PairedLanguageModeling

VOCABULARY = Vocabulary(VOCAB, 4, frozenset(range(5)))
PUBLISHED = {"bert": "next_sentence", "albert": "sentence_order"}
PRETRAINING = [case for case in CASES if case.head == "pretraining" and case.family in PUBLISHED]


def samples(lengths: list[int]) -> list[Sample]:
    rows = random_ids(lengths)
    return [
        Sample(
            id=i, sequences=(ids.astype(np.int32),), types=((np.arange(len(ids)) >= len(ids) // 2).astype(np.int32),), label=i % 2
        )
        for i, ids in enumerate(rows)
    ]


def objective(name: str, weight: float = 1.0) -> PairedLanguageModeling:
    head = MaskedLm(MaskedLmHead(transform=Transform(norm=LayerNorm())), SIZE, VOCAB, CONFIGS[name].embedding.size)
    second = Classifier(ClassifierHead(labels=2, transform=Transform(activation="tanh")), SIZE)
    randomise(head, seed=1)
    randomise(second, seed=2)
    masked = MaskedLanguageModeling(tiny_encoder(name, layers=2), head, BERT, VOCABULARY)
    return PairedLanguageModeling(masked, second, "next_sentence", weight).eval()


@pytest.fixture(autouse=True)
def _two_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """ALBERT's second head has as many outputs as its config has labels."""
    monkeypatch.setattr(references, "LABELS", 2)


def of_model(model: Model, name: str) -> PairedLanguageModeling:
    head, second = model.heads["masked_lm"], model.heads[name]
    assert isinstance(head, MaskedLm)
    assert isinstance(second, Classifier)
    return PairedLanguageModeling(MaskedLanguageModeling(model.encoder, head, BERT, VOCABULARY), second, name).eval()


def their_losses(theirs: Any, name: str, inputs: PairedInputs) -> tuple[Tensor, Tensor]:
    """What their class makes of the same batch, a padded row for each sequence: both losses."""
    masked: Any = inputs.masked
    lengths = masked.batch.ragged.lengths
    labels = torch.full((masked.tokens,), -100)
    labels[masked.rows] = masked.labels
    types = masked.batch.types
    assert types is not None

    def rows(values: Tensor, pad: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(values.split(list(lengths))), batch_first=True, padding_value=pad)

    given = {"input_ids": rows(masked.batch.ids, 0), "token_type_ids": rows(types, 0), "labels": rows(labels, -100)}
    given["attention_mask"] = rows(torch.ones_like(masked.batch.ids), 0)
    key = {"next_sentence": "next_sentence_label", "sentence_order": "sentence_order_label"}[name]
    whole = theirs(**given, **{key: inputs.labels})
    second = torch.nn.functional.cross_entropy(
        whole["seq_relationship_logits" if name == "next_sentence" else "sop_logits"], inputs.labels
    )
    assert torch.allclose(
        whole.loss, torch.nn.functional.cross_entropy(whole.prediction_logits.flatten(0, 1), given["labels"].flatten()) + second
    )
    return whole.loss, second


def means(task: PairedLanguageModeling, inputs: PairedInputs) -> dict[str, Tensor]:
    sums, counts = task(inputs), task.counts(inputs)
    return {name: sums[name] / counts[name] for name in task.weights}


@pytest.mark.parametrize("case", PRETRAINING, ids=str)
def test_losses_and_gradients_are_theirs(case: Case, tmp_path: Path) -> None:
    """BertForPreTraining's and AlbertForPreTraining's loss is the sum of both, and every gradient of it is ours."""
    name = PUBLISHED[case.family]
    theirs = references.build(case).double()
    model = bothways.load(references.save(theirs, tmp_path), dtype=torch.float64, strict=True)
    task = of_model(model, name)
    inputs = task.prepare(samples([9, 30, 17, 4]), 0, 0)
    expected, second = their_losses(theirs, name, inputs)
    ours = means(task, inputs)
    assert gap(ours[f"{name}/loss"], second) <= 1e-6
    loss = torch.stack([weight * ours[term] for term, weight in task.weights.items()]).sum()
    assert gap(loss, expected) <= 1e-6
    expected.backward()
    loss.backward()
    rules = expand(model.family.rules(model.spec, model.family.prefix), model.spec.encoder.num_layers)
    own = {key: torch.zeros_like(tensor) for key, tensor in model.state_dict().items()}
    own |= {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    found = to_theirs(rules, own, ties=True)
    wanted = references.published(case, theirs, {key: p.grad for key, p in theirs.named_parameters() if p.grad is not None})
    largest = torch.stack([gradient.abs().max() for gradient in wanted.values()]).max()
    assert len(wanted) > 20
    for key, gradient in wanted.items():
        assert gap(found[key], gradient, largest) <= 1e-6, key


@pytest.mark.parametrize("case", PRETRAINING, ids=str)
def test_a_trained_folder_loads_there_with_equal_numbers(case: Case, tmp_path: Path) -> None:
    """After steps of ours, saved by us and read by them: the same two losses."""
    name = PUBLISHED[case.family]
    model = bothways.load(references.save(references.build(case), tmp_path / "theirs"), strict=True)
    task = of_model(model, name)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.01)
    for epoch in range(2):
        loss = torch.stack(list(means(task, task.prepare(samples([9, 30, 17, 4]), 0, epoch)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    theirs = references.reload(case, model.save(tmp_path / "ours"))
    inputs = task.prepare(samples([9, 30, 17, 4]), 0, 9)
    with torch.no_grad():
        expected, second = their_losses(theirs, name, inputs)
        ours = means(task, inputs)
    assert gap(ours[f"{name}/loss"], second) <= 1e-4
    assert gap(ours["loss"] + ours[f"{name}/loss"], expected) <= 1e-4


@pytest.mark.parametrize("name", ["bert", "modernbert", "deberta", "m2_bert"])
def test_sums_of_a_batch_are_those_of_its_samples(name: str) -> None:
    task, given = objective(name), samples([9, 30, 17, 4, 9])
    packed, alone = task.prepare(given, 0, 0), [task.prepare([one], 0, 0) for one in given]
    sums = task(packed)
    assert sums.keys() == task.counts(packed).keys()
    for key, total in sums.items():
        assert gap(total.float(), torch.stack([task(one)[key].float() for one in alone]).sum()) <= 1e-5
        assert task.counts(packed)[key] == sum(task.counts(one)[key] for one in alone)


def test_the_first_task_is_plain_masked_language_modelling() -> None:
    """Its sums are those of the objective it is made of; the second head changes none of them."""
    task = objective("bert")
    inputs = task.prepare(samples([9, 30]), 0, 0)
    alone = task.masked(inputs.masked)
    both = task(inputs)
    assert {key: value.item() for key, value in both.items() if key in alone} == {key: one.item() for key, one in alone.items()}
    assert both.keys() - alone.keys() == {"next_sentence/loss", "next_sentence/accuracy"}


def test_masks_and_types() -> None:
    """Masked as without pairs (their labels change nothing), never a special token; types where the encoder has them."""
    task, given = objective("bert"), samples([9, 30, 17])
    inputs = task.prepare(given, 0, 0)
    plain = task.masked.prepare(given, 0, 0)
    made: Any = inputs.masked
    assert torch.equal(made.rows, plain.rows)
    assert torch.equal(inputs.masked.batch.ids, plain.batch.ids)
    assert inputs.labels.tolist() == [0, 1, 0]
    assert inputs.masked.batch.types is not None
    assert inputs.masked.batch.types.tolist() == [i >= n // 2 for n in (9, 30, 17) for i in range(n)]
    assert objective("modernbert").prepare(given, 0, 0).masked.batch.types is None
    # reference check 1.(2): round(.15 · length), one at least, in every sample
    counts = np.bincount(np.searchsorted([9, 39], made.rows.numpy(), side="right"), minlength=3)
    assert counts.tolist() == [1, 4, 3]


def test_the_second_loss_is_weighted() -> None:
    assert dict(objective("bert", weight=0.25).weights) == {"loss": 1.0, "next_sentence/loss": 0.25}


def test_the_classifier_reads_the_encoder_and_not_a_decoder() -> None:
    plain = objective("bert")
    decoded = DecodedLanguageModeling(plain.encoder, plain.head, BERT, VOCABULARY, GradualUnmasking(mixing=0.0))
    randomise(decoded.decoder, seed=4)
    both = PairedLanguageModeling(decoded, plain.pair_head, "next_sentence").eval()
    given = samples([9, 30, 17])
    one, other = plain(plain.prepare(given, 0, 0)), both(both.prepare(given, 0, 0))
    assert torch.equal(one["next_sentence/loss"], other["next_sentence/loss"])
    assert not torch.equal(one["loss"], other["loss"])


def test_samples_must_be_labelled_pairs() -> None:
    with pytest.raises(InputError, match="sample 0 is not a labelled pair"):
        objective("bert").prepare([Sample(id=0, sequences=(np.arange(5),))], 0, 0)


def test_flops() -> None:
    task = objective("bert")
    inputs = task.prepare(samples([9, 30]), 0, 0)
    assert task.flops(inputs) == task.masked.flops(inputs.masked) + 2 * 2 * (SIZE * SIZE + SIZE * 2)
