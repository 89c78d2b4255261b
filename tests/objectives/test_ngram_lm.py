"""Explicit n-grams: what is seen of what, which losses there are, packed as alone; and the generator's n-grams."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import CONFIGS, SIZE, VOCAB, entering, gap, random_batch, random_ids, randomise
from tests.data.test_lexicon import lexicon
from torch import Tensor

from bothways.data.masking import Masking
from bothways.data.sample import Sample
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.encoder import Encoder
from bothways.encoder.generator import Narrowed, generator_of
from bothways.errors import InputError
from bothways.layers.heads import MaskedLm, MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.layers.replaced_token import ReplacedToken
from bothways.layers.shifted import ShiftedEmbedding
from bothways.objectives.ngram_lm import ExplicitNGrams, NGramInputs, NGramLanguageModeling
from bothways.objectives.ngram_relations import NGramRelationModeling, RelatedInputs
from bothways.objectives.replaced_token import ReplacedTokens
from bothways.objectives.sharing import DisentangledTables, NothingShared, SharedTables, Sharing, WholeEmbedding
from bothways.recipes.gramming import initialise_relations
from bothways.training.step import loss, means, step

MASK = 4
# pairs of 30 tokens and some triples: random texts over 96 tokens have a few of them
PAIRS = tuple((a, b) for a in range(5, 35) for b in range(5, 35))
LEXICON = lexicon(*PAIRS, *((a, b, c) for a, b in PAIRS[:20] for c in range(5, VOCAB)), vocab_size=VOCAB)
VOCABULARY = Vocabulary(VOCAB, MASK, frozenset(range(5)), lexicon=LEXICON)
MASKING = Masking(rate=0.4, mask=1.0, random=0.0)
HEAD = MaskedLmHead(transform=Transform(norm=LayerNorm()))
TRUNKS = ("bert", "albert", "modernbert", "neobert", "mpnet", "ernie_gram", "mosaicbert", "longformer", "llama", "deberta")
trunks = pytest.mark.parametrize("trunk", TRUNKS)
SHARINGS: tuple[Sharing, ...] = (WholeEmbedding(), SharedTables(), DisentangledTables(), NothingShared())
GOLDEN = [55.25776602691441, 55.07319664443474]


def objective(trunk: str = "ernie_gram", fine: float | None = 1.0, masking: Masking = MASKING) -> NGramLanguageModeling:
    encoder = Encoder(replace(CONFIGS[trunk], num_layers=2))
    head = MaskedLm(HEAD, SIZE, VOCAB, CONFIGS[trunk].embedding.size)
    made = NGramLanguageModeling(encoder, head, ExplicitNGrams(fine=fine), masking, VOCABULARY)
    randomise(made, seed=1)
    return made.eval()


def related(trunk: str = "ernie_gram", sharing: Sharing | None = None) -> NGramRelationModeling:
    sharing = sharing or WholeEmbedding()
    width = 1 / 3 if isinstance(sharing, WholeEmbedding | NothingShared) else 1.0
    chosen = ReplacedTokens(generator=Narrowed(width=width), sharing=sharing)
    masked = objective(trunk)
    small = generator_of(chosen.generator, masked.encoder.config)
    head = MaskedLm(HEAD, small.hidden_size, VOCAB, small.embedding.size)
    made = NGramRelationModeling(masked, ReplacedToken(chosen.head, SIZE), Encoder(small), head, chosen)
    randomise(made, seed=1)
    return made.eval()


def samples(lengths: list[int]) -> list[Sample]:
    return [Sample(id=100 + i, sequences=(ids.astype("int32"),)) for i, ids in enumerate(random_ids(lengths))]


OBJECTIVES = {trunk: objective(trunk) for trunk in TRUNKS}
RELATED = {trunk: related(trunk) for trunk in ("ernie_gram", "modernbert")}


def attended(task: NGramLanguageModeling, inputs: NGramInputs) -> Tensor:
    """Which vectors that enter the encoder reach which output, bool [tokens, tokens]: by gradients."""
    with entering(task.encoder) as entered:
        hidden = task.encode(inputs)
    slope = torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    rows = [torch.autograd.grad((one * slope).sum(), entered[0], retain_graph=True)[0].abs().sum(dim=1) > 0 for one in hidden]
    return torch.stack(rows)


# -- what is seen of what ----------------------------------------------------------------------------


@trunks
def test_masks_for_tokens_see_the_text_and_themselves(trunk: str) -> None:
    """Reference check 15.(4): not each other, nor the n-gram's tokens, which are nowhere in the input; nothing sees them."""
    task = OBJECTIVES[trunk]
    inputs = task.prepare(samples([13, 9]), 0, 0)
    assert inputs.beside is not None
    assert inputs.ngrams > 0
    segments = inputs.batch.ragged.segments
    asking = torch.zeros(len(segments), dtype=torch.bool)
    asking[inputs.beside.asking.rows] = True
    same = segments[:, None] == segments[None, :]
    seen = same & (~asking[None, :] | torch.eye(len(segments), dtype=torch.bool))
    found = attended(task, inputs)
    if trunk == "llama":  # causal: by positions
        places = inputs.batch.ragged.positions
        seen &= places[None, :] <= places[:, None]
    elif trunk in ("modernbert", "longformer"):  # windows of 4 in two layers: not all is reached, but nothing else is
        assert not (found & ~seen).any()
        assert found[asking].sum() > found[asking][:, asking].sum()
        return
    assert torch.equal(found, seen)


