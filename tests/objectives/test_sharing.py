"""Tables that two embeddings share, and what a difference beside one of them is saved as."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tests.builders import CONFIGS, SIZE, VOCAB, gap, random_batch, randomise
from tests.objectives.test_replaced_token import SHARINGS, objective, samples, shared, sharings

from bothways.encoder.encoder import Encoder
from bothways.encoder.generator import GivenEncoder, Narrowed
from bothways.errors import InputError
from bothways.layers.shifted import ShiftedEmbedding
from bothways.objectives.replaced_token import ReplacedTokens
from bothways.objectives.sharing import DisentangledTables, SharedTables, Sharing, folded, refold, share, unfold

NAMES = ("tokens", "positions", "types", "norm")


@sharings
def test_which_parts_are_one(sharing: Sharing) -> None:
    task = objective("bert", shared(sharing))
    one = {name for name in NAMES if getattr(task.generator.embedding, name) is getattr(task.encoder.embedding, name)}
    tables = {"tokens", "positions"}
    assert one == {"embedding": set(NAMES), "tables": tables, "disentangled_tables": set(), "nothing": set()}[sharing.type]
    shifted = {name for name in NAMES if isinstance(getattr(task.encoder.embedding, name), ShiftedEmbedding)}
    assert shifted == (tables if sharing == DisentangledTables() else set())
    for name in shifted:
        assert getattr(task.encoder.embedding, name).base is getattr(task.generator.embedding, name)


@sharings
def test_what_is_shared_stays_shared(sharing: Sharing) -> None:
    """After `.to`, a deep copy, and a state dict that went through another objective."""
    task = objective("bert", shared(sharing))
    count = len(list(task.parameters()))
    other = copy.deepcopy(task).to(torch.float64).to(torch.float32)
    assert len(list(other.parameters())) == count
    randomise(other, seed=9)
    other.load_state_dict(task.state_dict())
    inputs = task.prepare(samples([12, 5]), 0, 0)
    with torch.no_grad():
        before = task.discriminate(inputs, inputs.masked.labels)["replaced"]
        assert gap(other.discriminate(inputs, inputs.masked.labels)["replaced"], before) == 0
        other.generator.embedding.tokens.weight.add_(torch.randn(VOCAB, SIZE))
        moved = gap(other.discriminate(inputs, inputs.masked.labels)["replaced"], before) > 1e-6
    assert moved == (sharing.type != "nothing")


def test_at_the_first_step_a_difference_is_nothing() -> None:
    """GDES and ES give the same losses with the same weights, until the differences have learned."""
    disentangled, plain = (objective("bert", shared(one)) for one in (DisentangledTables(), SharedTables()))
    with torch.no_grad():
        for name in ("tokens", "positions"):
            getattr(disentangled.encoder.embedding, name).delta.zero_()
        plain.encoder.load_state_dict(folded(disentangled.encoder).state_dict())
        plain.head.load_state_dict(disentangled.head.state_dict())
        plain.generator.load_state_dict(disentangled.generator.state_dict())
        plain.generator_head.load_state_dict(disentangled.generator_head.state_dict())
    inputs = plain.prepare(samples([30, 7]), 0, 0)
    ours, theirs = disentangled(inputs), plain(inputs)
    for name in plain.names:
        assert gap(ours[name], theirs[name]) <= 1e-6, name
    before = disentangled.encoder.embedding.tokens.delta.clone()  # type: ignore[union-attr]
    optimizer = torch.optim.SGD(disentangled.parameters(), lr=0.1)
    ours["replaced"].backward()
    optimizer.step()
    assert (disentangled.encoder.embedding.tokens.delta != before).any()  # type: ignore[union-attr]


def test_a_shifted_table_is_the_sum() -> None:
    base = torch.nn.Embedding(7, 3)
    shifted = ShiftedEmbedding(base)
    ids = torch.tensor([0, 6, 6])
    assert torch.equal(shifted(ids), base(ids))
    randomise(shifted)
    torch.testing.assert_close(shifted.weight, base.weight + shifted.delta)
    torch.testing.assert_close(shifted(ids), shifted.weight[ids])
    shifted(ids).sum().backward()
    assert base.weight.grad is None
    assert shifted.delta.grad is not None
    assert shifted.delta.grad[6].tolist() == [2.0, 2.0, 2.0]


@sharings
def test_folding(sharing: Sharing) -> None:
    """An encoder of plain tables that computes the same, has the names of any encoder, and follows what is learned."""
    task = objective("bert", shared(sharing))
    plain, batch = folded(task.encoder).eval(), random_batch([9, 4])
    assert set(plain.state_dict()) == set(Encoder(task.encoder.config).state_dict())
    with torch.no_grad():
        assert gap(plain(batch).hidden, task.encoder(batch).hidden) <= 1e-6
        randomise(task, seed=5)
        refold(task.encoder, plain)
        assert gap(plain(batch).hidden, task.encoder(batch).hidden) <= 1e-6
        other = randomise(Encoder(task.encoder.config), seed=7)
        plain.load_state_dict(other.state_dict())
        unfold(task.encoder, plain)
        assert gap(task.encoder(batch).hidden, other.eval()(batch).hidden) <= 1e-6  # type: ignore[operator]


@pytest.mark.parametrize("sharing", SHARINGS[:3], ids=lambda one: one.type)
def test_tables_of_different_widths_cannot_be_one(sharing: Sharing) -> None:
    other = replace(CONFIGS["bert"], embedding=replace(CONFIGS["bert"].embedding, size=9))
    settings = ReplacedTokens(generator=GivenEncoder(encoder=other), sharing=sharing)
    with pytest.raises(InputError, match=r"sharing: the embedding's tokens .* are \(101, 9\) and \(101, 24\)"):
        objective("bert", settings)


def test_a_part_that_one_network_lacks_cannot_be_one() -> None:
    with torch.device("meta"):
        generator, discriminator = Encoder(CONFIGS["modernbert"]), Encoder(CONFIGS["bert"])
    with pytest.raises(InputError, match=r"sharing: the embedding's positions of generator and discriminator are absent and"):
        share(SharedTables(), generator, discriminator)


def test_a_generator_of_another_family() -> None:
    """A BERT fills in tokens for a ModernBERT, with nothing in common."""
    small = replace(CONFIGS["bert"], num_layers=1)
    task = objective("modernbert", ReplacedTokens(generator=GivenEncoder(encoder=small), sharing=SHARINGS[3]))
    sums = task(task.prepare(samples([20]), 0, 0))
    assert sums["generator"] > 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("vocab_size", 99, "is of 99 tokens, the discriminator's of 101"), ("max_length", 100, "reads 100 tokens")],
)
def test_generators_that_do_not_fit(field: str, value: int, message: str) -> None:
    other = replace(CONFIGS["bert"], **{field: value})
    with pytest.raises(InputError, match=f"generator.encoder.{field}: .*{message}"):
        objective("bert", ReplacedTokens(generator=GivenEncoder(encoder=other), sharing=SHARINGS[3]))


@pytest.mark.parametrize("trunk", CONFIGS)
def test_a_narrower_network_of_every_trunk(trunk: str) -> None:
    """A third as wide and half as deep, with the discriminator's tables; it runs."""
    if trunk == "albert":  # its layers are two groups, which one layer cannot be
        settings = ReplacedTokens(generator=Narrowed(width=1 / 3))
    else:
        settings = ReplacedTokens(generator=Narrowed(width=1 / 3, depth=0.5))
    task = objective(trunk, settings)
    assert task.generator.config.hidden_size == 8
    assert task(task.prepare(samples([11, 3]), 0, 0))["replaced"] > 0
