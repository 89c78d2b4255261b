"""Runs side by side: levels, crossings, differences, the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bothways.errors import InputError
from bothways.training import compare as comparing
from bothways.training.compare import compare, page
from bothways.training.settings import Watch

from .toy import RUN, Toy, run

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


def test_held_out_figures_of_runs_without_a_held_out_loss(folders: list[Path], tmp_path: Path) -> None:
    """What `distil` measures has other names than a loss: all of it is there, with a dash where a run has none of the name."""
    measured = iter([{"kl": 2.0, "accuracy": 0.1}] * 3 + [{"kl": 1.5, "cosine": float("nan"), "accuracy": 0.25}])
    run(tmp_path / "student", watch=Watch(evaluate=lambda: next(measured)))
    found = compare([folders[0], tmp_path / "student"])
    figures = {row[0]: row[1:] for row in found.figures.rows}
    held = {name: values for name, values in figures.items() if str(name).endswith(", held out")}
    assert held == {
        "last loss, held out": (1.5, None),
        "last kl, held out": (None, 1.5),
        "last cosine, held out": (None, None),
        "last accuracy, held out": (None, 0.25),
    }
    assert found.which == "training loss, smoothed"
    curves = [plot for plot in found.plots if plot.title.startswith("Held-out loss")]
    assert [[one.name for one in plot.series] for plot in curves] == [["toy"]] * 2
    both = compare([tmp_path / "student", folders[0]]).plots
    assert [[one.colour for one in plot.series] for plot in both if plot.title.startswith("Held-out loss")] == [[1], [1]]


def test_a_loss_that_was_no_number_at_the_end_is_not_the_one_before_it(tmp_path: Path) -> None:
    for name, last in (("a", float("nan")), ("b", 1.0)):
        left = iter([3.0, 2.0, 1.5, last])
        run(tmp_path / name, watch=Watch(evaluate=lambda left=left: {"loss": next(left)}))
    figures = {row[0]: row[1:] for row in compare([tmp_path / "a", tmp_path / "b"]).figures.rows}
    assert figures["last loss, held out"] == (None, 1.0)


def test_losses_of_two_kinds_are_told_of(tmp_path: Path) -> None:
    """By the recorded settings, and by the names of what is added up; runs of one kind have no such note."""
    detecting = {"predicts": "masked", "replaced_tokens": {"weight": 50.0}}
    for name, settings in (("plain", {"predicts": "masked", "seed": 1}), ("other", {"predicts": "masked"}), ("two", detecting)):
        run(tmp_path / name, run=json.dumps(settings))
    one, other, two = (tmp_path / name for name in ("plain", "other", "two"))
    assert "Not all runs" not in compare([one, other]).figures.note + compare([one, other]).reached.note
    found = compare([one, other, two])
    for table in (found.figures, found.reached):
        assert "Not all runs learn the same thing (replaced_tokens): compare the losses of those that do." in table.note

    class Halved(Toy):
        weights = {"cross_entropy": 1.0}  # noqa: RUF012  (as the toy's)

    run(tmp_path / "fewer", Halved(), run=json.dumps({"predicts": "masked"}))
    assert "(what the loss adds up)" in compare([one, tmp_path / "fewer"]).figures.note


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
    with pytest.raises(InputError, match="nowhere: no training run to compare"):
        compare([*folders, tmp_path / "nowhere"])


def test_what_is_no_run_is_left_out_and_told_of(folders: list[Path], tmp_path: Path) -> None:
    """As a wildcard finds it beside runs: a folder of texts, a page. A run that has logged nothing is refused as ever."""
    texts, page = tmp_path / "texts", tmp_path / "compared.html"
    texts.mkdir()
    page.write_text("<html>")
    found = compare([texts, folders[0], page, folders[1]])
    assert [one.name for one in found.runs] == ["slow/toy", "fast/toy"]
    assert f"Left out, for they are no runs: {texts}, {page}." in found.figures.note
    assert "eft out" not in compare(folders).figures.note
    shutil.copytree(folders[0], tmp_path / "begun")
    (tmp_path / "begun" / "log.jsonl").unlink()
    with pytest.raises(InputError, match="begun: no training run to compare; give the folder of a run that has logged a step"):
        compare([*folders, tmp_path / "begun"])
    (texts / "run.json").write_text("{}")
    with pytest.raises(InputError, match="not the record of a run"):
        compare([*folders, texts])
