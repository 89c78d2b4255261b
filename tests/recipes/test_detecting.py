"""Replaced token detection as a run: what it begins with, saves, resumes, and what others make of its folders."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.builders import gap
from tests.cli.conftest import WORDS

import bothways
from bothways.config import from_json, override, to_json
from bothways.data.masking import Vocabulary
from bothways.data.packing import SampleCount
from bothways.data.rows import JsonLines
from bothways.data.source import TextFiles
from bothways.data.table import SingleText
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.encoder.generator import GivenEncoder, Narrowed
from bothways.encoder.initialisation import initialise
from bothways.errors import InputError
from bothways.families.bert import bert
from bothways.layers.shifted import ShiftedEmbedding
from bothways.objectives.replaced_token import ReplacedTokenDetection
from bothways.objectives.sharing import DisentangledTables, NothingShared, SharedTables, Sharing, WholeEmbedding
from bothways.ragged import Batch
from bothways.recipes import assembling, detecting, planning, pretraining
from bothways.recipes.finetuning import finetune
from bothways.recipes.measuring import Network
from bothways.recipes.planned_text import PlannedText
from bothways.recipes.pretraining import pretrain
from bothways.recipes.published import RECIPES
from bothways.recipes.runs import Finetuning, Pretraining, Stage, Staged
from bothways.recipes.staged import pretrain_stages
from bothways.training import loop
from bothways.training.optimizer import AdamW, parameter_table
from bothways.training.record import read
from bothways.training.schedule import Linear, Steps
from bothways.training.settings import TrainingConfig
from bothways.training.update import Updates

NAMES = ("electra", "electra_small", "deberta_v3", "modernbert_rtd")
recipes = pytest.mark.parametrize("name", NAMES)
VOCABULARY = Vocabulary(400, 4, frozenset(range(5)))


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine takes a second each time, and nothing here is about it."""
    monkeypatch.setattr(pretraining, "gemm_rate", lambda *_: 1e10)


def toy(name: str, folder: Path, steps: int = 3, *changes: str) -> Pretraining:
    """A recipe at its smallest on a few lines, read with a tokenizer of their words."""
    texts = folder / "texts.txt"
    if not texts.exists():
        draw = random.Random(0)
        texts.write_text("\n".join(" ".join(draw.choices(WORDS.split(), k=draw.randint(5, 60))) for _ in range(60)))
    run = RECIPES[name](TextFiles(paths=(str(texts),), split="line"), Steps(count=steps), "toy")
    assert isinstance(run, Pretraining)
    small = (
        'tokenizer={"type": "wordpiece", "vocab_size": 120}',
        "encoder.vocab_size=128",
        "max_length=32",
        "training.log_every=1",
    )
    return override(run, [*small, "training.checkpoint_every=2", *changes])


def begun(run: Pretraining) -> ReplacedTokenDetection:
    assert run.replaced_tokens is not None
    objective = detecting.unfilled_detection(run, run.replaced_tokens, VOCABULARY)
    detecting.initialise_detection(objective, run.training.seed)
    return objective


@recipes
def test_a_run_and_what_it_leaves(name: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained = pretrain(toy(name, tmp_path), out)
    evaluation = trained.result.evaluation
    assert {"loss", "generator", "replaced", "generator_accuracy", "discriminator_accuracy", "share_replaced"} <= set(evaluation)
    assert evaluation["loss"] == pytest.approx(evaluation["generator"] + 50 * evaluation["replaced"], rel=1e-5)  # type: ignore[operator]
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    assert all(line["terms"].keys() == {"generator", "replaced"} for line in train)
    assert set(detecting.METRICS) <= set(train[0]["metrics"])
    model = bothways.load(out / "model", strict=True)
    assert set(model.heads) == (set() if name == "modernbert_rtd" else {"replaced_token"})
    assert (out / "report.html").exists()
    again = pretrain(toy(name, tmp_path), out)
    assert again.result.evaluation == evaluation


@pytest.mark.slow
@recipes
def test_a_run_goes_on_from_the_folder(name: str, tmp_path: Path) -> None:
    """Its model is fine-tuned like any other; the generator, where it can be saved, predicts words."""
    out = tmp_path / "run"
    pretrain(toy(name, tmp_path, 1), out)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text, "label": text}) + "\n" for text in ("the cat", "a tree")))
    training = TrainingConfig(optimizer=AdamW(lr=1e-3), schedule=Linear(), budget=Steps(count=2))
    table, batching = JsonLines(paths=(str(rows),)), SampleCount(samples=2)
    run = Finetuning(model=str(out / "model"), table=table, columns=SingleText(), batching=batching, training=training)
    assert finetune(run, tmp_path / "tuned").model.predict(["the cat"]).shape == (1, 2)
    generator = bothways.load(out / "generator", strict=True)
    mask = generator.tokenizer.tokens["mask_token"]  # type: ignore[union-attr]
    assert len(generator.fill(f"the cat {mask}")[0]) == 5


