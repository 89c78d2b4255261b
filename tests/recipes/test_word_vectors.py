"""Embeddings that begin as word vectors: information by hand, what a run begins with, what is refused."""

from __future__ import annotations

import random
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bothways.data.cooccurrence import Cooccurrence, Pairs
from bothways.data.shards import Shards
from bothways.data.source import TextFiles
from bothways.data.token_data import hold_out
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import WordPiece
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.generator import GivenEncoder
from bothways.errors import InputError
from bothways.objectives.replaced_token import ReplacedTokenDetection, ReplacedTokens
from bothways.objectives.sharing import DisentangledTables, NothingShared, Sharing, WholeEmbedding
from bothways.recipes.assembling import build
from bothways.recipes.climbing import climb
from bothways.recipes.continuing import continued
from bothways.recipes.distilling import DISTILBERT, distil, distillation
from bothways.recipes.ladders import Rung
from bothways.recipes.pretraining import check, prepare_shards, prepare_tokenizer, pretrain
from bothways.recipes.published import RECIPES
from bothways.recipes.runs import Distillation, Pretraining, Stage, Staged
from bothways.recipes.staged import pretrain_stages
from bothways.recipes.word_vectors import VECTORS, _information, begin_with, prepare_word_vectors, word_vectors
from bothways.training import checkpoint
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Steps

FIRST = ("bal", "cor", "dim", "fen", "gul", "har", "jos", "kel")


def test_information_by_hand() -> None:
    """a b three times, a c once. Both ways: a 4, b 3, c 1 of 8; contexts to the power 1/2: 2, √3, 1."""
    pairs = Pairs(np.array([0 * 3 + 1, 0 * 3 + 2]), np.array([3.0, 1.0]), 3, 0)
    found = _information(pairs, 0.5).to_dense()
    total = 2 + 3**0.5 + 1
    expected = torch.zeros(3, 3)
    expected[0, 1] = log(3 / (4 * 3**0.5 / total))
    expected[0, 2] = log(1 / (4 * 1 / total))
    expected[1, 0] = log(3 / (3 * 2 / total))
    expected[2, 0] = log(1 / (1 * 2 / total))
    assert torch.allclose(found, expected)
    # what is rarer together than apart counts as nothing
    rare = _information(Pairs(np.array([0, 1, 3]), np.array([10.0, 1.0, 10.0]), 2, 0), 1.0).to_dense()
    assert rare[0, 1] == rare[1, 0] == 0 < rare[0, 0]


def test_words_of_one_kind_come_to_lie_together() -> None:
    """The first axes tell most, so that few of them suffice."""
    draw, pairs = np.random.default_rng(0), np.zeros((40, 40))
    for first in range(40):
        for second in range(40):
            pairs[first, second] = draw.poisson(30 if first % 4 == second % 4 else 6)
    made = Pairs(np.arange(1600), pairs.ravel(), 40, 0)
    vectors = word_vectors(made, 8, 0.75)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(40), atol=1e-5)
    few = word_vectors(made, 3, 0.75)
    near = few @ few.T
    same = torch.arange(40)[:, None] % 4 == torch.arange(40) % 4
    assert near[same].min() > near[~same].max()
    assert torch.equal(word_vectors(made, 8, 0.75), vectors)


