"""Replaced token detection: what is drawn, what is labelled, and where gradients go."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import CONFIGS, SIZE, VOCAB, gap, random_ids, randomise

from bothways.data.masking import Masking, Vocabulary
from bothways.data.sample import Sample
from bothways.encoder.encoder import Encoder
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.encoder.generator import Narrowed, generator_of
from bothways.layers.heads import MaskedLm, MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.layers.replaced_token import ReplacedToken, ReplacedTokenHead
from bothways.objectives.replaced_token import ReplacedTokenDetection, ReplacedTokens, detection
from bothways.objectives.sharing import DisentangledTables, NothingShared, SharedTables, Sharing, WholeEmbedding
from bothways.recipes.detecting import detection_groups, initialise_detection
from bothways.training.optimizer import AdamW, default_groups, parameter_table
from bothways.training.schedule import Linear, Steps
from bothways.training.settings import TrainingConfig
from bothways.training.step import loss, means, step
from bothways.training.update import Updates

MASK = 4
VOCABULARY = Vocabulary(VOCAB, MASK, frozenset(range(5)))
MASKING = Masking(rate=0.3, mask=0.85, random=0.0)
HEAD = MaskedLmHead(transform=Transform(norm=LayerNorm()))
GOLDEN = [39.248447, 39.045418, 38.773114]
SHARINGS: tuple[Sharing, ...] = (WholeEmbedding(), SharedTables(), DisentangledTables(), NothingShared())
TRUNKS = ("bert", "albert", "modernbert", "neobert", "deberta-v2", "m2_bert", "llama")
sharings = pytest.mark.parametrize("sharing", SHARINGS, ids=lambda one: one.type)
trunks = pytest.mark.parametrize("trunk", TRUNKS)
# as wide as the discriminator; narrower, with a map of its own behind the embedding; with a decoder, where a trunk can have one
GENERATORS: list[tuple[str, float, MaskDecoderHead | None]] = [
    *((trunk, 1.0, None) for trunk in TRUNKS),
    *((trunk, 1 / 3, None) for trunk in ("bert", "modernbert")),
    *((trunk, 1 / 3, MaskDecoderHead()) for trunk in ("bert", "albert", "deberta-v2")),
]


def objective(trunk: str = "bert", settings: ReplacedTokens | None = None, masking: Masking = MASKING) -> ReplacedTokenDetection:
    settings = settings or ReplacedTokens(generator=Narrowed(width=1 / 3))
    config = replace(CONFIGS[trunk], num_layers=2)
    small = generator_of(settings.generator, config)
    head = MaskedLm(HEAD, small.hidden_size, VOCAB, small.embedding.size)
    detector = ReplacedToken(settings.head, SIZE)
    made = ReplacedTokenDetection(Encoder(config), detector, Encoder(small), head, settings, masking, VOCABULARY)
    randomise(made, seed=1)
    return made.eval()


def shared(sharing: Sharing, width: float = 1.0, decoder: MaskDecoderHead | None = None) -> ReplacedTokens:
    return ReplacedTokens(generator=Narrowed(width=width), sharing=sharing, decoder=decoder)


def samples(lengths: list[int]) -> list[Sample]:
    return [Sample(id=100 + i, sequences=(ids.astype("int32"),)) for i, ids in enumerate(random_ids(lengths))]


OBJECTIVES = {trunk: objective(trunk) for trunk in TRUNKS}


# -- what is drawn and labelled ----------------------------------------------------------------------


def test_the_discriminator_reads_the_text_with_drawn_tokens() -> None:
    """Not the masked text: elsewhere the tokens are the text's, and no mask is left where none is drawn."""
    task = OBJECTIVES["bert"]
    given_samples = samples([40, 60])
    original = torch.cat([torch.from_numpy(sample.sequences[0]).long() for sample in given_samples])
    inputs = task.prepare(given_samples, 0, 0)
    rows = inputs.masked.rows
    assert (inputs.masked.batch.ids[rows] == MASK).any()
    with torch.no_grad():
        task.generator_head.bias[MASK] = -1e4  # type: ignore[index]
        _, drawn = task.generate(inputs)
        randomise(task, seed=1)
    assert torch.equal(inputs.original, original)
    read = inputs.replaced(drawn)
    assert not (read == MASK).any()
    assert torch.equal(read[rows], drawn)
    untouched = torch.ones(100, dtype=torch.bool)
    untouched[rows] = False
    assert torch.equal(read[untouched], original[untouched])


