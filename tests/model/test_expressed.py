"""A family writes only what its config can say: what it would read back as another network is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bothways.errors import InputError
from bothways.families import bert, roberta
from bothways.families.family import Spec
from bothways.layers.position import Rotary
from bothways.model import Model


def test_a_windowed_bert_has_no_published_form(tmp_path: Path) -> None:
    plain = bert.bert(vocab_size=50, hidden_size=24, num_layers=2, heads=3, intermediate_size=20, max_length=16)
    mixer = replace(plain.layers[0].mixer, window=4, position=Rotary())
    mixed = replace(plain, layers=(replace(plain.layers[0], mixer=mixer),))
    with pytest.raises(InputError, match="the family 'bert' cannot express this encoder's layers"):
        Model.create(bert.FAMILY, Spec(encoder=mixed)).save(tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()
    Model.create(bert.FAMILY, Spec(encoder=plain)).save(tmp_path / "plain")


def test_positions_that_the_padding_id_would_shift_are_refused(tmp_path: Path) -> None:
    encoder = roberta.roberta(vocab_size=50, hidden_size=24, num_layers=2, heads=3, intermediate_size=20, max_length=16)
    with pytest.raises(InputError, match="cannot express this encoder's"):
        Model.create(roberta.FAMILY, Spec(encoder=encoder, pad_id=0)).save(tmp_path / "shifted")
    Model.create(roberta.FAMILY, Spec(encoder=encoder, pad_id=1)).save(tmp_path / "right")
