"""MPNet and ERNIE-Gram: distances in buckets, by the published numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests import references
from tests.references import CASES, Case
from tests.references.ernie_gram import released_bucket

import bothways
from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.families import ernie_gram, mpnet
from bothways.layers.position import Bucketed, Learned
from bothways.ops.relative import Bucket


def case_of(name: str) -> Case:
    return next(case for case in CASES if str(case) == name)


@pytest.mark.parametrize("config", [mpnet.SIZES["base"], ernie_gram.SIZES["base"]])
def test_thirty_two_buckets_up_to_128_beside_positions_without_types(config: EncoderConfig) -> None:
    position = config.layer(0).mixer.position
    assert isinstance(position, Bucketed)
    assert (position.buckets, position.max_distance) == (32, 128)
    assert isinstance(config.embedding.position, Learned)
    assert config.embedding.token_types == 0
    assert config.layer(0).order == "post"


def test_the_buckets_of_the_released_ernie_gram() -> None:
    """Every pair of places among 200, entry by entry; the rows of its table are its own numbers."""
    released = torch.arange(33.0)[:, None]
    ours = Bucket(released[ernie_gram.released_rows(33)], max_distance=128, first_apart=True)
    places = torch.arange(200)
    found = ours.dense(torch.zeros(1), torch.zeros(1), places, places)[0, 0]
    expected = torch.tensor([[float(released_bucket(query, key)) for key in range(200)] for query in range(200)])
    assert torch.equal(found, expected)
    assert sorted(ernie_gram.released_rows(33).tolist()) == list(range(33))


def test_one_table_for_all_layers(tmp_path: Path) -> None:
    for name, rows in (("mpnet-bare", 32), ("ernie_gram-bare", 33)):
        model = bothways.load(references.save(references.build(case_of(name)), tmp_path / name))
        tables = [key for key in model.encoder.state_dict() if "relative" in key]
        assert tables == ["relative.weight"]
        assert model.encoder.state_dict()["relative.weight"].shape == (rows, 3)


def test_another_number_of_buckets_is_refused(tmp_path: Path) -> None:
    """The class of `transformers` gives its table as many rows, and goes on counting to 32."""
    theirs = references.build(Case("mpnet", "bare", {"relative_attention_num_buckets": 40}))
    with pytest.raises(InputError, match=r"relative_attention_num_buckets=40 is not supported; supported: 32"):
        bothways.load(references.save(theirs, tmp_path))


def test_too_few_distances_for_the_buckets() -> None:
    with pytest.raises(ValueError, match=r"Bucketed\.max_distance: 32 buckets need more than 8"):
        Bucketed(max_distance=8)
