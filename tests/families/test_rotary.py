"""Rotary positions in published configs: both spellings, what comes before what, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from tests.references.scaled import SCALED

from bothways.errors import InputError
from bothways.families.convert import Reader
from bothways.families.rotary import read_nested, read_rotary, write_rotary
from bothways.layers.position import Rotary
from bothways.layers.scaling import Linear, Llama3, Yarn

YARN = {"rope_type": "yarn", "factor": 4.0}


def read(data: dict[str, Any]) -> Rotary:
    return read_rotary(Reader(data, "config.json"), 10_000.0, 512)


@pytest.mark.parametrize("name", SCALED)
def test_there_and_back_in_both_spellings(name: str) -> None:
    rotary = read({"rope_parameters": SCALED[name]})
    written = write_rotary(rotary)
    new, old = {"rope_parameters": written["rope_parameters"]}, {key: written[key] for key in ("rope_theta", "rope_scaling")}
    assert read(written) == read(new) == read(old) == rotary
    assert rotary.theta == SCALED[name]["rope_theta"]


def test_the_older_name_of_the_type() -> None:
    assert read({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2}}) == Rotary(
        theta=5e5, scaling=Linear(factor=2.0)
    )
    assert read({"rope_scaling": {"type": "default", "rope_type": "linear", "factor": 2.0}}).scaling == Linear(factor=2.0)


def test_what_comes_before_what() -> None:
    """As in `transformers`: scaling before parameters, a base inside before one outside, an original length not."""
    both = {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_parameters": {**YARN, "rope_theta": 7.0}}
    assert read(both) == Rotary(theta=10_000.0, scaling=Linear(factor=2.0))
    assert read({"rope_theta": 3.0, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}).theta == 7.0
    inside = {"rope_parameters": {**YARN, "original_max_position_embeddings": 64}}
    assert read(inside).scaling == Yarn(factor=4.0, original_length=64)
    assert read({**inside, "original_max_position_embeddings": 32}).scaling == Yarn(factor=4.0, original_length=32)
    assert read({"rope_parameters": YARN}).scaling == Yarn(factor=4.0, original_length=512)


def test_nulls_and_zeros_stand_for_what_they_stand_for_there() -> None:
    yarn = {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 128, "beta_fast": 0, "mscale": 0}
    assert read({"rope_scaling": yarn}).scaling == Yarn(factor=4.0, original_length=128)
    assert read({"rope_scaling": None, "rope_theta": None}) == Rotary()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling: rope_type='dynamic' is not supported: its freq"),
        (
            {"rope_parameters": {"rope_type": "longrope"}},
            "rope_parameters: rope_type='longrope' is not supported; supp",
        ),
        ({"rope_parameters": {"rope_type": "linear"}}, "no 'factor', which this rope_type needs"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "no 'low_freq_factor', which"),
        ({"rope_parameters": {"rope_type": "default", "factor": 2.0}}, "rope_parameters: factor is not supported"),
        ({"rope_parameters": {**YARN, "mrope_section": [1]}}, "rope_parameters: mrope_section is not supported"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5 is not supported"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not supported"),
        ({"rope_scaling": "linear"}, "rope_scaling='linear' should be an object"),
    ],
)
def test_what_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"config.json: .*{message}"):
        read(data)


def nested(data: dict[str, Any]) -> Rotary:
    return read_nested(Reader(data, "config.json"), "full_attention", 10_000.0, 512)


def test_scaling_beside_nested_parameters_is_laid_over_them() -> None:
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    found = nested({"rope_scaling": llama3, "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 7.0}}})
    assert found == Rotary(theta=7.0, scaling=Llama3(factor=8.0, original_length=512))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # the older name is not heeded there
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_parameters.full_attention: factor is not supported"),
        ({"rope_parameters": {"full_attention": {**YARN, "truncate": False}}}, "full_attention: truncate=False is not supported"),
        ({"rope_parameters": {"rope_theta": 3.0}}, "rope_parameters: rope_theta is not supported"),
    ],
)
def test_what_is_refused_where_kinds_of_layers_differ(data: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        nested(data)