def test_a_mask_of_the_text_stays() -> None:
    sample = Sample(id=0, sequences=(random_ids([30])[0].astype("int32"),))
    sample.sequences[0][7] = MASK
    task = OBJECTIVES["bert"]
    inputs = task.prepare([sample], 0, 0)
    assert inputs.original[7] == MASK
    assert inputs.replaced(inputs.masked.labels)[7] == MASK


@trunks
def test_originals_are_labelled_zero(trunk: str) -> None:
    """A sampler that gives back the text: all labels are 0, also at the chosen places."""
    task = OBJECTIVES[trunk]
    inputs = task.prepare(samples([30, 7]), 0, 0)
    with torch.no_grad():
        sums = task.discriminate(inputs, inputs.masked.labels)
        batch = inputs.masked.batch.with_ids(inputs.original)
        logits = task.head(task.encoder(batch).hidden, batch.ragged)
    assert sums["share_replaced"] == 0
    assert sums["share_found"] == 0
    assert gap(sums["replaced"], F.softplus(logits).sum()) <= 1e-5


def test_a_label_is_one_only_where_the_token_differs() -> None:
    """The loss is over all tokens, special ones included, not over the chosen ones."""
    task = OBJECTIVES["bert"]
    inputs = task.prepare(samples([30, 7]), 0, 0)
    drawn = inputs.masked.labels.clone()
    drawn[::2] = (drawn[::2] + 1) % VOCAB
    truth = torch.zeros(37)
    truth[inputs.masked.rows[::2]] = 1.0
    with torch.no_grad():
        sums = task.discriminate(inputs, drawn)
        batch = inputs.masked.batch.with_ids(inputs.replaced(drawn))
        logits = task.head(task.encoder(batch).hidden, batch.ragged)
    assert gap(sums["replaced"], F.binary_cross_entropy_with_logits(logits, truth, reduction="sum")) <= 1e-5
    assert sums["share_replaced"] == len(inputs.masked.rows[::2])
    assert sums["share_flagged"] == (logits > 0).sum()
    assert sums["share_found"] == ((logits > 0) & (truth == 1)).sum()
    assert sums["discriminator_accuracy"] == ((logits > 0) == (truth == 1)).sum()
    assert task.counts(inputs)["replaced"] == 37


def test_tokens_are_drawn_from_the_generator() -> None:
    """Shares of what is drawn over many passes are the generator's probabilities (a 99.9 % interval of a binomial)."""
    task = objective("bert", masking=Masking(rate=0.3, mask=1.0, random=0.0))
    inputs = task.prepare(samples([20]), 0, 0)
    rows = inputs.masked.rows
    with torch.no_grad():
        hidden = task.generator(inputs.masked.batch).hidden[rows]
        shares = task.generator_head(hidden, task.generator.embedding.tokens.weight).softmax(dim=1)
        uniforms = torch.rand(500, len(rows))
        drawn = torch.stack([task.generate(replace(inputs, uniforms=one))[1] for one in uniforms])
    likeliest = shares.argmax(dim=1)
    found, expected = (drawn == likeliest).double().mean(dim=0), shares.gather(1, likeliest[:, None])[:, 0].double()
    assert ((found - expected).abs() <= 3.3 * (expected * (1 - expected) / 500).sqrt()).all()


def test_the_correct_token_can_be_disallowed() -> None:
    task = objective("bert", ReplacedTokens(generator=Narrowed(width=1 / 3), disallow_correct=True))
    inputs = task.prepare(samples([40, 60]), 0, 0)
    with torch.no_grad():
        for place, label in enumerate(inputs.masked.labels):
            task.generator_head.bias.zero_()[label] = 1e3  # type: ignore[union-attr]
            drawn = task.generate(inputs)[1]
            assert drawn[place] != label
            assert drawn.max() < VOCAB, "a token there is, however sure of the correct one the generator was"


def test_what_is_drawn_is_a_function_of_seed_epoch_and_sample() -> None:
    task = OBJECTIVES["bert"]
    given_samples = samples([40, 60, 20])
    first, again = task.prepare(given_samples, 0, 0), task.prepare(given_samples, 0, 0)
    assert torch.equal(first.uniforms, again.uniforms)
    assert first.uniforms.min() >= 0
    assert first.uniforms.max() < 1
    assert len(set(first.uniforms.tolist())) == len(first.uniforms)
    alone = task.prepare(given_samples[1:2], 0, 0)
    own = (first.masked.rows >= 40) & (first.masked.rows < 100)
    assert torch.equal(first.uniforms[own], alone.uniforms)
    for seed, epoch in ((1, 0), (0, 1)):
        other = task.prepare(given_samples, seed, epoch)
        assert not set(first.uniforms.tolist()) & set(other.uniforms.tolist())


