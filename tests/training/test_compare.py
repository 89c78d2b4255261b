"""Runs side by side: levels, crossings, differences, the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bothways.errors import InputError
from bothways.training import compare as comparing
from bothways.training.compare import compare, page
from bothways.training.settings import Watch

from .toy import RUN, run

CURVE = [
    ({"tokens": 100, "seconds": 1.0}, 6.0),
    ({"tokens": 200, "seconds": 3.0}, 5.0),
    ({"tokens": 300, "seconds": 4.0}, 5.5),
    ({"tokens": 400, "seconds": 5.0}, 3.0),
]


@pytest.mark.parametrize(
    ("level", "place"),
    [
        (7.0, (100, 1.0)),
        (6.0, (100, 1.0)),
        (5.5, (150.0, 2.0)),  # half way from 6 to 5
        (5.0, (200, 3.0)),
        (4.25, (350.0, 4.5)),
        (2.0, None),
    ],
)
def test_where_a_curve_crosses_a_level(level: float, place: tuple[float, float] | None) -> None:
    assert comparing._crossing(CURVE, level) == place


@pytest.mark.parametrize(
    ("curves", "levels"),
    [
        ([[9.0, 6.0, 4.1], [8.3, 5.0]], [8.0, 7.5, 7.0, 6.5, 6.0, 5.5, 5.0, 4.5]),
        ([[2.2, 1.0], [2.0, 1.5]], [2.0, 1.8, 1.6, 1.4, 1.2, 1.0]),
        ([[1.0, 1.0]], [1.0]),
    ],
)
def test_levels_are_round_and_between_the_first_and_the_best(curves: list[list[float]], levels: list[float]) -> None:
    assert comparing._levels(curves) == pytest.approx(levels)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs that differ in a setting, and in how fast they learn."""
    place, found = tmp_path_factory.mktemp("runs"), []
    for name, rate, losses in (("slow/toy", 0.5, (3.0, 2.5, 2.0, 1.5)), ("fast/toy", 0.25, (3.0, 2.0, 1.0, 0.5))):
        left = iter(losses)
        run(place / name, run=RUN.replace("0.5", str(rate)), watch=Watch(evaluate=lambda left=left: {"loss": next(left)}))
        found.append(place / name)
    return found


def test_two_runs(folders: list[Path]) -> None:
    found = compare(folders, [2.0, 1.0])
    assert [one.name for one in found.runs] == ["slow/toy", "fast/toy"]
    assert found.which == "held-out loss"
    assert found.differences.rows == [("objective.rate", "0.5", "0.25")]
    assert [row[0] for row in found.reached.rows] == ["2", "1"]
    slow, fast = found.crossings[2.0]
    assert slow is not None
    assert fast is not None
    at = [line["tokens"] for line in found.runs[0].held_out]
    assert (slow[0], fast[0]) == (at[2], at[1])  # evaluated at steps 5, 10, 15, 20 of the same text
    assert found.crossings[1.0][0] is None
    figures = {row[0]: row[1:] for row in found.figures.rows}
    assert (figures["steps"], figures["last loss, held out"], figures["parameters"]) == ((20, 20), (1.5, 0.5), (187, 187))


def test_the_page(folders: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    path = page(compare(folders), tmp_path / "page.html", "bothways compare a b")
    text = path.read_text()
    for part in (
        "slow/toy",
        "fast/toy",
        "objective.\u200brate",
        "Held-out loss against time",
        "bothways compare a b",
        "Throughput",
    ):
        assert part in text, part
    assert "https:" not in text
    assert "http:" not in text


def test_without_evaluations_it_is_the_training_loss(tmp_path: Path) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b", run=json.dumps({"objective": {"type": "toy"}}))
    found = compare([tmp_path / "a", tmp_path / "b"])
    assert found.which == "training loss, smoothed"
    assert found.differences.rows == [("objective.rate", "0.5", "none"), ("seed", "0", "none")]


def test_settings_that_only_some_have_stand_in_one_row() -> None:
    trees = [
        {"layers": [{"type": "a", "size": 1}, {"type": "b", "deep": {"x": 1}}], "same": {"y": 2}},
        {"layers": [{"type": "a", "size": 2}], "same": {"y": 2}},
    ]
    assert list(comparing._differences("", trees)) == [("layers.0.size", "1", "2"), ("layers.1", "b", "none")]


def test_what_cannot_be_compared(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two runs or more, each once"):
        compare(folders[:1])
    with pytest.raises(InputError, match="two runs or more, each once"):
        compare([folders[0], folders[0]])
    with pytest.raises(InputError, match=f"{tmp_path}: no training run to compare"):
        compare([folders[0], tmp_path])
