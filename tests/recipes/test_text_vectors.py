"""A text's vector trained in a run: what is saved of it, what the log says, what it does not go with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.recipes.test_tasks import NEXT, a_run, texts  # noqa: F401  (a fixture)

import bothways
from bothways.config import from_json, override, to_json
from bothways.data.masking import Masking
from bothways.data.source import TextFiles
from bothways.data.vocabulary import Vocabulary
from bothways.errors import InputError
from bothways.objectives.auto_encoding import AutoEncoding, Denoising, RetroMae
from bothways.objectives.decoded_lm import GradualUnmasking
from bothways.objectives.masked_views import MaskedViews, Views
from bothways.objectives.replaced_token import ReplacedTokens
from bothways.recipes.assembling import build, measured_objective
from bothways.recipes.continuing import continued
from bothways.recipes.measuring import Network
from bothways.recipes.planned_text import assumed
from bothways.recipes.pretraining import check, pretrain
from bothways.recipes.runs import Pretraining, TextVectors
from bothways.training import log, record
from bothways.training.ramp import Linearly
from bothways.training.schedule import Fraction

RETRO = TextVectors(task=RetroMae(), weight=0.5)
DENOISE = TextVectors(task=Denoising())
VIEWS = TextVectors(task=Views(), pooling="mean", weight=0.1)
EACH = pytest.mark.parametrize("vectors", [RETRO, DENOISE, VIEWS], ids=lambda one: one.task.type)
WEIGHTS = {
    "retromae": {"decoder": 0.5, "encoder": 1.0},
    "denoising": {"decoder": 1.0},
    "views": {"masked_lm/loss": 1.0, "contrastive/loss": 0.1},
}


@EACH
def test_a_run_trains_vectors(vectors: TextVectors, texts: TextFiles, tmp_path: Path) -> None:  # noqa: F811
    """Saved as a model of sentence vectors; terms and weights are in log, record and report."""
    run = replace(a_run(texts, "bert"), vectors=vectors)
    assert from_json(Pretraining, to_json(run), "here") == run
    trained = pretrain(run, tmp_path / "run")
    weights = WEIGHTS[vectors.task.type]
    lines = log.read(tmp_path / "run")
    last = [line for line in lines if line["kind"] == "train"][-1]
    assert last["terms"].keys() == weights.keys()
    assert last["loss"] == pytest.approx(sum(weight * last["terms"][name] for name, weight in weights.items()), rel=1e-5)
    held = [line for line in lines if line["kind"] == "evaluation"][-1]["metrics"]
    assert held["loss"] == pytest.approx(sum(weight * held[name] for name, weight in weights.items()), rel=1e-5)
    known = record.read(tmp_path / "run")
    assert known is not None
    assert known.weights == weights
    model = bothways.load(tmp_path / "run" / "model", strict=True)
    assert (model.settings.pooling, model.settings.declared) == (vectors.pooling, True)
    assert set(model.heads.keys()) == (set() if vectors.task.type == "denoising" else {"masked_lm"})
    assert model.encode(["some text"]).shape == (1, run.encoder.hidden_size)
    page = (tmp_path / "run" / "report.html").read_text()
    assert ("What the loss adds up" in page) == (len(weights) > 1)
    assert trained.result.loss == last["loss"]


@EACH
def test_a_run_goes_on_from_a_checkpoint(vectors: TextVectors, texts: TextFiles, tmp_path: Path) -> None:  # noqa: F811
    """From the middle to the same bytes."""
    run = replace(a_run(texts, "bert"), vectors=vectors)
    run = replace(run, training=replace(run.training, checkpoint_every=2, keep=2))
    out = tmp_path / "run"
    pretrain(run, out)
    whole = (out / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoints" / "step-0000004")
    pretrain(run, out)
    assert (out / "model" / "model.safetensors").read_bytes() == whole


def test_the_runs_masks_are_the_encoders(texts: TextFiles) -> None:  # noqa: F811
    """And those of held-out text, by their own rate."""
    run = replace(a_run(texts, "bert"), vectors=RETRO, masking=Masking(rate=0.2), held_out_rate=0.1)
    held = measured_objective(run, Vocabulary.unknown(run.encoder.vocab_size))
    assert held.prepare.masking == Masking(rate=0.1)  # type: ignore[attr-defined]
    objective = build(run, Vocabulary.unknown(run.encoder.vocab_size))
    assert isinstance(objective, AutoEncoding)
    assert objective.prepare.masking == run.masking  # type: ignore[attr-defined]
    both = build(replace(run, vectors=VIEWS), Vocabulary.unknown(run.encoder.vocab_size))
    assert isinstance(both, MaskedViews)
    assert both.parts["masked_lm"].prepare.masking == run.masking  # type: ignore[union-attr]
    assert both.encoder is both.masked.encoder is both.parts["contrastive"].encoder


def test_going_on_takes_over_encoder_and_head(texts: TextFiles, tmp_path: Path) -> None:  # noqa: F811
    pretrain(a_run(texts, "bert"), tmp_path / "first")
    start = str(tmp_path / "first" / "model")
    given = bothways.load(start)
    for vectors in (RETRO, DENOISE, VIEWS):
        run = continued(replace(a_run(texts, "bert"), vectors=vectors), start)
        objective = build(run, Vocabulary.of(given.tokenizer))  # type: ignore[arg-type]
        for ours, theirs in ((objective.encoder, given.encoder), (objective.head, given.heads["masked_lm"])):
            found = theirs.state_dict()
            assert all(torch.equal(found[name], one) for name, one in ours.state_dict().items())


def test_a_weight_that_changed_is_another_run(texts: TextFiles, tmp_path: Path) -> None:  # noqa: F811
    """Told by the settings of a run; by the objective's weights, where these say nothing of it."""
    run = replace(a_run(texts, "bert"), vectors=VIEWS)
    pretrain(run, tmp_path / "run")
    with pytest.raises(InputError, match=r"vectors\.weight was 0\.1, now 0\.2"):
        pretrain(override(run, ["vectors.weight=0.2"]), tmp_path / "run")
    known = record.read(tmp_path / "run")
    assert known is not None
    record.same_weights({}, {"loss": 1.0}, tmp_path)
    with pytest.raises(InputError, match=r"the weight of contrastive/loss was 0\.1, now 0\.3; choose another folder"):
        record.same_weights(known.weights, {"masked_lm/loss": 1.0, "contrastive/loss": 0.3}, tmp_path)
    with pytest.raises(InputError, match=r"contrastive/loss was 0\.1, now absent"):
        record.same_weights(known.weights, {"masked_lm/loss": 1.0}, tmp_path)


