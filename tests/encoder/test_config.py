"""Numbers outside their range are refused where they are given, field by field."""

from __future__ import annotations

import pytest
from tests.builders import CONFIGS

from bothways.config import override
from bothways.errors import InputError


@pytest.mark.parametrize(
    "assignment",
    [
        "layers.0.dropout=1.5",
        "layers.0.mixer.dropout=1",
        "layers.0.mixer.out_dropout=-0.1",
        "layers.0.mlp.dropout=1.0",
        "embedding.dropout=2",
        "layers.0.mixer.heads=0",
        "layers.0.mixer.position.theta=0",
        "layers.0.mlp.size=0",
        "layers.0.norm.eps=0",
        "final_norm.eps=-1e-5",
        "embedding.token_types=-1",
        "initialisation.std=0",
        "hidden_size=0",
    ],
)
def test_out_of_range(assignment: str) -> None:
    path = assignment.partition("=")[0]
    with pytest.raises(InputError) as error:
        override(CONFIGS["modernbert"], [assignment])
    message = str(error.value)
    assert "\n" not in message
    assert path.rpartition(".")[2] in message
    assert "input should be" in message
