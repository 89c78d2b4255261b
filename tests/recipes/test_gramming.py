"""Explicit n-grams as a run: a lexicon that is counted or given, what is learned and saved, what is refused."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import bothways
from bothways.data.lexicon import CountedLexicon, GivenLexicon, Lexicon
from bothways.data.mask_units import NGrams
from bothways.data.masking import Masking
from bothways.data.sentence_pairs import NextSentence
from bothways.data.source import TextFiles
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import WordPiece, train_tokenizer
from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.errors import InputError
from bothways.families.bert import bert, masked_lm_head
from bothways.objectives.ngram_lm import ExplicitNGrams
from bothways.ragged import Batch
from bothways.recipes.gramming import LEXICON
from bothways.recipes.planning import _parameters
from bothways.recipes.pretraining import check, pretrain
from bothways.recipes.published import RECIPES
from bothways.recipes.runs import Pretraining, SentencePairs, Stage, Staged
from bothways.recipes.staged import pretrain_stages
from bothways.training import log
from bothways.training.schedule import Fraction, Steps, Trapezoidal

TEXT = "the harbour master keeps a list of ships while the tide comes in and a captain waits for it"
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines in which a few pairs and triples of words come again and again."""
    draw, phrases = random.Random(0), [("harbour", "master"), ("the", "tide", "comes"), ("a", "captain")]
    lines = []
    for _ in range(40):
        words = [word for _ in range(12) for word in (draw.choice(phrases) if draw.random() < 0.4 else (draw.choice(WORDS),))]
        lines.append(" ".join(words))
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(lines))
    return path


