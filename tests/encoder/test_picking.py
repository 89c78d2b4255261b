"""Which of a teacher's layers a student begins as."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import CONFIGS, tiny_encoder

from bothways.encoder.picking import check_layers, picked, spread_layers
from bothways.errors import InputError
from bothways.families.distilbert import TEACHER_LAYERS


def test_the_published_layers() -> None:
    assert spread_layers(12, 6) == TEACHER_LAYERS == (0, 2, 4, 7, 9, 11)
    assert spread_layers(6, 3) == (0, 2, 5)
    assert spread_layers(12, 12) == tuple(range(12))
    assert spread_layers(5, 1) == (0,)


@given(teacher=st.integers(2, 60), share=st.integers(2, 60))
def test_layers_ascend_from_the_first_to_the_last(teacher: int, share: int) -> None:
    student = min(share, teacher)
    layers = spread_layers(teacher, student)
    assert (layers[0], layers[-1], len(layers)) == (0, teacher - 1, student)
    assert list(layers) == sorted(set(layers))


@pytest.mark.parametrize("student", [0, 7])
def test_no_more_layers_than_there_are(student: int) -> None:
    with pytest.raises(InputError, match=f"a student of {student} layers .* choose 1 to 6"):
        spread_layers(6, student)


def test_what_cannot_be_picked() -> None:
    bert, albert = CONFIGS["bert"], CONFIGS["albert"]
    with pytest.raises(InputError, match="layers: 0, 5, but the teacher's are 0 to 4"):
        check_layers(bert, (0, 5))
    with pytest.raises(InputError, match="layers: none"):
        check_layers(bert, ())
    with pytest.raises(InputError, match="shared between depths"):
        check_layers(albert, (0, 1))
    modernbert = replace(CONFIGS["modernbert"], skip_first_norm=True)
    with pytest.raises(InputError, match="no norm before it"):
        check_layers(modernbert, (1, 3))
    with pytest.raises(InputError, match="no norm before it"):
        check_layers(modernbert, (0, 0, 3))
    check_layers(modernbert, (0, 2, 4))


def test_a_layer_may_come_twice() -> None:
    state = {f"encoder.{name}": tensor for name, tensor in tiny_encoder("bert").state_dict().items()}
    taken = picked(state, (3, 3))
    weight = state["encoder.layers.3.mlp.up.weight"]
    assert all((taken[f"encoder.layers.{i}.mlp.up.weight"] == weight).all() for i in (0, 1))
    assert "encoder.layers.2.mlp.up.weight" not in taken
    assert taken["encoder.layers.0.mlp.up.weight"].data_ptr() != taken["encoder.layers.1.mlp.up.weight"].data_ptr()
