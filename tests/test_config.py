"""Configs are strict, frozen, and the same after a trip through JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any, Literal

import pydantic
import pytest
from tests.builders import CONFIGS

from bothways.config import config, from_json, override, to_json
from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.families import bert, modernbert, neobert, roberta
from bothways.layers.mlp import Gated


@config
class Square:
    type: Literal["square"] = "square"
    side: float


@config
class Circle:
    type: Literal["circle"] = "circle"
    radius: float = 1.0


@config
class Drawing:
    title: str
    shapes: tuple[Annotated[Square | Circle, pydantic.Field(discriminator="type")], ...] = ()
    pages: int | None = None


PUBLISHED = [size for family in (bert, modernbert, neobert, roberta) for size in family.SIZES.values()]
DRAWING = Drawing(title="a", shapes=(Square(side=2.0), Circle()), pages=3)


@pytest.mark.parametrize("value", [DRAWING, Drawing(title=""), Circle(radius=float("inf")), *PUBLISHED, *CONFIGS.values()])
def test_json_and_back(value: Any) -> None:
    assert from_json(type(value), to_json(value), "here") == value


def test_equal_configs_hash_alike_and_do_not_change() -> None:
    assert hash(bert.bert()) == hash(bert.bert())
    assert bert.bert() != bert.bert(num_layers=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        DRAWING.title = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"title": "a", "pagse": 3}', "run.json: Drawing: no field 'pagse'; did you mean 'pages'?"),
        ('{"title": "a", "shapes": [{"type": "circle", "raduis": 2}]}', "no field 'raduis'; did you mean 'radius'?"),
        ('{"title": "a", "zzz": 3}', "run.json: Drawing: no field 'zzz'"),
        ('{"titel": "a"}', "no field 'titel'; did you mean 'title'?"),
        ("{}", "title"),
        ('{"title": "a", "pages": "three"}', "pages"),
        ('{"title": "a", "pages": 1.5}', "pages"),
        ('{"title": "a", "pages": true}', "pages"),
        ('{"title": "a", "shapes": [{"type": "triangle"}]}', "triangle"),
        ('{"title": "a", "shapes": [{"side": 2.0}]}', "type"),
        ("[1", "JSON"),
    ],
)
def test_a_fault_is_one_line_that_names_it(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        from_json(Drawing, text, "run.json")
    assert message in str(error.value)
    assert str(error.value).startswith("run.json: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 25}, "heads: 3 does not divide hidden_size 25"),
        ({"layers": []}, "at least one layer"),
        ({"skip_first_norm": True}, "only a pre-norm layer"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"num_layers": 0}, "num_layers"),
    ],
)
def test_contradictions(changes: dict[str, Any], message: str) -> None:
    text = json.dumps({**json.loads(to_json(CONFIGS["bert"])), **changes})
    with pytest.raises(InputError) as error:
        from_json(EncoderConfig, text, "model.json")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_rotary_positions_need_pairs() -> None:
    with pytest.raises(ValueError, match="even head size"):
        modernbert.modernbert(hidden_size=9, heads=3)


def test_override() -> None:
    changed = override(DRAWING, ["title=b", "shapes.0.side=2.5", "pages=null"])
    assert changed == Drawing(title="b", shapes=(Square(side=2.5), Circle()))
    assert override(DRAWING, ['title="7"']).title == "7"
    assert override(CONFIGS["modernbert"], ["layers.1.mlp.size=36"]).layers[1].mlp == Gated(size=36, bias=False)
    assert override(DRAWING, []) == DRAWING


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("titel=b", "no field 'titel' in the run; did you mean 'title'?"),
        ("shapes.0.sied=1.0", "no field 'sied' in shapes.0; did you mean 'side'?"),
        ("shapes.2.side=1.0", "no field '2' in shapes; there is 0, 1"),
        ("title.x=1", "no field 'x' in title"),
        ("pages=many", "pages"),
        ("title", "expected path.to.field=value"),
    ],
)
def test_a_wrong_override(assignment: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        override(DRAWING, [assignment])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