@trunks
def test_what_stands_beside_a_text_changes_nothing_of_it(trunk: str) -> None:
    """And what a mask for a token makes of the text is a function of its symbol, its place and the text alone."""
    task = OBJECTIVES[trunk]
    inputs = task.prepare(samples([30, 7, 12]), 0, 0)
    assert inputs.beside is not None
    without = replace(inputs, batch=inputs.text, beside=None, rows=inputs.text_rows, pieces=inputs.pieces[:0])
    with torch.no_grad():
        whole, alone = task.encode(inputs), task.encode(without)
    assert gap(whole[inputs.beside.seen.rows], alone) <= 1e-5


def test_where_masks_for_tokens_stand() -> None:
    """Reference check 15.(1): positions of the shortened text follow one another, those beside it are the n-gram's."""
    ids = [5, 6, 90, 50, 45, 7, 46]  # a triple, then no other
    task = objective(masking=replace(MASKING, rate=1.0))
    inputs = task.prepare([Sample(id=0, sequences=(np.array(ids, np.int32),)), Sample(id=1, sequences=(np.array([60]),))], 0, 0)
    first, count = VOCAB, len(LEXICON)
    number = LEXICON.units(np.array(ids), np.array([7])).numbers[0]
    assert inputs.batch.ragged.lengths == (5 + 7, 1 + 1)
    assert inputs.batch.ids.tolist() == [MASK] * 5 + [first + count + i for i in (0, 1, 2, 0, 0, 0, 0)] + [MASK, first + count]
    assert inputs.batch.ragged.positions.tolist() == [0, 1, 2, 3, 4, 0, 0, 0, 1, 2, 3, 4, 0, 0]
    assert inputs.labels.tolist() == [first + number, 50, 45, 7, 46, 60]
    assert inputs.rows.tolist() == [0, 1, 2, 3, 4, 12]
    assert inputs.pieces.tolist() == [*ids, 60]
    assert inputs.text.ragged.positions.tolist() == [0, 1, 2, 3, 4, 0]
    assert inputs.text_rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert (inputs.tokens, inputs.ngrams, inputs.hidden) == (8, 1, 6)


# -- losses ------------------------------------------------------------------------------------------


