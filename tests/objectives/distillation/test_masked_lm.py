"""DistilBERT's losses: those of the padded definition, 0 for a teacher of itself, and a teacher that nothing changes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import references
from tests.builders import LONGEST, SIZE, VOCAB, gap, randomise
from tests.objectives.distillation.sides import VOCABULARY, distillation, itself, model, samples
from tests.references import CASES
from torch import Tensor, nn

import bothways
from bothways.errors import InputError
from bothways.families import distilbert
from bothways.model.model import Model
from bothways.objectives.distillation.masked_lm import MaskedDistillation
from bothways.objectives.distillation.methods import DistilBert, Method, MiniLm, MiniLmV2, TinyBert
from bothways.objectives.masked_lm import MaskedInputs
from bothways.ragged import Batch
from bothways.training.optimizer import AdamW, build, default_groups, parameter_table
from bothways.training.step import loss, means

EVERY = [DistilBert(), TinyBert(), MiniLm(), MiniLmV2(relation_heads=4)]
TRUNKS = ["bert", "modernbert", "deberta"]


def total(task: MaskedDistillation, inputs: MaskedInputs) -> Tensor:
    """The loss of a step, as the loop makes it."""
    sums, counts = task(inputs), task.counts(inputs)
    return torch.stack([weight * sums[name] / counts[name] for name, weight in task.weights.items()]).sum()


@pytest.mark.parametrize("method", EVERY, ids=lambda method: method.type)
@pytest.mark.parametrize("name", [*TRUNKS, "mpnet", "llama"])
def test_a_teacher_of_itself_is_equal(name: str, method: Method) -> None:
    """KL, cosine and every other distance are 0 (in float32); only a learned projection and the masked tokens are not."""
    task = itself(name, method)
    if method.type == "tinybert":
        projection = task.terms[0].projection  # type: ignore[union-attr]
        with torch.no_grad():
            projection.weight.copy_(torch.eye(SIZE))  # type: ignore[union-attr, operator, arg-type]
            projection.bias.zero_()  # type: ignore[union-attr, operator]
    sums = task(task.prepare(samples([30, 7, 12]), 0, 0))
    apart = sums.keys() - {"masked_lm", "accuracy"}
    assert apart == task.weights.keys() - {"masked_lm"}
    assert apart
    for name in apart:
        assert abs(sums[name].item()) <= 1e-4, name


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("masked_only", [False, True])
def test_the_divergence_is_that_of_all_logits(temperature: float, masked_only: bool) -> None:
    """T² · KL of dense logits, over all tokens or those masked; the count is theirs."""
    method = DistilBert(temperature=temperature, masked_only=masked_only)
    task = distillation(model("bert", 2), model("modernbert", 3, seed=1), method)
    inputs = task.prepare(samples([30, 7, 12]), 0, 0)
    assert 0 < len(inputs.rows) < inputs.tokens
    rows = inputs.rows if masked_only else torch.arange(inputs.tokens)
    ours = task.head(task.encoder(inputs.batch).hidden[rows], task.encoder.embedding.tokens.weight)
    theirs = task.teacher.model.masked_lm(task.teacher.encoder(inputs.batch).hidden[rows])
    expected = F.kl_div((ours / temperature).log_softmax(1), (theirs / temperature).softmax(1), reduction="sum") * temperature**2
    assert gap(task(inputs)["kl"], expected) <= 1e-5
    assert task.counts(inputs)["kl"] == len(rows)


# -- beside transformers ------------------------------------------------------------------------


def padded(sequences: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, sequences))
    ids, mask = torch.zeros(len(sequences), longest, dtype=torch.int64), torch.zeros(len(sequences), longest, dtype=torch.int64)
    for row, one in enumerate(sequences):
        ids[row, : len(one)], mask[row, : len(one)] = torch.from_numpy(one), 1
    return ids, mask


def published(student: nn.Module, teacher: nn.Module, inputs: MaskedInputs, temperature: float) -> Tensor:
    """The losses of DistilBERT's released code (research_projects/distillation, distiller.py), on padded rows."""
    ids, mask = padded([one.numpy() for one in inputs.batch.ids.split(list(inputs.batch.ragged.lengths))])
    ours: Any = student(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    with torch.no_grad():
        theirs: Any = teacher(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    real = mask.bool()
    kl = nn.KLDivLoss(reduction="batchmean")(
        F.log_softmax(ours.logits[real] / temperature, dim=-1), F.softmax(theirs.logits[real] / temperature, dim=-1)
    )
    labels = torch.full((inputs.tokens,), -100)
    labels[inputs.rows] = inputs.labels
    masked = nn.CrossEntropyLoss(ignore_index=-100)(ours.logits[real], labels)
    last = ours.hidden_states[-1][real], theirs.hidden_states[-1][real]
    cosine = nn.CosineEmbeddingLoss(reduction="mean")(*last, torch.ones(len(last[0])))
    return 5.0 * kl * temperature**2 + 2.0 * masked + 1.0 * cosine


def test_the_three_losses_are_those_of_the_released_code(tmp_path: Any) -> None:
    """Loss and gradients of a DistilBERT that learns from a BERT: padded there, packed here."""
    case, other = (next(one for one in CASES if str(one) == name) for name in ("distilbert-masked_lm", "bert-masked_lm"))
    theirs = [references.build(one, attention="eager").eval() for one in (case, other)]
    student, teacher = (
        bothways.load(references.save(one, tmp_path / str(number)), device="cpu") for number, one in enumerate(theirs)
    )
    randomise(theirs[1], seed=7)  # another than the student
    teacher = bothways.load(references.save(theirs[1], tmp_path / "teacher"), device="cpu")
    task = distillation(student, teacher)
    inputs = task.prepare(samples([30, 7, 12, 1]), 0, 0)
    expected, found = published(*theirs, inputs, 2.0), total(task, inputs)
    assert gap(found, expected) <= 1e-5
    expected.backward()
    found.backward()
    body = theirs[0].distilbert
    pairs = {
        "embedding.tokens": (task.encoder.embedding.tokens.weight, body.embeddings.word_embeddings.weight),
        "embedding.norm": (task.encoder.embedding.norm.bias, body.embeddings.LayerNorm.bias),
        "head.transform": (task.head.transform.dense.weight, theirs[0].vocab_transform.weight),  # type: ignore[union-attr]
        "head.bias": (task.head.bias, theirs[0].vocab_projector.bias),
    }
    for i, layer in enumerate(task.encoder.stack):
        pairs[f"{i}.up"] = (layer.mlp.up.weight, body.transformer.layer[i].ffn.lin1.weight)
        pairs[f"{i}.out"] = (layer.mixer.out.weight, body.transformer.layer[i].attention.out_lin.weight)
    assert set(pairs) > {"0.up", "4.up"}
    for name, (own, reference) in pairs.items():
        assert own is not None
        assert own.grad is not None
        assert gap(own.grad, reference.grad) <= 2e-5, name


# -- the teacher --------------------------------------------------------------------------------


def test_the_teacher_is_not_of_the_objective() -> None:
    """No gradient, no place in checkpoints or in the optimizer; evaluation mode whatever the objective's."""
    whole = model("bert", 3, seed=1)
    task = distillation(model("bert", 2), whole).train()
    inputs = task.prepare(samples([30, 7]), 0, 0)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    optimizer = build(AdamW(lr=0.1), task, parameter_table(task, default_groups(AdamW(lr=0.1), task)))
    total(task, inputs).backward()
    optimizer.step()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in whole.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())
    ids = {id(parameter) for parameter in whole.parameters()}
    assert not ids & {id(one) for group in optimizer.param_groups for one in group["params"]}
    held = sum(tensor.numel() for tensor in task.state_dict().values())
    assert held == sum(parameter.numel() for parameter in (*task.encoder.parameters(), *task.head.parameters()))
    assert not whole.training
    assert deepcopy(task).teacher is task.teacher


def test_the_teacher_reads_the_same_masked_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    task = distillation(model("bert", 2), model("bert", 3, seed=1))
    inputs = task.prepare(samples([30, 7]), 0, 0)
    seen: list[Batch] = []
    forward = task.teacher.encoder.forward

    def watched(batch: Batch, keep: bool = False) -> Any:
        seen.append(batch)
        assert not torch.is_grad_enabled()
        return forward(batch, keep)

    monkeypatch.setattr(task.teacher.encoder, "forward", watched)
    task(inputs)
    assert [one.ids.tolist() for one in seen] == [inputs.batch.ids.tolist()]
    assert (inputs.batch.ids == VOCABULARY.mask_id).any()


# -- the laws of objectives ---------------------------------------------------------------------

TASKS = {
    "distilbert": distillation(model("bert", 2), model("modernbert", 3, seed=1)),
    "masked-only": distillation(model("deberta", 2), model("bert", 3, seed=1), DistilBert(masked_only=True)),
    "tinybert": distillation(model("bert", 2), model("deberta", 5, seed=1), TinyBert(masked_lm=1.0)),
    "tinybert-windows": distillation(model("modernbert", 2), model("modernbert", 4, seed=1), TinyBert()),
    "minilm": distillation(model("modernbert", 1), model("bert", 3, seed=1), MiniLm(), seed=2),
    "minilm_v2": distillation(model("modernbert", 2), model("llama", 3, seed=1), MiniLmV2(relation_heads=4)),
}
tasks = pytest.mark.parametrize("name", TASKS)


@tasks
@settings(max_examples=6)
@given(lengths=st.lists(st.integers(0, 14), min_size=1, max_size=5), seed=st.integers(0, 3))
def test_packed_is_alone(name: str, lengths: list[int], seed: int) -> None:
    """Sums and counts of a batch are those of its samples alone, empty slots included: no pad, no neighbour."""
    task, given_samples = TASKS[name], samples(lengths)
    packed = task.prepare(given_samples, seed, 0)
    alone = [task.prepare([sample], seed, 0) for sample in given_samples]
    sums, counts = task(packed), task.counts(packed)
    assert sums.keys() == counts.keys() >= task.weights.keys()
    for key, together in sums.items():
        apart = torch.stack([task(one)[key] for one in alone]).sum()
        assert abs(together.item() - apart.item()) <= 2e-5 * max(1.0, abs(apart.item())), key
        assert counts[key] == sum(task.counts(one)[key] for one in alone), key


@tasks
def test_every_part_of_the_student_learns(name: str) -> None:
    """Gradients are finite; they reach the embedding, every layer, and a projection where there is one."""
    task = TASKS[name]
    task.zero_grad()
    total(task, task.prepare(samples([30, 7, 12]), 0, 0)).backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in task.parameters())
    parts = [task.encoder.embedding, *task.terms, *(layer.mixer for layer in task.encoder.stack)]
    for part in parts:
        own = list(part.parameters())
        assert not own or any(parameter.grad is not None and parameter.grad.any() for parameter in own)


