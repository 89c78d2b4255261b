"""The report holds the run's figures and nothing from elsewhere."""

from __future__ import annotations

import html.parser
import re
import sys
from pathlib import Path

import pytest

from bothways.errors import InputError, MissingExtraError
from bothways.training.report import curves, duration, report, smoothed, time_unit, utilisations
from bothways.training.sections import Bars, Code, Facts, Lines, Series, Stack, Table, Text, _draw, render
from bothways.training.settings import Watch

from .toy import run

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


class Outline(html.parser.HTMLParser):
    """Open elements, ids and headings."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "path", "use", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def test_a_run(tmp_path: Path) -> None:
    rows = [{"text": "Paris is <b>[MASK]</b>", "prediction": "nice"}]
    result = run(tmp_path, watch=Watch(evaluate=lambda: {"loss": 1.2345, "accuracy": 0.5}, samples=lambda: rows, rate=1e9))
    extra = Table("Beside the baselines", ["model", "recall@10"], [["pretrained", 0.71], ["BM25", None]], note="100 questions.")
    path = report(tmp_path, title="A toy & its run", command="bothways pretrain 'a b'", metrics=["accuracy"], extra=[extra])
    page = path.read_text()
    assert path == tmp_path / "report.html"
    outline = Outline(page)
    assert not outline.open
    assert len(outline.ids) == len(set(outline.ids))
    for text in (
        "A toy & its run",
        f"{result.tokens:,}",
        f"{result.loss:.4g}",
        "1.234",  # the held-out loss
        "187",  # parameters: 11 * 8 shared, 8 + 8, 8 * 8 + 8, 11
        "Paris is <b>[MASK]</b>",
        "embed.weight, decoder.weight",
        "11x8",
        "Beside the baselines",
        "0.71",
        "bothways pretrain 'a b'",
        '"rate": 0.5',
    ):
        assert text in outline.text, text
    titles = re.findall(r'aria-label="([^"]*)"', page)
    assert titles == [
        "Loss",
        "Loss against time",
        "Loss term: cross_entropy",
        "Loss term: size",
        "Accuracy",
        "Learning rate",
        "Throughput",
        "Share of the machine's matrix products",
        "Rate of the machine's products, sampled meanwhile",
        "Gradient norm",
    ]


def test_the_page_stands_alone(tmp_path: Path) -> None:
    run(tmp_path)
    page = report(tmp_path, title="Alone").read_text()
    assert not re.findall(r"https?:|//[a-z]|<script|<link|@import|\bsrc=", page)
    assert not re.findall(r"url\((?!#)", page)
    assert "prefers-color-scheme: dark" in page
    colours = set(re.findall(r"#[0-9a-f]{6}\b", page[page.index("</style>") :]))
    assert not colours, "a plot's colours are the page's variables"
    references = set(re.findall(r'(?:href="|url\()#([^")]+)', page))
    assert references <= set(Outline(page).ids)


def test_sections_one_by_one(tmp_path: Path) -> None:
    sections = [
        Text("Words", "First <part>.\n\nSecond part."),
        Facts("Figures", [("recall", "0.5")]),
        Table("Table", ["name", "value"], [["a", 1], ["b", 2.5], ["c", None]]),
        Table("Empty", ["name"], []),
        Table("Folded", ["name"], [["x"]], folded=True),
        Lines("Curve", [Series("one", [0, 1], [1, 2]), Series("two", [0, 1], [2, 1], "points", 1)], "x", "y", note="A note."),
        Bars("Parts", ["first", "second"], [Stack("kept", [3, 1], 0), Stack("lost", [0, 2], 1)], "documents", note="Two bars."),
        Code("Settings", '{"a": "<b>"}'),
    ]
    page = render("All", sections, tmp_path / "page.html", subtitle="below").read_text()
    outline = Outline(page)
    for text in (
        "First <part>.",
        "Second part.",
        "recall",
        "2.5",
        "A note.",
        '{"a": "<b>"}',
        "below",
        "one",
        "two",
        "first",
        "lost",
        "Two bars.",
    ):
        assert text in outline.text, text
    assert '<th class="number">value</th>' in page
    assert "<th>name</th>" in page
    assert page.count("<details>") == 2


@pytest.mark.parametrize(("values", "marker"), [([2.0], "o"), ([2.0, 1.0], "None")])
def test_a_line_of_one_point_is_a_dot(values: list[float], marker: str) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    _draw(axes, Series("", [*range(len(values))], values))
    assert [line.get_marker() for line in axes.lines] == [marker]


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training run to report on"):
        report(tmp_path, title="Nothing")


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"bothways\[report\]"):
        render("Title", [], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_stages_are_marked_where_they_begin() -> None:
    lines = [
        {"kind": "train", "step": n, "tokens": 100 * n, "seconds": 60.0 * n, "loss": 1.0, "terms": {}, "metrics": {}, "lr": 1.0}
        | {"tokens_per_second": 1.0, "gemm_share": None, "gradient_norm": 1.0, "stage": "one" if n < 5 else "two"}
        for n in range(1, 9)
    ]
    plots = {plot.title: plot for plot in curves(lines, [], ())}
    assert plots["Loss"].marks == [(0, "one"), (400, "two")]
    assert plots["Loss against time"].marks == [(0.0, "one"), (4.0, "two")]
    assert plots["Loss against time"].xlabel == "minutes of steps"
    assert not curves([line | {"stage": "one"} for line in lines], [], ())[0].marks


def test_the_share_of_a_makers_peak() -> None:
    train = [{"tokens": 1, "seconds": 1.0, "gemm_share": 0.5}, {"tokens": 2, "seconds": 2.0, "gemm_share": 0.7}]
    machine = {"rate": 800.0, "peak": 1000.0}
    assert utilisations(train, [machine, machine]).y == pytest.approx([0.4, 0.56])
    assert not utilisations(train, [machine, {"rate": 100.0, "peak": 300.0}]).y
    assert not utilisations(train, [{"rate": 800.0, "peak": None}]).y


def test_smoothing() -> None:
    assert smoothed([1.0, 5.0, 3.0]) == [1.0, 5.0, 3.0]
    line = smoothed([float(value) for value in range(80)])  # reaches 2 to either side
    assert line[2:78] == pytest.approx(range(2, 78))
    assert line[0] == 1.0
    assert line[79] == 78.0


@pytest.mark.parametrize(("seconds", "text"), [(0.25, "0.2 s"), (61.0, "1 min 01 s"), (7322.0, "2 h 02 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("seconds", "unit"), [(0.0, "seconds"), (119.0, "seconds"), (120.0, "minutes"), (7200.0, "hours")])
def test_units_of_time(seconds: float, unit: str) -> None:
    assert time_unit(seconds)[0] == unit