def by_hand(task: NGramLanguageModeling, inputs: NGramInputs) -> tuple[Tensor, Tensor]:
    """Both losses from logits of every row, those not predicted left out by `ignore_index` (reference check X3)."""
    assert inputs.beside is not None
    tokens, head = task.encoder.embedding.tokens.weight, task.head
    hidden = task.encode(inputs)
    assert head.bias is not None
    assert task.ngrams.bias is not None
    logits = F.linear(
        head.transform(hidden), torch.cat((tokens, task.ngrams.rows.weight)), torch.cat((head.bias, task.ngrams.bias))
    )
    coarse, fine = (torch.full((len(hidden),), -100) for _ in range(2))
    coarse[inputs.rows], fine[inputs.beside.asking.rows] = inputs.labels, inputs.pieces
    return tuple(  # type: ignore[return-value]
        F.cross_entropy(one, labels, ignore_index=-100, reduction="sum")
        for one, labels in ((logits, coarse), (logits[:, :VOCAB], fine))
    )


def test_both_losses_and_their_gradients() -> None:
    task = OBJECTIVES["ernie_gram"]
    inputs = task.prepare(samples([30, 7, 12]), 0, 0)
    sums = task(inputs)
    found = [sums["loss"], sums["fine"]]
    for ours, theirs in zip(found, by_hand(task, inputs), strict=True):
        assert gap(ours, theirs) <= 1e-5
        parameters = list(task.parameters())
        some, others = (
            torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            for one in (ours, theirs)
        )
        largest = torch.stack([one.abs().max() for one in others])
        assert max(gap(a, b, scale=largest) for a, b in zip(some, others, strict=True)) <= 1e-5


def test_nothing_else_is_learned_from() -> None:
    """Reference check X3: what stands at other places enters no loss, and what does is what was there."""
    task = OBJECTIVES["ernie_gram"]
    inputs = task.prepare(samples([30, 7, 12]), 0, 0)
    assert inputs.beside is not None
    with torch.no_grad():
        hidden = task.encode(inputs)
        untouched = torch.ones(len(hidden), dtype=torch.bool)
        untouched[inputs.rows] = untouched[inputs.beside.asking.rows] = False
        assert untouched.any()
        moved = torch.where(untouched[:, None], hidden + 3.0, hidden)
        first, second = task.read(hidden, inputs), task.read(moved, inputs)
        assert all(torch.equal(first[name], second[name]) for name in first)
        hidden[inputs.rows[0]] += 3.0
        assert task.read(hidden, inputs)["loss"] != first["loss"]


def test_n_grams_are_of_the_sums() -> None:
    """Fails where the n-grams are silently left out: the text is shorter, and n-grams are predicted."""
    task = OBJECTIVES["bert"]
    inputs = task.prepare(samples([40, 60]), 0, 0)
    sums, counts = task(inputs), task.counts(inputs)
    assert set(sums) == set(counts) == set(task.names)
    assert sums["ngrams"] == (inputs.labels >= VOCAB).sum() > 0
    assert sums["shortened"] == 100 - len(inputs.text.ids) > 0
    assert (counts["shortened"], counts["loss"], counts["fine"]) == (100, len(inputs.labels), len(inputs.pieces))
    assert len(inputs.pieces) == len(inputs.labels) + int(sums["shortened"])
    assert dict(task.weights) == {"loss": 1.0, "fine": 1.0}


def test_without_tokens_of_n_grams() -> None:
    task = objective(fine=None)
    inputs = task.prepare(samples([40, 60]), 0, 0)
    assert inputs.beside is None
    assert inputs.batch.ragged.positions.tolist() == [
        *range(inputs.batch.ragged.lengths[0]),
        *range(inputs.batch.ragged.lengths[1]),
    ]
    with torch.no_grad():
        sums, whole = task(inputs), OBJECTIVES["ernie_gram"].prepare(samples([40, 60]), 0, 0)
    assert set(sums) == set(task.counts(inputs)) == set(task.names) - {"fine", "fine_accuracy"}
    assert torch.equal(whole.text.ids, inputs.batch.ids)
    assert dict(task.weights) == {"loss": 1.0}
    assert task.ngrams.symbols is None