def test_a_plan_counts_the_vectors(texts: TextFiles) -> None:  # noqa: F811
    run = a_run(texts, "bert")
    plain, retro, views = (
        Network(one, assumed(one)).flops for one in (run, replace(run, vectors=RETRO), replace(run, vectors=VIEWS))
    )
    assert retro > plain
    assert views > 2 * plain


def test_contradictions(texts: TextFiles) -> None:  # noqa: F811
    run = replace(a_run(texts, "bert"), vectors=VIEWS)
    wrong = {"pairs": NEXT, "decoder": GradualUnmasking(), "replaced_tokens": ReplacedTokens()}
    for name, value in wrong.items():
        with pytest.raises(InputError, match=f"vectors: goes without {name}"):
            check(replace(run, **{name: value}))
    with pytest.raises(InputError, match="vectors: goes with masked tokens"):
        check(replace(run, predicts="next"))
    for training in (replace(run.training, accumulate=2), replace(run.training, ramp=Linearly(until=Fraction(of=0.5)))):
        with pytest.raises(InputError, match=r"vectors\.task: views are compared within one batch"):
            check(replace(run, training=training))
    with pytest.raises(InputError, match=r"training\.compile: the inputs of MaskedViews"):
        check(replace(run, training=replace(run.training, compile=True)))
    check(replace(run, vectors=RETRO, training=replace(run.training, accumulate=2)))
    with pytest.raises(InputError, match="views: this encoder has no dropout"):
        check(replace(a_run(texts, "modernbert"), vectors=VIEWS))
    with pytest.raises(InputError, match="general: what is forgotten is told by masked tokens alone"):
        check(replace(run, start="here", general=texts))