def test_a_golden_loss() -> None:
    """Bit-stable on a CPU but for the order of additions."""
    task = distillation(model("bert", 2), model("bert", 4, seed=1))
    inputs = task.prepare(samples([30, 7, 12]), 0, 0)
    values = means(*({key: value.item() for key, value in part.items()} for part in (task(inputs), task.counts(inputs))))
    assert values == pytest.approx({"kl": GOLDEN[0], "masked_lm": GOLDEN[1], "cosine": GOLDEN[2], "accuracy": 0.0}, rel=1e-5)
    assert loss(task.weights, values) == pytest.approx(5 * GOLDEN[0] + 2 * GOLDEN[1] + GOLDEN[2], rel=1e-5)


GOLDEN = (1.296834050392618, 5.491746755746695, 1.0949634629852918)


# -- refusals -----------------------------------------------------------------------------------


def test_widths_that_have_no_cosine() -> None:
    encoder = distilbert.distilbert(
        vocab_size=VOCAB, hidden_size=12, num_layers=2, heads=3, intermediate_size=8, max_length=LONGEST
    )
    narrow = Model(distilbert.FAMILY, replace(model("bert", 1).spec, encoder=encoder))
    randomise(narrow)
    with pytest.raises(InputError, match=r"12 features, the teacher's 24.*set cosine to 0"):
        distillation(narrow, model("bert", 3))
    assert distillation(narrow, model("bert", 3), DistilBert(cosine=0.0)).weights.keys() == {"kl", "masked_lm"}


def test_a_teacher_without_predictions() -> None:
    with pytest.raises(InputError, match=r"^a bert has no masked-language head"):
        distillation(model("bert", 2), model("bert", 3, head=False))
    task = distillation(model("bert", 2), model("bert", 3, head=False), MiniLmV2(relation_heads=3))
    assert task.weights.keys() == {"queries", "keys", "values"}


def test_a_method_that_weighs_nothing() -> None:
    with pytest.raises(InputError, match="distilbert: all weights are 0"):
        distillation(model("bert", 2), model("bert", 3), DistilBert(kl=0.0, masked_lm=0.0, cosine=0.0))


def test_work_is_counted() -> None:
    task = distillation(model("bert", 2), model("bert", 4, seed=1))
    inputs = task.prepare(samples([30, 7]), 0, 0)
    table = task.encoder.embedding.tokens.weight
    own = task.encoder.flops(inputs.batch.ragged) + task.head.flops(37, table) + task.head.flops(len(inputs.labels), table)
    theirs = task.teacher.encoder.flops(inputs.batch.ragged) + task.head.flops(37, table)
    assert task.flops(inputs) == pytest.approx(own + theirs / 3)
