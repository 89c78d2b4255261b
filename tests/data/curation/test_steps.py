"""Steps that look at one document: the rules each names, languages, pages."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from tests.data.curation.corpus import prose

from bothways.data.curation.language import Language, excerpts
from bothways.data.curation.pages import Html, Page, Warc, open_extraction, read_pages
from bothways.data.curation.quality import C4, FineWeb, GopherQuality, GopherRepetition
from bothways.data.curation.reasons import _PHRASES, in_words
from bothways.data.curation.step import Opened, Step, Verdict
from bothways.errors import InputError

GOOD = prose(0)
GERMAN = (
    "Der alte Fischer ging am Morgen zum Hafen hinunter, weil er wusste, dass die Flut bald kommen würde. "
    "Seine Tochter hatte ihm das Brot in ein Tuch gewickelt und sah ihm vom Fenster aus nach. "
)
ENGLISH = (
    "The old fisherman walked down to the harbour in the morning because he knew that the tide would soon come in. "
    "His daughter had wrapped the bread in a cloth for him and watched him from the window. "
)


def opened(step: Step) -> Opened:
    pytest.importorskip("datatrove", reason="pip install 'bothways[data]'")
    assert isinstance(step, Step)
    found = step.open()
    assert isinstance(found, Opened)
    return found


def reason(step: Step, text: str) -> str | None:
    verdict = opened(step)(text)
    assert verdict.text is None or verdict.reason is None
    return verdict.reason


def test_good_prose_passes_every_rule() -> None:
    for step in (GopherRepetition(), GopherQuality(), FineWeb()):
        assert opened(step)(GOOD) == Verdict(GOOD), step.type


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  \n", "empty"),
        ("Too short.", "gopher_short_doc"),
        (GOOD + " word" * 100_000, "gopher_long_doc"),
        ("a b c d e " * 20, "gopher_below_avg_threshold"),
        ("incomprehensibilities " * 60, "gopher_above_avg_threshold"),
        (GOOD + " #" * 40, "gopher_too_many_hashes"),
        (GOOD + " …" * 40, "gopher_too_many_ellipsis"),
        ("\n".join(f"- {line}" for line in GOOD.splitlines()), "gopher_too_many_bullets"),
        (GOOD.replace(".\n", "...\n"), "gopher_too_many_end_ellipsis"),
        (GOOD + " 1234" * 60, "gopher_below_alpha_threshold"),
        (re.sub(r"\b(the|of|to|and|with)\b", "ze", GOOD), "gopher_enough_stop_words"),
    ],
)
def test_gopher_quality(text: str, expected: str) -> None:
    assert reason(GopherQuality(), text) == expected


def test_a_rule_left_out_drops_nothing() -> None:
    assert reason(GopherQuality(min_words=None, min_stop_words=None, alphabetic=None), "Too short.") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\n".join([GOOD.replace("\n", " ")] * 3), "dup_para_frac"),
        ("\n".join(f"line {n // 2} of a text" for n in range(40)), "dup_line_frac"),
        (" ".join(f"the sea {n}" for n in range(60)), "top_2_gram"),
        ((GOOD.replace("\n", " ") + " ") * 2, "duplicated_5_n_grams"),
    ],
)
def test_gopher_repetition(text: str, expected: str) -> None:
    assert reason(GopherRepetition(), text) == expected


def test_c4_removes_lines_and_documents() -> None:
    step = opened(C4())
    lines = [f"This is sentence number {n}, and it ends as it should." for n in range(6)]
    changed = step("\n".join([*lines, "Home | About | Contact", "We use cookies.", "Please enable javascript to go on."]))
    assert changed == Verdict("\n".join(lines), reason="lines removed")
    assert step("\n".join([*lines, "And a {curly bracket} here."])) == Verdict(None, reason="curly_bracket")
    assert step("\n".join(lines[:4])) == Verdict(None, reason="too_few_sentences")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n".join(f"a line of several words without an end {n}" for n in range(20)), "line_punct_ratio"),
        ("\n".join(f"Short line {n}." for n in range(20)), "short_line_ratio"),
        ("\n".join(["A line that is as long as it has to be, here."] * 5), "char_dup_ratio"),
        ("\n".join(f"{prose(n).replace(chr(32), '')[:40]}." for n in range(20)), "list_ratio"),
    ],
)
def test_fineweb(text: str, expected: str) -> None:
    assert reason(FineWeb(), text) == expected


def test_stop_words_of_another_language() -> None:
    assert reason(GopherQuality(language="deu", min_words=10, min_stop_words=5), GERMAN) is None
    assert reason(GopherQuality(language="deu", min_words=10, min_stop_words=5), ENGLISH) == "gopher_enough_stop_words"
    with pytest.raises(InputError, match="'english'; give a code of ISO 639-3"):
        GopherQuality(language="english").open()


def test_languages() -> None:
    pytest.importorskip("lingua", reason="pip install 'bothways[data]'")
    step = opened(Language(keep=("eng",), among=("deu", "fra")))
    assert step(ENGLISH) == Verdict(ENGLISH)
    assert step(GERMAN) == Verdict(None, reason="language deu")
    assert step("12345 67890") == Verdict(None, reason="uncertain")
    assert step("") == Verdict(None, reason="uncertain")
    both = opened(Language(keep=("eng", "deu"), among=("fra",)))
    assert both(GERMAN) == Verdict(GERMAN)
    with pytest.raises(InputError, match="'english' is not known"):
        Language(keep=("english",)).open()
    with pytest.raises(InputError, match="nothing to be told from"):
        Language(keep=("eng",), among=("eng",)).open()


def test_excerpts_are_spread_over_the_text() -> None:
    assert excerpts("short", 100) == "short"
    text = "".join(chr(97 + n // 100) for n in range(1000))
    taken = excerpts(text, 80)
    assert len(taken.replace(" ", "")) == 80
    assert taken[0] == "a"
    assert taken[-1] == "j"
    assert len(set(taken)) == 9, "eight places of ten, and the space between"


ARTICLE = " ".join(f"Sentence number {n} of the article tells of the harbour and of its ships." for n in range(12))
PAGE = f"<html><head><title>T</title></head><body><nav>Home About</nav><article><p>{ARTICLE}</p></article></body></html>"


def test_html_is_reduced_to_its_main_text(tmp_path: Path) -> None:
    pytest.importorskip("trafilatura", reason="pip install 'bothways[data]'")
    file = tmp_path / "page.html"
    file.write_text(PAGE, encoding="utf-8")
    [page] = read_pages(Html(paths=(str(file),)), file)
    extract = open_extraction("precision")
    verdict = extract(page)
    assert verdict.text is not None
    assert ARTICLE in verdict.text
    assert "About" not in verdict.text
    assert extract(page) == verdict, "the second time too: nothing is remembered of other pages"
    assert extract(Page("<html><body></body></html>", "here")) == Verdict(None, reason="no main text")


def test_web_archives(tmp_path: Path) -> None:
    pytest.importorskip("warcio", reason="pip install 'bothways[data]'")
    pytest.importorskip("trafilatura", reason="pip install 'bothways[data]'")
    import gzip

    def record(kind: str, path: str, content: bytes) -> bytes:
        head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://a.b/{path}\r\nContent-Length: {len(content)}\r\n\r\n"
        return gzip.compress(head.encode() + content + b"\r\n\r\n")

    def response(kind: str, content: bytes) -> bytes:
        return record("response", "c", f"HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode() + content)

    file = tmp_path / "crawl.warc.gz"
    file.write_bytes(
        response("text/html; charset=latin-1", PAGE.replace("ships", "Schiffe für").encode("latin-1"))
        + response("text/html", b"<meta charset=utf-8>\xff")
        + response("image/png", b"\x89PNG")
        + record("conversion", "t", b"Plain text.")
        + record("resource", "r", b"not a page")
    )
    extract = open_extraction("precision")
    pages = list(read_pages(Warc(paths=(str(file),)), file))
    assert [page.where for page in pages] == [f"{file}:{n} http://a.b/{p}" for n, p in ((1, "c"), (2, "c"), (3, "c"), (4, "t"))]
    html, undecodable, image, plain = map(extract, pages)
    assert html.text is not None
    assert "Schiffe für" in html.text
    assert undecodable == Verdict(None, reason="not in the encoding it declares")
    assert image == Verdict(None, reason="not HTML: image/png")
    assert plain == Verdict("Plain text.")


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    pytest.importorskip("warcio", reason="pip install 'bothways[data]'")
    file = tmp_path / "crawl.warc"
    file.write_bytes(b"this is no archive\n" * 4)
    with pytest.raises(InputError, match=r"crawl\.warc: not a readable web archive"):
        list(read_pages(Warc(paths=(str(file),)), file))


@pytest.mark.parametrize(
    ("reason", "settings", "words"),
    [
        ("gopher_long_doc", {"max_words": 100_000}, "too many words (max_words 100,000)"),
        ("gopher_short_doc", {}, "too few words (min_words)"),
        ("top_3_gram", {}, "a frequent run of 3 words (top)"),
        ("duplicated_10_n_grams", {}, "repeated runs of 10 words (repeated)"),
        ("curly_bracket", {"curly_brackets": True}, "a curly bracket (curly_brackets)"),
        ("rows of my_dev.txt removed", {}, "rows of my_dev.txt removed"),
        ("lorem_ipsum", {}, "lorem ipsum"),
    ],
)
def test_reasons_in_words(reason: str, settings: dict[str, object], words: str) -> None:
    assert in_words(reason, settings) == words


def test_every_limit_named_in_words_is_a_field_of_its_step() -> None:
    fields = {field.name for step in (GopherQuality, GopherRepetition, C4, FineWeb) for field in dataclasses.fields(step)}
    assert {field for _, field in _PHRASES.values()} <= fields