@trunks
@settings(max_examples=6)
@given(lengths=st.lists(st.integers(0, 14), min_size=1, max_size=5), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_packed_is_alone(trunk: str, lengths: list[int], seed: int, epoch: int) -> None:
    """All sums and counts of a batch are those of its samples alone, drawn tokens included; empty slots too."""
    task, given_samples = OBJECTIVES[trunk], samples(lengths)
    packed = task.prepare(given_samples, seed, epoch)
    alone = [task.prepare([sample], seed, epoch) for sample in given_samples]
    with torch.no_grad():
        together, apart = task(packed), [task(one) for one in alone]
    assert together.keys() == task.counts(packed).keys() == set(task.names)
    for key in task.names:
        assert gap(together[key], torch.stack([one[key] for one in apart]).sum()) <= 1e-5, key
        assert task.counts(packed)[key] == sum(task.counts(one)[key] for one in alone), key


def test_nothing_chosen() -> None:
    task = objective("bert", masking=Masking(rate=0.0))
    sums = task(task.prepare(samples([5]), 0, 0))
    assert (sums["generator"].item(), sums["share_replaced"].item()) == (0, 0)
    (sums["generator"] + sums["replaced"]).backward()


# -- where gradients go ------------------------------------------------------------------------------


def gradients(task: ReplacedTokenDetection, term: str) -> dict[str, torch.Tensor | None]:
    """Of one loss term, by name; None where there is none at all, or none but zeros."""
    inputs = task.prepare(samples([30, 7, 12]), 0, 0)
    task.zero_grad()
    task(inputs)[term].backward()
    grads = {name: parameter.grad for name, parameter in task.named_parameters()}
    return {name: grad if grad is not None and grad.any() else None for name, grad in grads.items()}


@pytest.mark.parametrize(("trunk", "width", "decoder"), GENERATORS, ids=lambda one: getattr(one, "type", None))
@sharings
def test_detection_leaves_what_is_the_generators_alone_without_gradient(
    trunk: str, width: float, decoder: MaskDecoderHead | None, sharing: Sharing
) -> None:
    task = objective(trunk, shared(sharing, width, decoder))
    parts = (task.generator, task.generator_head, *([task.decoder] if task.decoder else []))
    generators = {id(parameter) for part in parts for parameter in part.parameters()}
    own = generators - (set(map(id, task.encoder.parameters())) if not isinstance(sharing, DisentangledTables) else set())
    found = gradients(task, "replaced")
    names = {name for name, parameter in task.named_parameters() if id(parameter) in own}
    assert ("generator.embedding.project.weight" in names) == (width < 1 or trunk == "albert")
    assert ("decoder.positions.weight" in names) == (decoder is not None)
    assert {name for name in names if found[name] is not None} == set()
    # and the generator's loss, which moves all of them, moves nothing of the discriminator's own
    theirs = gradients(task, "generator")
    assert {name for name in names if theirs[name] is None} == set()
    others = {name for name, parameter in task.named_parameters() if id(parameter) not in generators}
    assert {name for name in others if theirs[name] is not None} == set()


def test_a_shared_embedding_learns_from_both() -> None:
    """ELECTRA's: tokens, positions, types and norm are one; the maps behind them are not."""
    task = objective("bert")
    parts = ("tokens.weight", "positions.weight", "types.weight", "norm.weight", "norm.bias")
    for name in parts:
        assert task.generator.embedding.get_parameter(name) is task.encoder.embedding.get_parameter(name)
    for term in ("generator", "replaced"):
        found = gradients(task, term)
        assert all(found[f"encoder.embedding.{name}"] is not None for name in parts), term
    assert task.generator.embedding.project.weight.shape == (SIZE // 3, SIZE)


@pytest.mark.parametrize("sharing", [SharedTables(), DisentangledTables()], ids=lambda one: one.type)
def test_detection_reaches_shared_tables_unless_they_are_disentangled(sharing: Sharing) -> None:
    """dL_RTD/dE_G is 0 for the tables of words and of positions; the differences learn in their place."""
    task = objective("bert", shared(sharing))
    inputs = task.prepare(samples([30, 7]), 0, 0)
    tables = [task.generator.embedding.tokens.weight, task.generator.embedding.positions.weight]  # type: ignore[union-attr]
    found = torch.autograd.grad(task(inputs)["replaced"], tables, allow_unused=True)
    if isinstance(sharing, SharedTables):
        assert all(grad is not None and grad.any() for grad in found)
        return
    assert all(grad is None or not grad.any() for grad in found)
    differences = [task.encoder.embedding.tokens.delta, task.encoder.embedding.positions.delta]  # type: ignore[union-attr]
    assert all(grad.any() for grad in torch.autograd.grad(task(inputs)["replaced"], differences))


# -- weights, figures, refusals ----------------------------------------------------------------------


def test_the_losses_are_weighted_by_name() -> None:
    assert dict(OBJECTIVES["bert"].weights) == {"generator": 1.0, "replaced": 50.0}
    assert dict(objective("bert", ReplacedTokens(weight=10.0)).weights) == {"generator": 1.0, "replaced": 10.0}
    assert not OBJECTIVES["bert"].whole_batch


@trunks
def test_flops_are_of_both_networks(trunk: str) -> None:
    task = OBJECTIVES[trunk]
    inputs = task.prepare(samples([30, 7]), 0, 0)
    small = task.generator.config
    width = small.embedding.size or small.hidden_size
    head = 2 * (small.hidden_size * width + VOCAB * width) * len(inputs.masked.rows)
    both = sum(one.flops(inputs.masked.batch.ragged) for one in (task.encoder, task.generator))
    assert task.flops(inputs) == both + head + 2 * 37 * (SIZE * SIZE + SIZE)


def decoded() -> ReplacedTokenDetection:
    """A DeBERTa whose generator predicts through an enhanced mask decoder."""
    return objective(
        "deberta-v2", ReplacedTokens(generator=Narrowed(width=1.0), sharing=NothingShared(), decoder=MaskDecoderHead())
    )


def test_a_generator_with_an_enhanced_mask_decoder() -> None:
    """Tokens are predicted from what the decoder makes of the layers, packed as alone; nothing else knows its positions."""
    task, given = decoded(), samples([9, 14, 0, 3])
    inputs = task.prepare(given, 0, 0)
    assert task.decoder is not None
    encoded = task.generator(inputs.masked.batch, keep=True)
    hidden, table = task.decoder(task.generator, encoded), task.generator.embedding.tokens.weight
    assert gap(hidden, encoded.hidden) > 0.01
    expected, _ = task.generator_head.loss(hidden[inputs.masked.rows], table, inputs.masked.labels)
    sums, _ = task.generate(inputs)
    assert gap(sums["generator"], expected) <= 1e-6
    alone = [task.prepare([one], 0, 0) for one in given]
    assert gap(sums["generator"], torch.stack([task.generate(one)[0]["generator"] for one in alone]).sum()) <= 1e-5
    with torch.no_grad():
        task.decoder.positions.weight.copy_(task.decoder.positions.weight.flip(0))
    assert gap(task.generate(inputs)[0]["generator"], expected) > 1e-4
    assert torch.equal(task.generator(inputs.masked.batch).hidden, encoded.hidden)
    assert task.decoder.positions.weight in task.of_generator()
    plain = objective("deberta-v2", ReplacedTokens(generator=Narrowed(width=1.0), sharing=NothingShared()))
    more = task.decoder.flops(task.generator, inputs.masked.batch.ragged)
    assert task.flops(inputs) == plain.flops(inputs) + more


def test_recall_and_precision() -> None:
    shares = {"share_replaced": 0.1, "share_flagged": 0.2, "share_found": 0.05}
    assert detection(shares) == pytest.approx({"recall": 0.5, "precision": 0.25})
    assert detection({**shares, "share_flagged": 0.0, "share_found": 0.0}) == {"recall": 0.0}


def test_a_head_that_looks_at_the_first_token() -> None:
    """DeBERTa v3's: what stands first is added to every token of its sequence, and packed is still alone."""
    head = ReplacedTokenHead(beside_first=LayerNorm())
    task = objective("deberta-v2", ReplacedTokens(generator=Narrowed(width=1.0, depth=0.5), head=head))
    given_samples = samples([9, 5])
    with torch.no_grad():
        whole = task(task.prepare(given_samples, 0, 0))["replaced"]
        parts = [task(task.prepare([one], 0, 0))["replaced"] for one in given_samples]
    assert gap(whole, torch.stack(parts).sum()) <= 1e-5


# -- learning ----------------------------------------------------------------------------------------


def losses(trunk: str, count: int) -> list[float]:
    """The weighted loss of so many steps on the same few texts, from fresh weights."""
    task = objective(trunk, ReplacedTokens(generator=Narrowed(width=1 / 3)))
    initialise_detection(task.train(), seed=0)
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    batches = [task.prepare(samples([40, 25, 31]), 0, epoch) for epoch in range(count)]
    found = []
    for number, inputs in enumerate(batches):
        optimizer.zero_grad()
        sums, counts = step(task, [inputs], lambda place, number=number: torch.manual_seed(number))  # type: ignore[misc]
        optimizer.step()
        values = means({name: one.item() for name, one in sums.items()}, {name: one.item() for name, one in counts.items()})
        found.append(loss(task.weights, values))
    return found


def test_golden_loss() -> None:
    """Three steps of a tiny BERT from seed 0: the same to the bit every time, and the recorded figures."""
    found = losses("bert", 3)
    assert found == losses("bert", 3)
    assert found == pytest.approx(GOLDEN, rel=1e-5)


# -- places that come twice ---------------------------------------------------------------------------

REPEATED = Masking(rate=0.5, mask=0.85, random=0.0, count="rounded", repeats="allowed")


def test_two_tokens_for_one_place_become_the_mean_of_their_ids() -> None:
    """As ELECTRA's `scatter_update` has it: the ids are summed and divided by their number, rounded down."""
    task = objective(masking=REPEATED)
    inputs = task.prepare(samples([40, 7]), 0, 0)
    rows, original = inputs.masked.rows, inputs.original
    assert len(rows.unique()) < len(rows)
    drawn = torch.arange(10, 10 + len(rows))
    read = inputs.replaced(drawn)
    for row in rows.unique().tolist():
        own = drawn[rows == row].tolist()
        assert read[row] == sum(own) // len(own)
    untouched = torch.ones(47, dtype=torch.bool)
    untouched[rows] = False
    assert torch.equal(read[untouched], original[untouched])
    text = torch.cat([torch.from_numpy(sample.sequences[0]).long() for sample in samples([40, 7])])
    assert torch.equal(original, text)


def test_a_place_that_comes_twice_is_predicted_twice_and_drawn_by_its_own_numbers() -> None:
    task = objective(masking=REPEATED)
    both = task.prepare(samples([40, 30]), 0, 0)
    rows, uniforms = both.masked.rows.tolist(), both.uniforms.tolist()
    assert len(set(uniforms)) == len(rows) > len(set(rows))
    assert int(task.counts(both)["generator"]) == len(rows) == 20 + 15
    one, other = (task.prepare([sample], 0, 0) for sample in samples([40, 30]))
    assert rows == [*one.masked.rows.tolist(), *(row + 40 for row in other.masked.rows.tolist())]
    assert uniforms == [*one.uniforms.tolist(), *other.uniforms.tolist()]
    with torch.no_grad():
        sums = [{name: float(value) for name, value in task(inputs).items()} for inputs in (both, one, other)]
    for name in sums[0]:
        assert sums[0][name] == pytest.approx(sums[1][name] + sums[2][name], rel=1e-5)


def test_gradients_are_clipped_apart() -> None:
    """Each network's by its own norm: the generator's stay the same, however large the discriminator's are."""
    optimizer = AdamW(lr=0.1)
    training = TrainingConfig(optimizer=optimizer, schedule=Linear(), budget=Steps(count=1), clip=0.25)
    lengths = {}
    for clipping in ("apart", None):
        given = ReplacedTokens(generator=Narrowed(width=1.0), sharing=DisentangledTables(), clipping=clipping)
        task = objective(settings=given)
        groups = detection_groups(task, optimizer)
        assert (groups is None) == (clipping is None)
        table = parameter_table(task, groups or default_groups(optimizer, task))
        updates = Updates(task, training, table, step, torch.device("cpu"))
        norm = updates([task.prepare(samples([40, 30]), 0, 0)], 0, 1e-9)[2]
        own = task.of_generator()
        parts = [[p.grad for p in task.parameters() if (p in own) == wanted and p.grad is not None] for wanted in (True, False)]
        lengths[clipping] = [float(torch.nn.utils.get_total_norm(part)) for part in parts]
        assert norm > 1  # what is told is the norm of all, before
    assert lengths["apart"] == pytest.approx([0.25, 0.25], rel=1e-4)
    assert lengths[None][0] < 0.2
    assert sum(one**2 for one in lengths[None]) == pytest.approx(0.25**2, rel=1e-4)
