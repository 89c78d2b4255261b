"""Whole runs with a second task, a decoder that is dropped, or two phases: what they save, measure and refuse."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tests.cli.conftest import WORDS

import bothways
from bothways.config import from_json, to_json
from bothways.data.loader import Loader
from bothways.data.packing import Plan, TokenBudget
from bothways.data.sample import Epochs, Sample
from bothways.data.sentence_blocks import WholeSentences
from bothways.data.sentence_pairs import NextSentence, SentenceOrder
from bothways.data.source import TextFiles
from bothways.data.tokenizer_training import WordPiece, train_tokenizer
from bothways.data.vocabulary import Vocabulary
from bothways.data.warmup import LengthStage, LengthWarmup
from bothways.encoder.config import EncoderConfig
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.errors import InputError
from bothways.families.albert import albert
from bothways.families.bert import bert, masked_lm_head
from bothways.families.deberta import deberta
from bothways.families.family import Heads, Spec
from bothways.families.modernbert import modernbert
from bothways.families.roberta import FAMILY as ROBERTA
from bothways.families.roberta import roberta
from bothways.model.model import Model
from bothways.objectives.decoded_lm import GradualUnmasking
from bothways.ragged import Batch, Ragged
from bothways.recipes import assembling, pretraining
from bothways.recipes.continuing import adaptation, continued
from bothways.recipes.measuring import Network
from bothways.recipes.planned_text import assumed
from bothways.recipes.pretraining import check, pretrain
from bothways.recipes.published import RECIPES
from bothways.recipes.runs import Pretraining, SentencePairs, Stage, Staged
from bothways.recipes.staged import pretrain_stages
from bothways.training import log
from bothways.training.schedule import Steps

NEXT = SentencePairs(task=NextSentence(copies=2))
ORDER = SentencePairs(task=SentenceOrder(copies=2))


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine takes a second each time, and nothing here is about it."""
    monkeypatch.setattr(pretraining, "gemm_rate", lambda *_: 1e10)


@pytest.fixture
def texts(tmp_path: Path) -> TextFiles:
    """Paragraphs of several sentences."""
    draw = random.Random(0)
    words = WORDS.split()

    def sentence() -> str:
        return " ".join(draw.choices(words, k=draw.randint(3, 9))) + "."

    documents = [" ".join(sentence() for _ in range(draw.randint(1, 8))) for _ in range(60)]
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(documents))
    return TextFiles(paths=(str(path),), split="paragraph")


TRUNKS: dict[str, EncoderConfig] = {
    "bert": bert(120, 24, 2, 3, 32, max_length=32),
    "albert": albert(120, 12, 24, 2, 3, 32, max_length=32),
    "modernbert": modernbert(120, 24, 2, 2, 32, max_length=32, window=8, pattern=(True, False)),
    "deberta": deberta(120, 24, 2, 3, 32, 32),
}


def a_run(texts: TextFiles, family: str) -> Pretraining:
    encoder = TRUNKS[family]
    run = RECIPES["bert"](texts, Steps(count=4), "tiny")
    assert isinstance(run, Pretraining)
    head = masked_lm_head(encoder)
    if family == "modernbert":
        head = RECIPES["modernbert_short"](texts, Steps(count=4), "tiny").head  # type: ignore[union-attr]
    return replace(
        run,
        family=family,  # type: ignore[arg-type]
        encoder=encoder,
        head=head,
        tokenizer=WordPiece(vocab_size=120),
        batching=TokenBudget(tokens=256, window=4),
        max_length=32,
        held_out=0.1,
    )