def test_a_generator_that_no_published_folder_can_hold_is_saved_as_ours(tmp_path: Path) -> None:
    """A map between embedding and layers, which ModernBERT's folders have no words for."""
    pretrain(toy("modernbert_rtd", tmp_path, 1), tmp_path / "run")
    assert bothways.load(tmp_path / "run" / "generator", strict=True).family.name == "bothways"


def test_a_generator_of_another_family_is_saved_as_one(tmp_path: Path) -> None:
    run = toy("modernbert_rtd", tmp_path, 1)
    assert run.replaced_tokens is not None
    small = bert(128, 16, 1, 2, 32, run.encoder.max_length)
    given = replace(run.replaced_tokens, generator=GivenEncoder(encoder=small), sharing=NothingShared())
    head = RECIPES["bert"](run.source, Steps(count=1), "toy").head  # type: ignore[union-attr, arg-type]
    pretrain(replace(run, replaced_tokens=given, head=head), tmp_path / "run")
    assert bothways.load(tmp_path / "run" / "generator").family.name == "bert"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deberta_v3", "modernbert_rtd"])
def test_a_run_that_was_stopped_ends_with_the_same_bytes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a step without a checkpoint: what was drawn for the steps after it is drawn again."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    pretrain(toy(name, tmp_path, 5), whole)

    class Killed(Exception):
        pass

    really, done = Updates.__call__, [0]

    def counted(self, *arguments):  # type: ignore[no-untyped-def]
        done[0] += 1
        if done[0] == 4:
            raise Killed
        return really(self, *arguments)

    monkeypatch.setattr(loop.Updates, "__call__", counted)
    with pytest.raises(Killed):
        pretrain(toy(name, tmp_path, 5), cut)
    monkeypatch.setattr(loop.Updates, "__call__", really)
    pretrain(toy(name, tmp_path, 5), cut)
    for place in ("model", "generator"):
        file = whole / place / "model.safetensors"
        assert file.exists() == (cut / place / "model.safetensors").exists()
        assert not file.exists() or file.read_bytes() == (cut / place / "model.safetensors").read_bytes()
    assert (whole / "model" / "model.safetensors").exists()


def test_a_saved_table_is_folded(tmp_path: Path) -> None:
    """The discriminator's folder holds E_G + E_delta; the generator's E_G, which differs from it by then."""
    run = toy("deberta_v3", tmp_path, 3, "training.optimizer.lr=1e-2")
    objective = begun(run)
    assert isinstance(objective.encoder.embedding.tokens, ShiftedEmbedding)
    assert not objective.encoder.embedding.tokens.delta.any()
    out = tmp_path / "run"
    pretrain(run, out)
    folders = [bothways.load(out / name).encoder.embedding.tokens.weight for name in ("model", "generator")]
    weights = load_file(out / "checkpoints" / "step-0000003" / "weights.safetensors")
    (delta,) = (tensor for name, tensor in weights.items() if name.endswith("embedding.tokens.delta"))
    (base,) = (tensor for name, tensor in weights.items() if name.endswith("embedding.tokens.base.weight"))
    assert delta.any()
    assert torch.equal(folders[1], base)
    assert torch.equal(folders[0], base + delta)


def test_a_generators_mask_decoder_is_saved(tmp_path: Path) -> None:
    """With the positions that it was trained to; they began as the seed says, and no other folder has them."""
    run = toy("deberta_v3", tmp_path, 2)
    first, again = begun(run).decoder, begun(run).decoder
    assert first is not None
    assert again is not None
    assert torch.equal(first.positions.weight, again.positions.weight)
    assert 0.5 < first.positions.weight.std() / run.encoder.initialisation.spread < 1.5
    pretrain(run, tmp_path / "run")
    saved = bothways.load(tmp_path / "run" / "generator")
    assert saved.spec.heads.mask_decoder == MaskDecoderHead()
    weights = load_file(tmp_path / "run" / "checkpoints" / "step-0000002" / "weights.safetensors")
    (trained,) = (tensor for name, tensor in weights.items() if name.endswith("decoder.positions.weight"))
    assert torch.equal(saved.heads["mask_decoder"].positions.weight, trained)  # type: ignore[union-attr, arg-type]
    assert not torch.equal(trained, first.positions.weight)
    assert "mask_decoder" not in bothways.load(tmp_path / "run" / "model").heads