@trunks
@settings(max_examples=3)
@given(lengths=st.lists(st.integers(0, 14), min_size=1, max_size=5), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_packed_is_alone(trunk: str, lengths: list[int], seed: int, epoch: int) -> None:
    assert_packed(OBJECTIVES[trunk], lengths, seed, epoch)


@pytest.mark.parametrize("trunk", sorted(RELATED))
@settings(max_examples=3)
@given(lengths=st.lists(st.integers(0, 14), min_size=1, max_size=5), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_packed_is_alone_with_a_generator(trunk: str, lengths: list[int], seed: int, epoch: int) -> None:
    assert_packed(RELATED[trunk], lengths, seed, epoch)


def assert_packed(task: Any, lengths: list[int], seed: int, epoch: int) -> None:
    """All sums and counts of a batch are those of its samples alone."""
    given_samples = samples(lengths)
    packed, alone = task.prepare(given_samples, seed, epoch), [task.prepare([one], seed, epoch) for one in given_samples]
    with torch.no_grad():
        together, apart = task(packed), [task(one) for one in alone]
    assert together.keys() == task.counts(packed).keys() == set(task.names)
    for key in task.names:
        assert gap(together[key], torch.stack([one[key] for one in apart]).sum()) <= 1e-5, key
        assert task.counts(packed)[key] == sum(task.counts(one)[key] for one in alone), key


def test_the_model_is_what_is_left_without_n_grams() -> None:
    """Reference check 15.(5): dropping the classifier of n-grams leaves what is fine-tuned as it was."""
    task = objective("ernie_gram")
    batch = random_batch([9, 14])
    with torch.no_grad():
        before = task.encoder(batch).hidden, task.head(task.encoder(batch).hidden, task.encoder.embedding.tokens.weight)
        randomise(task.ngrams, seed=9)
        task.ngrams = None  # type: ignore[assignment]
        after = task.encoder(batch).hidden, task.head(task.encoder(batch).hidden, task.encoder.embedding.tokens.weight)
    plain = Encoder(task.encoder.config).eval()
    plain.load_state_dict(task.encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(plain(batch).hidden, before[0])
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    names = {name for name, _ in task.named_parameters()}
    assert names == {f"encoder.{name}" for name in plain.state_dict()} | {f"head.{name}" for name in task.head.state_dict()}


# -- the generator's n-grams -------------------------------------------------------------------------


def test_the_generators_n_grams_stand_in_the_text() -> None:
    """The generator sees masks; the model what it drew, one token for each; and learns what stood there."""
    task = RELATED["ernie_gram"]
    inputs = task.prepare(samples([40, 60]), 0, 0)
    masked = inputs.masked
    with torch.no_grad():
        generated, drawn = task.generate(inputs)
        sums = task.relate(inputs, drawn)
        shown = masked.showing(drawn)
        hidden = task.masked.encode(shown)
        plain = task.masked.read(hidden, shown)
        assert shown.beside is not None
        logits = task.detector(hidden[shown.beside.seen.rows], shown.text.ragged)
    assert (masked.text.ids[masked.text_rows] == MASK).all()
    assert torch.equal(shown.text.ids[masked.text_rows], drawn)
    assert (drawn >= VOCAB).any()
    assert drawn.max() < VOCAB + len(LEXICON)
    assert sums["loss"] == plain["loss"]
    assert sums["fine"] == plain["fine"]
    truth = torch.zeros(len(logits))
    truth[masked.text_rows] = (drawn != masked.labels).float()
    assert gap(sums["replaced"], F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")) <= 1e-5
    assert task.counts(inputs)["replaced"] == len(masked.text.ids)
    assert generated.keys() | sums.keys() == set(task.names)
    assert dict(task.weights) == {"loss": 1.0, "fine": 1.0, "generator": 1.0, "replaced": 50.0}


def test_originals_are_labelled_zero() -> None:
    task = RELATED["ernie_gram"]
    inputs = task.prepare(samples([30, 7]), 0, 0)
    with torch.no_grad():
        sums = task.relate(inputs, inputs.masked.labels)
    assert (sums["share_replaced"], sums["share_found"]) == (0, 0)


def gradients(task: NGramRelationModeling, inputs: RelatedInputs, terms: tuple[str, ...]) -> set[str]:
    """The names of the parameters that these losses move."""
    task.zero_grad()
    sums = task(inputs)
    sum((sums[term] for term in terms), torch.zeros(())).backward()
    return {name for name, one in task.named_parameters() if one.grad is not None and one.grad.any()}


@pytest.mark.parametrize("sharing", SHARINGS, ids=lambda one: one.type)
def test_what_each_network_learns_from(sharing: Sharing) -> None:
    """The model's losses never reach what is the generator's alone; tables that are shared learn from both."""
    task = related(sharing=sharing)
    inputs = task.prepare(samples([30, 7, 12]), 0, 0)
    own = {name for name, one in task.named_parameters() if one in task.of_generator()}
    of_generator = gradients(task, inputs, ("generator",))
    of_model = gradients(task, inputs, ("loss", "fine", "replaced"))
    assert own
    assert own & of_model == set()
    assert own - of_generator <= {"generator_head.decoder.weight"}
    table = "masked.ngrams.rows.weight"
    match sharing:
        case NothingShared():
            assert (table in of_model, table in of_generator) == (True, False)
        case DisentangledTables():
            assert isinstance(task.masked.ngrams.rows, ShiftedEmbedding)
            assert "masked.ngrams.rows.delta" in of_model - of_generator
            assert task.masked.ngrams.rows.base is task.generator_ngrams.rows
        case _:
            assert table in of_model & of_generator
    assert {
        "masked.ngrams.symbols.weight",
        "detector.out.weight",
        "masked.head.transform.dense.weight",
    } <= of_model - of_generator


def test_flops() -> None:
    task = RELATED["ernie_gram"]
    inputs = task.prepare(samples([30, 7]), 0, 0)
    masked = inputs.masked
    assert task.flops(inputs) > task.masked.flops(masked) > task.encoder.flops(masked.text.ragged)
    few = replace(masked, labels=masked.labels[:1], rows=masked.rows[:1], pieces=masked.pieces[:0])
    per_token, per_ngram = 2 * (SIZE * SIZE + VOCAB * SIZE), 2 * len(LEXICON) * SIZE
    saved = (len(masked.labels) - 1 + len(masked.pieces)) * per_token + (len(masked.labels) - 1) * per_ngram
    assert task.masked.flops(masked) - task.masked.flops(few) == saved


@pytest.mark.parametrize(("trunk", "fine"), [("deberta-v2", 1.0), ("m2_bert", 1.0)])
def test_trunks_that_look_at_neighbours_are_refused(trunk: str, fine: float) -> None:
    with pytest.raises(InputError, match="a layer that is not attention"):
        objective(trunk, fine)
    assert len(objective(trunk, None).prepare(samples([9]), 0, 0).text.ids) <= 9


# -- learning ----------------------------------------------------------------------------------------


def losses(task: NGramRelationModeling, count: int) -> list[float]:
    """The weighted loss of so many steps on the same few texts, from fresh weights."""
    initialise_relations(task.train(), seed=0)
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    found = []
    for number in range(count):
        inputs = task.prepare(samples([40, 25, 31]), 0, number)
        optimizer.zero_grad()
        sums, counts = step(task, [inputs], lambda place, number=number: torch.manual_seed(number))  # type: ignore[misc]
        optimizer.step()
        values = means({name: one.item() for name, one in sums.items()}, {name: one.item() for name, one in counts.items()})
        found.append(loss(task.weights, values))
    return found


def test_the_loss_falls_and_is_the_same_every_time() -> None:
    """From seed 0, on a tiny ERNIE-Gram: the recorded figures, twice to the bit."""
    found = losses(related(), 10)
    assert found[:2] == losses(related(), 2)
    assert sum(found[-2:]) < 0.95 * sum(found[:2]), found
    assert found[:2] == pytest.approx(GOLDEN, rel=1e-5)