def names(folder: Path) -> set[str]:
    with safe_open(folder / "model" / "model.safetensors", "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize(("family", "pairs"), [("bert", NEXT), ("albert", ORDER)])
def test_both_heads_are_saved_and_load_there(texts: TextFiles, tmp_path: Path, family: str, pairs: SentencePairs) -> None:
    """Through the whole run; `transformers` reads the folder as the class of both tasks, and computes the same classes."""
    import transformers

    trained = pretrain(replace(a_run(texts, family), pairs=pairs), tmp_path / "run")
    task = pairs.task.type
    assert trained.result.evaluation.keys() == {"loss", "accuracy", f"{task}/loss", f"{task}/accuracy"}
    line = next(line for line in log.read(tmp_path / "run") if line["kind"] == "train")
    assert line["terms"].keys() == {"loss", f"{task}/loss"}
    assert line["loss"] == pytest.approx(sum(line["terms"].values()))
    assert task in (tmp_path / "run" / "report.html").read_text()
    folder = tmp_path / "run" / "model"
    ours = bothways.load(folder, strict=True)
    assert set(ours.heads.keys()) == {"masked_lm", task}
    theirs, told = transformers.AutoModelForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    ids = torch.tensor([[2, 7, 8, 3, 9, 10, 3]])
    types = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    with torch.no_grad():
        expected = theirs.eval()(input_ids=ids, token_type_ids=types)
        encoded = ours.encoder(Batch.of([ids[0].numpy()], [types[0].numpy()]))
        found = ours.heads[task](encoded.hidden, encoded.ragged)
    logits = expected.seq_relationship_logits if task == "next_sentence" else expected.sop_logits
    torch.testing.assert_close(found, logits, atol=1e-5, rtol=1e-4)


def test_other_trunks_drop_the_second_head(texts: TextFiles, tmp_path: Path) -> None:
    pretrain(a_run(texts, "modernbert"), tmp_path / "plain")
    pretrain(replace(a_run(texts, "modernbert"), pairs=ORDER), tmp_path / "pairs")
    assert names(tmp_path / "pairs") == names(tmp_path / "plain")


@pytest.mark.parametrize("family", ["bert", "modernbert", "deberta"])
def test_a_decoder_leaves_no_trace(texts: TextFiles, tmp_path: Path, family: str) -> None:
    """Reference check 16.(1): the folder has exactly the keys, config and operations of a run without a decoder."""
    run = a_run(texts, family)
    pretrain(run, tmp_path / "plain")
    pretrain(replace(run, decoder=GradualUnmasking()), tmp_path / "decoded")
    assert names(tmp_path / "decoded") == names(tmp_path / "plain")
    configs = [json.loads((tmp_path / name / "model" / "config.json").read_text()) for name in ("decoded", "plain")]
    assert configs[0] == configs[1]
    texts_of_both = Ragged.of([30, 7])
    encoders = [bothways.load(tmp_path / name / "model", strict=True).encoder for name in ("decoded", "plain")]
    assert encoders[0].flops(texts_of_both) == encoders[1].flops(texts_of_both) > 0


def test_an_enhanced_mask_decoder_is_kept_by_deberta_alone(texts: TextFiles, tmp_path: Path) -> None:
    for family in ("bert", "deberta"):
        pretrain(replace(a_run(texts, family), decoder=MaskDecoderHead()), tmp_path / family)
    assert not any("mask_decoder" in head for head in bothways.load(tmp_path / "bert" / "model", strict=True).heads)
    kept = bothways.load(tmp_path / "deberta" / "model", strict=True)
    assert set(kept.heads.keys()) == {"masked_lm", "mask_decoder"}


def test_a_task_and_a_decoder_go_together_and_go_on(texts: TextFiles, tmp_path: Path) -> None:
    """Going on after the budget was spent changes nothing; going on from its model takes the second head over, too."""
    run = replace(a_run(texts, "bert"), pairs=NEXT, decoder=GradualUnmasking(layers=1))
    first = pretrain(run, tmp_path / "run")
    assert pretrain(run, tmp_path / "run").result.loss == first.result.loss
    further = continued(run, str(tmp_path / "run" / "model"))
    objective = assembling.build(further, Vocabulary.of(bothways.load(tmp_path / "run" / "model").tokenizer))  # type: ignore[arg-type]
    saved = bothways.load(tmp_path / "run" / "model").heads["next_sentence"].state_dict()
    assert all(torch.equal(saved[name], one) for name, one in objective.pair_head.state_dict().items())  # type: ignore[union-attr]


def test_pairs_and_decoder_go_on_from_a_checkpoint(texts: TextFiles, tmp_path: Path) -> None:
    """Check X9: from the middle of the run to the same bytes; masks, what the decoder sees and dropout are drawn again."""
    run = replace(a_run(texts, "bert"), pairs=NEXT, decoder=GradualUnmasking(layers=1))
    run = replace(run, training=replace(run.training, checkpoint_every=2, keep=2))
    out = tmp_path / "run"
    pretrain(run, out)
    whole = (out / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoints" / "step-0000004")
    assert (out / "checkpoints" / "step-0000002").exists()
    pretrain(run, out)
    assert (out / "model" / "model.safetensors").read_bytes() == whole


@pytest.mark.slow
def test_workers_change_nothing(texts: TextFiles, tmp_path: Path) -> None:
    run = replace(a_run(texts, "bert"), pairs=NEXT, decoder=GradualUnmasking())
    for workers in (0, 2):
        pretrain(replace(run, workers=workers), tmp_path / str(workers))
    one, other = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("0", "2"))
    assert one == other


def test_two_phases(texts: TextFiles, tmp_path: Path) -> None:
    """The next token by causal attention, then masked tokens both ways, with the weights that the first phase ended with."""
    base = a_run(texts, "bert")
    layers = tuple(replace(one, mixer=replace(one.mixer, causal=True)) for one in base.encoder.layers)
    causal = Stage(name="causal", predicts="next", encoder=replace(base.encoder, layers=layers))
    run = Staged(base=base, stages=(causal, Stage(name="masked", predicts="masked", encoder=base.encoder)))
    assert from_json(Staged, to_json(run), "here") == run
    trained = pretrain_stages(run, tmp_path / "run")
    assert trained.result.step == 8
    lines = [log.read(tmp_path / "run" / name) for name in run.folders]
    first, second = (next(line for line in own if line["kind"] == "train") for own in lines)
    assert "masked" not in first["metrics"]
    assert first["loss"] > second["loss"]  # near the vocabulary's logarithm at first
    model = bothways.load(tmp_path / "run" / "model", strict=True)
    assert not any(one.causal for one in model.spec.encoder.attentions)


def test_a_last_stage_that_cannot_be_saved_is_refused_at_once(texts: TextFiles, tmp_path: Path) -> None:
    base = a_run(texts, "bert")
    layers = tuple(replace(one, mixer=replace(one.mixer, causal=True)) for one in base.encoder.layers)
    last = Stage(name="causal", predicts="next", encoder=replace(base.encoder, layers=layers))
    with pytest.raises(InputError, match="cannot express this encoder"):
        pretrain_stages(Staged(base=base, stages=(Stage(name="masked"), last)), tmp_path / "run")
    assert not (tmp_path / "run" / "1-masked").exists()


def test_a_plan_counts_the_decoder(texts: TextFiles) -> None:
    run = a_run(texts, "bert")
    plain, decoded, paired = (
        Network(one, assumed(one)).flops for one in (run, replace(run, decoder=GradualUnmasking()), replace(run, pairs=NEXT))
    )
    assert decoded > 1.3 * plain
    assert paired == plain


def test_contradictions(texts: TextFiles) -> None:
    run = a_run(texts, "bert")
    with pytest.raises(InputError, match=r"pairs\.head\.labels: 3"):
        check(replace(run, pairs=replace(NEXT, head=replace(NEXT.head, labels=3))))
    with pytest.raises(InputError, match="predicts: the next token goes without pairs and decoder"):
        check(replace(run, pairs=NEXT, predicts="next"))
    with pytest.raises(InputError, match="predicting the next token needs causal attention"):
        check(replace(run, predicts="next"))
    with pytest.raises(InputError, match="length_warmup: pairs and blocks are not cut"):
        check(replace(run, pairs=NEXT, length_warmup=LengthWarmup(stages=(LengthStage(max_length=8, tokens=100),))))
    with pytest.raises(InputError, match="blocks: goes without pairs"):
        check(replace(run, pairs=NEXT, blocks=WholeSentences()))
    with pytest.raises(InputError, match="an enhanced mask decoder needs"):
        check(replace(a_run(texts, "modernbert"), decoder=MaskDecoderHead()))


def test_a_run_reads_whole_sentences(texts: TextFiles, tmp_path: Path) -> None:
    """Both those learned from and those held out; an epoch is one pass; workers read the same."""
    run = replace(a_run(texts, "bert"), blocks=WholeSentences())
    tokenizer, shards, _ = pretraining.prepare(run, tmp_path, print)
    text, plain = (pretraining.prepare_samples(one, tokenizer, shards, print) for one in (run, replace(run, blocks=None)))
    (stop,) = tokenizer.encode(["."], specials=False)[0].tolist()
    for data, other in ((text.data, plain.data), (text.heldout, plain.heldout)):
        samples = [data[number].sequences[0] for number in range(len(data))]
        assert len(samples) < len(other)  # of one document after another
        assert all(one[-2] == stop for one in samples)
    plan = Plan(text.data.lengths, run.batching, run.training.seed)
    (tally,) = text.tally(plan, {"epoch": 1, "window": 0, "batch": 0})
    assert tally.passes == 1.0
    streams = [Loader(text.data, run.batching, _ids, 3, workers).open() for workers in (0, 2)]
    assert [next(streams[0]) for _ in range(3)] == [next(streams[1]) for _ in range(3)]
    for stream in streams:
        stream.close()
    trained = pretrain(run, tmp_path / "run")
    assert trained.result.tokens == sum(int(text.data.lengths[batch].sum()) for batch in islice(plan.epoch(0), 4))


def test_another_domain_is_learned_in_stretches(texts: TextFiles, tmp_path: Path) -> None:
    """Of any family alike, whatever its own recipe reads."""
    encoder = roberta(120, 24, 2, 3, 32, max_length=32)
    spec = Spec(encoder=encoder, heads=Heads(masked_lm=masked_lm_head(encoder)), pad_id=1)
    start = Model.create(ROBERTA, spec, train_tokenizer(WordPiece(vocab_size=120), [WORDS], 32)).save(tmp_path / "roberta")
    assert adaptation(texts, Steps(count=1), str(start)).blocks is None
    assert continued(RECIPES["roberta"](texts, Steps(count=1), "toy"), str(start)).blocks == WholeSentences()  # type: ignore[arg-type]


def _ids(samples: Sequence[Sample], seed: int, epoch: Epochs) -> list[list[int]]:
    return [sample.sequences[0].tolist() for sample in samples]