def test_a_generator_is_saved_with_its_decoder_or_refused(tmp_path: Path) -> None:
    """ELECTRA's folders have no place for one: so as ours. Where a trunk cannot have a decoder, the field is named."""
    run = toy("electra", tmp_path, 2)
    assert run.replaced_tokens is not None
    pretrain(replace(run, replaced_tokens=replace(run.replaced_tokens, decoder=MaskDecoderHead())), tmp_path / "run")
    generator = bothways.load(tmp_path / "run" / "generator", strict=True)
    assert generator.family.name == "bothways"
    assert generator.spec.heads.mask_decoder == MaskDecoderHead()
    run = toy("modernbert_rtd", tmp_path)
    assert run.replaced_tokens is not None
    with pytest.raises(InputError, match=r"replaced_tokens\.decoder: MaskDecoderHead: .* as generator; set it to null"):
        pretrain(replace(run, replaced_tokens=replace(run.replaced_tokens, decoder=MaskDecoderHead())), tmp_path / "other")


def test_disentangled_tables_begin_as_shared_ones(tmp_path: Path) -> None:
    """The first step's losses are equal for GDES and ES, from the same seed; later ones are not."""
    found = []
    for sharing in (DisentangledTables(), SharedTables()):
        run = toy("deberta_v3", tmp_path, 3)
        assert run.replaced_tokens is not None
        out = tmp_path / sharing.type
        pretrain(replace(run, replaced_tokens=replace(run.replaced_tokens, sharing=sharing)), out)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        found.append([line["terms"] for line in lines if line["kind"] == "train"])
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert found[0][2] != pytest.approx(found[1][2], rel=1e-6)


def test_the_discriminator_begins_as_a_run_without_a_generator_does(tmp_path: Path) -> None:
    """So that two runs differ in their objective alone."""
    run = toy("modernbert_rtd", tmp_path)
    ours = begun(run).encoder.state_dict()
    plain = assembling.unfilled(replace(run, replaced_tokens=None), VOCABULARY)
    initialise(plain, run.encoder.initialisation, run.encoder.num_layers, run.training.seed)
    theirs = plain.encoder.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_of_stages(tmp_path: Path) -> None:
    """What is shared and what is shifted goes on from stage to stage."""
    base = toy("deberta_v3", tmp_path, 2)
    staged = Staged(base=base, stages=(Stage(name="one"), Stage(name="two", moments="kept", average=1)))
    out = tmp_path / "staged"
    assert from_json(Staged, to_json(staged), "here") == staged
    trained = pretrain_stages(staged, out)
    assert trained.result.step == 4
    assert set(bothways.load(out / "model").heads) == {"replaced_token"}
    assert (out / "generator" / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["electra", "deberta_v3"])
def test_going_on_from_a_detector(name: str, tmp_path: Path) -> None:
    """Encoder and head are the model's; tables that are shifted begin as its table, with no difference."""
    first = tmp_path / "first"
    pretrain(toy(name, tmp_path, 2), first)
    run = replace(toy(name, tmp_path, 1), start=str(first / "model"))
    model = bothways.load(first / "model")
    objective = assembling.build(run, Vocabulary.of(model.tokenizer))  # type: ignore[arg-type]
    assert isinstance(objective, ReplacedTokenDetection)
    plain = detecting.folded(objective.encoder).state_dict()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in model.encoder.state_dict().items())
    assert gap(objective.head.out.weight, model.heads["replaced_token"].out.weight) == 0  # type: ignore[union-attr]


def test_what_cannot_be_shared_is_refused_before_any_work(tmp_path: Path) -> None:
    run = toy("electra", tmp_path)
    assert run.replaced_tokens is not None
    other = replace(run.encoder, embedding=replace(run.encoder.embedding, size=9))
    given = replace(run.replaced_tokens, generator=GivenEncoder(encoder=other))
    with pytest.raises(InputError, match="sharing: the embedding's tokens"):
        pretrain(replace(run, replaced_tokens=given), tmp_path / "run")
    odd = replace(run.replaced_tokens, generator=Narrowed(width=0.41))
    with pytest.raises(InputError, match=r"width=0\.41 of 480 features makes 197: not 3 equal heads"):
        pretraining.check(replace(run, encoder=replace(run.encoder, hidden_size=480), replaced_tokens=odd))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["electra", "deberta_v3"])
