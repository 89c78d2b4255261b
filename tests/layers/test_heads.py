"""Heads: tied tables, pooling before a classifier, the loss on chosen rows."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from tests.builders import SIZE, VOCAB, randomise

from bothways.layers.heads import Classifier, ClassifierHead, MaskedLm, MaskedLmHead, Pooling, Transform, pool
from bothways.layers.norm import LayerNorm
from bothways.ragged import Ragged

HEADS = {
    "bert": MaskedLmHead(transform=Transform(norm=LayerNorm(eps=1e-12))),
    "no bias": MaskedLmHead(transform=Transform(bias=False, norm=LayerNorm(bias=False)), bias=False),
    "own table": MaskedLmHead(transform=None, tied=False),
}


@pytest.mark.parametrize("config", HEADS.values(), ids=HEADS.keys())
def test_the_loss_is_that_of_the_logits(config: MaskedLmHead) -> None:
    head = MaskedLm(config, SIZE, VOCAB)
    randomise(head)
    hidden, table, labels = torch.randn(7, SIZE), torch.randn(VOCAB, SIZE), torch.randint(VOCAB, (7,))
    loss, right = head.loss(hidden, table, labels)
    logits = head(hidden, table)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, reduction="sum"))
    assert right == (logits.argmax(dim=1) == labels).sum()


def test_a_tied_head_owns_no_table() -> None:
    """There is nothing that could come untied in a copy, a move or a file."""
    head = MaskedLm(HEADS["bert"], SIZE, VOCAB)
    assert {name for name, _ in head.named_parameters()} == {
        "bias", "transform.dense.weight", "transform.dense.bias", "transform.norm.weight", "transform.norm.bias",
    }  # fmt: skip
    table = torch.randn(VOCAB, SIZE)
    hidden = torch.randn(2, SIZE)
    assert torch.equal(copy.deepcopy(head)(hidden, table), head(hidden, table))
    assert not torch.equal(head(hidden, table + 1), head(hidden, table))


def test_an_untied_head_ignores_the_embedding() -> None:
    head = MaskedLm(HEADS["own table"], SIZE, VOCAB)
    randomise(head)
    hidden = torch.randn(2, SIZE)
    assert torch.equal(head(hidden, torch.zeros(VOCAB, SIZE)), head(hidden, torch.ones(VOCAB, SIZE)))


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_a_classifier_by_hand(pooling: Pooling) -> None:
    head = Classifier(ClassifierHead(labels=2, pooling=pooling, transform=Transform(activation="tanh")), SIZE)
    randomise(head)
    hidden = torch.randn(5, SIZE)
    vector = {"mean": hidden[:3].mean(0), "cls": hidden[0], "max": hidden[:3].amax(0)}[pooling]
    dense = head.transform.dense  # type: ignore[union-attr]
    expected = torch.tanh(dense.weight @ vector + dense.bias) @ head.out.weight.T + head.out.bias  # type: ignore[operator, union-attr]
    torch.testing.assert_close(head(hidden, Ragged.of([3, 2]))[0], expected)


def test_pooling_golden() -> None:
    hidden, ragged = torch.tensor([[1.0], [5.0], [-3.0]]), Ragged.of([2, 1])
    assert {pooling: pool(pooling, hidden, ragged).flatten().tolist() for pooling in get_args(Pooling)} == {
        "mean": [3.0, -3.0],
        "cls": [1.0, -3.0],
        "max": [5.0, -3.0],
    }