def toy(texts: Path, steps: int = 3, **changes: object) -> Pretraining:
    run = RECIPES["ernie_gram"](TextFiles(paths=(str(texts),), split="line"), Steps(count=steps), "toy")
    assert isinstance(run, Pretraining)
    encoder = replace(run.encoder, num_layers=1)
    return replace(run, encoder=encoder, held_out=0.2, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ran(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    pretrain(toy(texts), folder, device="cpu")
    return folder


def test_a_run_learns_of_n_grams(ran: Path) -> None:
    """Fails where they are silently left out: n-grams are masked, and the text is shorter for it."""
    lexicon = Lexicon.load(ran / "lexicon.safetensors", Tokenizer.load(ran / "tokenizer"))
    assert min(lexicon.sizes) > 5
    lines = log.read(ran)
    trained = [line["metrics"] for line in lines if line["kind"] == "train"]
    (held,) = (line["metrics"] for line in lines if line["kind"] == "evaluation")
    for one in (*trained, held):
        assert 0.05 < one["ngrams"] < 1
        assert 0.02 < one["shortened"] < 0.6
    assert {"loss", "fine", "generator", "replaced"} <= held.keys()


def trained_encoder(ran: Path, config: EncoderConfig) -> Encoder:
    """What was trained, with the n-grams beside it: the encoder of the run's last checkpoint."""
    encoder, prefix = Encoder(config).eval(), "masked.encoder."
    weights = load_file(ran / "checkpoints" / "step-0000003" / "weights.safetensors")
    encoder.load_state_dict({name.removeprefix(prefix): one for name, one in weights.items() if name.startswith(prefix)})
    return encoder


def test_what_is_saved_knows_no_n_grams(ran: Path) -> None:
    """Reference check 15.(5): the folder is a model of its family, with a head for tokens; its encoder says what it said."""
    model = bothways.load(ran / "model", strict=True)
    assert (model.family.name, sorted(model.heads)) == ("ernie_gram", ["masked_lm"])
    sizes = {tuple(one.shape) for one in load_file(ran / "model" / "model.safetensors").values()}
    ids = Tokenizer.load(ran / "tokenizer").encode([TEXT, WORDS[1]])
    before = trained_encoder(ran, model.spec.encoder)(Batch.of(ids)).hidden
    assert torch.equal(model.encoder(Batch.of(ids)).hidden, before)
    vocab = model.spec.encoder.vocab_size
    assert {size[0] for size in sizes if size[-1] == 48 and len(size) == 2} == {vocab, 64, 48, 128}
    assert len(model.fill(f"the tide {model.tokenizer.tokens['mask_token']}")[0]) == 5  # type: ignore[union-attr]


def test_a_given_lexicon(ran: Path, texts: Path, tmp_path: Path) -> None:
    """Without a generator, on another trunk; the run keeps what it was given."""
    given = ExplicitNGrams(lexicon=GivenLexicon(file=str(ran / "lexicon.safetensors")), fine=None)
    plain = toy(texts, 1, ngrams=given, replaced_tokens=None)
    encoder = bert(400, hidden_size=24, num_layers=1, heads=3, intermediate_size=20, max_length=64)
    other = replace(plain, family="bert", encoder=encoder, head=masked_lm_head(encoder))
    pretrain(other, tmp_path / "run", device="cpu")
    assert (tmp_path / "run" / "lexicon.safetensors").read_bytes() == (ran / "lexicon.safetensors").read_bytes()
    (held,) = (line["metrics"] for line in log.read(tmp_path / "run") if line["kind"] == "evaluation")
    assert held.keys() == {"loss", "ngram_loss", "accuracy", "ngrams", "shortened"}
    train_tokenizer(WordPiece(vocab_size=60), WORDS).save(tmp_path / "words")
    elsewhere = Tokenizer.load(tmp_path / "words")
    with pytest.raises(InputError, match="made with another tokenizer"):
        Lexicon.load(ran / "lexicon.safetensors", elsewhere)


def test_refusals(texts: Path, tmp_path: Path) -> None:
    run = toy(texts)
    with pytest.raises(InputError, match=r"masking\.units"):
        check(replace(run, masking=Masking(count="rounded", units=NGrams())))
    with pytest.raises(InputError, match="ngrams: goes without pairs"):
        check(replace(run, replaced_tokens=None, pairs=SentencePairs(task=NextSentence())))
    with pytest.raises(InputError, match="would be masked language modelling"):
        check(replace(run, ngrams=ExplicitNGrams(lexicon=CountedLexicon(sizes=(0, 0)))))
    with pytest.raises(InputError, match="no such lexicon"):
        check(replace(run, ngrams=ExplicitNGrams(lexicon=GivenLexicon(file=str(tmp_path / "none")))))
    assert run.replaced_tokens is not None
    with pytest.raises(InputError, match=r"replaced_tokens\.decoder: goes without ngrams"):
        check(replace(run, replaced_tokens=replace(run.replaced_tokens, decoder=MaskDecoderHead())))


@pytest.mark.slow
def test_stages_have_one_lexicon_and_go_on_with_what_was_learned_of_it(texts: Path, tmp_path: Path) -> None:
    """A run cut in two is the run, to the bit: table of n-grams, generator and moments go on; a fresh start is another one."""
    rate = replace(toy(texts).training, schedule=Trapezoidal(warmup=Fraction(of=0.0), decay=Fraction(of=0.0)), log_every=1)
    whole = toy(texts, training=replace(rate, budget=Steps(count=4)))
    half = replace(whole, training=replace(rate, budget=Steps(count=2)))
    kept = Staged(base=half, stages=(Stage(name="one"), Stage(name="two", moments="kept")))
    fresh = replace(kept, stages=(kept.stages[0], replace(kept.stages[1], moments="fresh")))
    pretrain(whole, tmp_path / "whole", device="cpu")
    for name, run in (("kept", kept), ("fresh", fresh)):
        pretrain_stages(run, tmp_path / name, device="cpu")
    made, learned = Path("lexicon.safetensors"), Path("model") / "model.safetensors"
    assert (tmp_path / "kept" / made).read_bytes() == (tmp_path / "whole" / made).read_bytes()
    assert (tmp_path / "kept" / learned).read_bytes() == (tmp_path / "whole" / learned).read_bytes()
    assert (tmp_path / "fresh" / learned).read_bytes() != (tmp_path / "whole" / learned).read_bytes()
    last = [line["metrics"] for line in log.read(tmp_path / "kept" / "2-two") if line["kind"] == "train"]
    assert last
    assert all(one["ngrams"] > 0.05 for one in last)


def test_the_lexicon_of_stages_is_of_all_their_text(texts: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("\n".join(["while ships waits for list of master"] * 40))
    text = TextFiles(paths=(str(more),), split="line")
    run = Staged(base=toy(texts, 1), stages=(Stage(name="one"), Stage(name="two", source=text)))
    pretrain(toy(texts, 1), tmp_path / "first", device="cpu")
    # what such a run leaves if it is stopped before its record is written
    after = shutil.ignore_patterns("run.json", "log.jsonl", "checkpoints", "model", "generator", "report.html")
    shutil.copytree(tmp_path / "first", tmp_path / "run", ignore=after)
    pretrain_stages(run, tmp_path / "run", device="cpu")
    tokenizer = Tokenizer.load(tmp_path / "run" / "tokenizer")
    both, first = (Lexicon.load(tmp_path / name / LEXICON, tokenizer) for name in ("run", "first"))
    (phrase,) = tokenizer.encode(["while ships"], specials=False)
    assert [phrase.tolist() in one.grams[0].tolist() for one in (both, first)] == [True, False]


def test_a_plan_counts_n_grams(texts: Path) -> None:
    """Rows and biases of 600 n-grams, three symbols, the generator and what tells its n-grams."""
    run = toy(texts, replaced_tokens=None)
    parts = _parameters(run)
    assert parts["n-grams, and what predicts them"] == 600 * 48 + 600 + 3 * 48
    whole = _parameters(toy(texts))
    assert whole["n-grams, and what predicts them"] > parts["n-grams, and what predicts them"] + 600
    assert {name: whole[name] for name in whole if name in parts and "n-grams" not in name} == {
        name: parts[name] for name in parts if "n-grams" not in name
    }
    assert torch.get_default_dtype() == torch.float32