def test_little_text_has_few_axes() -> None:
    """Two kinds of four tokens: two axes are all there is, so that tokens of one kind are the same and kinds are opposite."""
    keys = np.array([first * 9 + second for first in range(8) for second in range(8) if first // 4 == second // 4])
    vectors = word_vectors(Pairs(keys, np.ones(len(keys)), 9, 8), 16, 0.75)
    same = torch.arange(8)[:, None] // 4 == torch.arange(8) // 4
    assert torch.allclose(vectors[:8] @ vectors[:8].T, torch.where(same, 1.0, -1.0), atol=1e-4)
    assert not vectors[8].any()
    assert not vectors[:, 2:].any()


def test_of_n_tokens_there_are_half_as_many_axes() -> None:
    """Each token stands beside the next one, in a ring of five, whose matrix has five axes."""
    keys = np.array([one * 5 + (one + 1) % 5 for one in range(5)])
    assert word_vectors(Pairs(np.sort(keys), np.ones(5), 5, 5), 8, 0.75).any(dim=0).tolist() == [True] * 2 + [False] * 6


def test_where_nothing_is_near_anything_no_token_has_a_vector() -> None:
    assert not word_vectors(Pairs(np.zeros(0, np.int64), np.zeros(0), 5, 5), 8, 0.75).any()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of words of one kind each: 8 kinds of 12 words."""
    draw, path = random.Random(0), tmp_path_factory.mktemp("texts") / "texts.txt"
    kinds = [[f"{first}{last}" for last in ("a", "e", "i", "o", "u", "y", "an", "en", "in", "on", "un", "yn")] for first in FIRST]
    path.write_text("\n".join(" ".join(draw.choices(draw.choice(kinds), k=12)) for _ in range(200)))
    return path


def toy(texts: Path, recipe: str = "modernbert_short", **changes: object) -> Pretraining:
    run = RECIPES[recipe](TextFiles(paths=(str(texts),), split="line"), Steps(count=2), "toy")
    assert isinstance(run, Pretraining)
    run = replace(run, encoder=replace(run.encoder, num_layers=1), held_out=0.2, embeddings=Cooccurrence())
    training = replace(run.training, optimizer=AdamW(lr=1e-6))
    return replace(run, training=training, tokenizer=WordPiece(vocab_size=150), **changes)  # type: ignore[arg-type]


def turned(table: Tensor, vectors: Tensor) -> Tensor:
    """The cosines of a table's rows and the vectors, of tokens that have one."""
    known = vectors.any(dim=1)
    return nn.functional.cosine_similarity(table[: len(vectors)][known], vectors[known])


def test_a_run_begins_with_the_vectors_of_the_text_it_learns_from(texts: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = toy(texts)
    pretrain(run, tmp_path / "run", said.append, device="cpu")
    vectors = load_file(tmp_path / "run" / VECTORS)["vectors"]
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    (table,) = (one for name, one in weights.items() if "embeddings" in name and one.shape[0] == run.encoder.vocab_size)
    assert turned(table, vectors).min() > 0.99  # two small steps away
    shards = Shards(tmp_path / "run" / "data", Tokenizer.load(tmp_path / "run" / "tokenizer"))
    kept, held = hold_out(200, 0.2, run.training.seed)
    assert len(held) > 20
    tokens = int(shards.lengths[kept].sum())
    assert any(f"by {tokens:,} tokens of text" in line for line in said)


def test_vectors_are_counted_once_and_again_for_other_settings(texts: Path, tmp_path: Path) -> None:
    run, told = toy(texts), list[str]()
    tokenizer = prepare_tokenizer(run, tmp_path, told.append)
    opened = prepare_shards(run, tmp_path, tokenizer, told.append)

    def counted(run: Pretraining) -> bool:
        told.clear()
        prepare_word_vectors(run, tmp_path, tokenizer, opened, told.append)
        return bool(told)

    assert [counted(run), counted(run)] == [True, False]
    others = (
        replace(run, embeddings=Cooccurrence(window=2)),
        replace(run, held_out=0.1),
        replace(run, training=replace(run.training, seed=1)),
        replace(run, encoder=replace(run.encoder, embedding=replace(run.encoder.embedding, size=8))),
    )
    for other in others:
        assert [counted(other), counted(other), counted(run)] == [True, False, True]
    assert prepare_word_vectors(replace(run, embeddings=None), tmp_path, tokenizer, opened, told.append) is None


def objective(run: Pretraining, **changes: object) -> ReplacedTokenDetection:
    made = build(replace(run, **changes), Vocabulary.unknown(run.encoder.vocab_size))  # type: ignore[arg-type]
    assert isinstance(made, ReplacedTokenDetection)
    return made


@pytest.mark.parametrize("sharing", [WholeEmbedding(), DisentangledTables(), NothingShared()])
def test_generator_and_discriminator_begin_alike(texts: Path, sharing: Sharing) -> None:
    """Whatever they share; a table of its own that is narrower has the first axes."""
    run = toy(texts, "modernbert_rtd")
    size = run.encoder.hidden_size
    vectors = torch.zeros(100, size)
    vectors[5:] = nn.functional.normalize(torch.randn(95, size, generator=torch.Generator().manual_seed(0)))
    settings = ReplacedTokens(sharing=sharing)
    if isinstance(sharing, NothingShared):
        narrow = replace(run.encoder, embedding=replace(run.encoder.embedding, size=8))
        settings = replace(settings, generator=GivenEncoder(encoder=narrow))
    made = objective(run, replaced_tokens=settings)
    before = made.encoder.embedding.tokens.weight.detach().clone()
    begin_with(vectors, made)
    ours, theirs = made.encoder.embedding.tokens.weight, made.generator.embedding.tokens.weight
    assert turned(ours, vectors).min() > 0.999
    assert turned(theirs, vectors[:, : theirs.shape[1]]).min() > 0.999
    assert torch.equal(ours[:5], before[:5])  # nothing is known of these
    assert torch.equal(ours[100:], before[100:])
    assert torch.allclose(ours[5:100].norm(dim=1), before[5:100].norm(dim=1).mean().expand(95), rtol=1e-5)


def table_of(run: Path) -> Tensor:
    """The table of tokens of a run's last checkpoint."""
    weights = load_file(checkpoint.complete(run)[-1] / "weights.safetensors")
    return next(one for one in weights.values() if len(one) > 150)


def test_only_the_first_stage_begins_with_them(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Tensor] = []

    def spied(vectors: Tensor, objective: nn.Module) -> None:
        begun.append(vectors)
        begin_with(vectors, objective)

    monkeypatch.setattr("bothways.recipes.pretraining.begin_with", spied)
    stages = (Stage(name="first"), Stage(name="second", max_length=32))
    pretrain_stages(Staged(base=toy(texts), stages=stages), tmp_path / "run", print, device="cpu")
    (vectors,) = begun
    assert turned(table_of(tmp_path / "run" / "1-first"), vectors).min() > 0.99


def test_a_ladder_compares_them_with_fresh_weights(texts: Path, tmp_path: Path) -> None:
    with_them = toy(texts)
    rungs = (Rung("fresh", None, "-", replace(with_them, embeddings=None)), Rung("vectors", "fresh", "word vectors", with_them))
    said: list[str] = []
    climb(rungs, tmp_path / "runs", said.append, device="cpu")
    assert sum("begin as word vectors" in line for line in said) == 1
    (vectors,) = (load_file(path)["vectors"] for path in (tmp_path / "runs").rglob(VECTORS))
    assert turned(table_of(tmp_path / "runs" / "vectors"), vectors).min() > 0.99
    assert turned(table_of(tmp_path / "runs" / "fresh"), vectors).min() < 0.5
    assert sum("training a tokenizer" in line for line in said) == 1


def test_a_wider_table_beside_it_is_refused(texts: Path) -> None:
    run = toy(texts, "modernbert_rtd")
    wide = replace(run.encoder, embedding=replace(run.encoder.embedding, size=2 * run.encoder.hidden_size))
    settings = ReplacedTokens(sharing=NothingShared(), generator=GivenEncoder(encoder=wide))
    with pytest.raises(InputError, match="a generator's table of 96 columns beside one of 48"):
        check(replace(run, replaced_tokens=settings))


def test_what_has_weights_already_does_not_begin_with_them(texts: Path) -> None:
    with pytest.raises(InputError, match="embeddings: would replace those of start"):
        check(toy(texts, start="somewhere"))
    student = Distillation(base=toy(texts), teacher="somewhere", method=DISTILBERT)
    with pytest.raises(InputError, match=r"base\.embeddings: a student begins as"):
        distil(student, texts.parent / "student")


def test_a_recipe_that_has_them_goes_on_from_a_model_and_makes_students(texts: Path, tmp_path: Path) -> None:
    pretrain(toy(texts, embeddings=None), tmp_path / "run", print, device="cpu")
    run, model = toy(texts), str(tmp_path / "run" / "model")
    further = continued(run, model)
    check(further)
    assert (further.start, further.embeddings) == (model, None)
    assert distillation(run.source, Steps(count=1), model, run).base.embeddings is None