def test_transformers_reads_what_was_saved(name: str, tmp_path: Path) -> None:
    """ElectraForPreTraining, ElectraForMaskedLM and DebertaV2Model find all they look for, and give equal numbers."""
    import transformers

    out = tmp_path / "run"
    pretrain(toy(name, tmp_path, 2), out)
    ids = torch.tensor([[2, 17, 30, 9, 22, 3]])
    batch = Batch.of([ids[0].tolist()])
    discriminator, generator = bothways.load(out / "model"), bothways.load(out / "generator")
    classes = (
        (transformers.ElectraForPreTraining, transformers.ElectraForMaskedLM)
        if name == "electra"
        else (transformers.DebertaV2Model, transformers.DebertaV2ForMaskedLM)
    )
    folders = (out / "model", out / "generator")
    read = [kind.from_pretrained(one, output_loading_info=True) for kind, one in zip(classes, folders, strict=True)]
    theirs = [model.eval() for model, _ in read]
    told = [{key: names for key, names in one.items() if names} for _, one in read]
    assert all(set(one) <= {"unexpected_keys"} for one in told), told
    # transformers' DebertaV2Model has no discriminator's head
    beside = {key for one in told for key in one.get("unexpected_keys", ())}
    assert bool(beside) == (name == "deberta_v3")
    assert all(key.startswith("mask_predictions.") for key in beside), beside
    with torch.no_grad():
        hidden = discriminator.encoder(batch).hidden
        logits = generator.masked_lm(generator.encoder(batch).hidden)
        body = theirs[0].base_model(ids).last_hidden_state[0]
        assert gap(hidden, body) <= 1e-5
        assert gap(logits, theirs[1](ids).logits[0]) <= 1e-5
        if name == "electra":
            found = discriminator.heads["replaced_token"](hidden, batch.ragged)
            assert gap(found, theirs[0](ids).logits[0]) <= 1e-5


@pytest.mark.parametrize("sharing", [WholeEmbedding(), DisentangledTables()], ids=lambda one: one.type)
def test_the_generator_has_a_learning_rate_of_its_own(sharing: Sharing, tmp_path: Path) -> None:
    """Of what its loss alone moves: shared tables are not among it, the bases of disentangled ones are."""
    run = toy("deberta_v3", tmp_path)
    assert run.replaced_tokens is not None
    objective = begun(replace(run, replaced_tokens=replace(run.replaced_tokens, sharing=sharing, generator_lr=0.5)))
    groups = detecting.detection_groups(objective, run.training.optimizer)
    assert groups is not None
    rates = {row.name: row.lr for row in parameter_table(objective, groups)}
    halved = {name for name, rate in rates.items() if rate == 0.5}
    own = {name for name in rates if name.startswith(("generator", "decoder"))}
    table = {"encoder.embedding.tokens.base.weight"} if isinstance(sharing, DisentangledTables) else set[str]()
    assert halved == own | table
    assert set(rates.values()) == {0.5, 1.0}
    alike = replace(run, replaced_tokens=replace(run.replaced_tokens, clipping=None))
    assert detecting.detection_groups(begun(alike), run.training.optimizer) is None
    # as the loop has them
    trained = replace(run, replaced_tokens=replace(run.replaced_tokens, sharing=sharing, generator_lr=0.5))
    pretrain(trained, tmp_path / "run")
    known = read(tmp_path / "run")
    assert known is not None
    assert {row.name: row.lr for row in known.parameters} == rates


@recipes
def test_a_plan_counts_both_networks(name: str, tmp_path: Path) -> None:
    """What is shared once; and a step of both has its operations and its memory."""
    run = toy(name, tmp_path)
    expected = sum(parameter.numel() for parameter in begun(run).parameters())
    assert sum(planning._parameters(run).values()) == expected
    network = Network(run, PlannedText(np.full(10, 32), "some text", tokens=10_000))
    plain = Network(replace(run, replaced_tokens=None), network.text)
    assert network.flops > 1.01 * plain.flops
    assert network.footprint(64).weights >= 4 * expected
