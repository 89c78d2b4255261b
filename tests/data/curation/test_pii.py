"""Personal data is found in the forms people write it in; years, pages, chapters and versions are left alone."""

from __future__ import annotations

import random
import string
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.config import from_json, to_json
from bothways.data.curation.pii import KINDS, Pii, Span, find_pii, replace
from bothways.data.curation.step import Opened, Step
from bothways.errors import InputError

FOUND = [
    ("Write to jane.doe+news@mail.example.co.uk, please.", "email", "jane.doe+news@mail.example.co.uk"),
    ("(max_muster@web.de)", "email", "max_muster@web.de"),
    ("jürgen@müller.de schrieb", "email", "jürgen@müller.de"),
    ("jane [at] example [dot] com.", "email", "jane [at] example [dot] com"),
    ("jane(at)example.com", "email", "jane(at)example.com"),
    ("Ring +49 30 901820 now", "phone", "+49 30 901820"),
    ("Ring +49 (0)171 123-45 67.", "phone", "+49 (0)171 123-45 67"),
    ("or +1-212-555-0123, or", "phone", "+1-212-555-0123"),
    ("+442079460958", "phone", "+442079460958"),
    ("0049 89 1234567 ist", "phone", "0049 89 1234567"),
    ("(212) 555-0123", "phone", "(212) 555-0123"),
    ("212-555-0123 x42 or", "phone", "212-555-0123 x42"),
    ("212.555.0123", "phone", "212.555.0123"),
    ("1-800-555-0199", "phone", "1-800-555-0199"),
    ("030/1234567", "phone", "030/1234567"),
    ("(089) 12 34 56 78", "phone", "(089) 12 34 56 78"),
    ("0171-1234567.", "phone", "0171-1234567"),
    ("Tel.: 4711 08 15", "phone", "4711 08 15"),
    ("call me at 2125550123.", "phone", "2125550123"),
    ("Phone no. 555-0123", "phone", "555-0123"),
    ("DE89 3704 0044 0532 0130 00 BIC COBADEFF", "iban", "DE89 3704 0044 0532 0130 00"),
    ("IBAN: GB82WEST12345698765432.", "iban", "GB82WEST12345698765432"),
    ("CH93 0076 2011 6238 5295 7", "iban", "CH93 0076 2011 6238 5295 7"),
    ("card 4111 1111 1111 1111, exp", "card", "4111 1111 1111 1111"),
    ("5500-0000-0000-0004", "card", "5500-0000-0000-0004"),
    ("378282246310005", "card", "378282246310005"),
    ("3782 822463 10005", "card", "3782 822463 10005"),
    ("2223003122003222", "card", "2223003122003222"),
    ("from 84.113.25.201:443 at", "ip", "84.113.25.201"),
    ("http://192.168.17.4/a", "ip", "192.168.17.4"),
    ("the host 8.8.8.8 said", "ip", "8.8.8.8"),
    ("2001:db8:85a3::8a2e:370:7334.", "ip", "2001:db8:85a3::8a2e:370:7334"),
    ("2001:0db8:85a3:0000:0000:8a2e:0370:7334", "ip", "2001:0db8:85a3:0000:0000:8a2e:0370:7334"),
    ("SSN 123-45-6789", "ssn", "123-45-6789"),
    ("social security number is 123 45 6789", "ssn", "123 45 6789"),
    ("ftp://bob:secret@files.example.com/x.zip.", "url", "ftp://bob:secret@files.example.com/x.zip"),
    ("https://api.example.com/v1?q=1&api_key=abcdef123", "url", "https://api.example.com/v1?q=1&api_key=abcdef123"),
]
LEFT = [
    "In 1848 and 1849, or 1914-1918, he wrote 2,345,678 words.",
    "CHAPTER XXIV. 12 13 14 15 16 17 18 19 20 21",
    "pp. 123-128; vol. 12, no. 3, 1998; £1,234,567 8s. 6d.",
    "Psalm 119:105; at 12:30:45 on 01.02.2003 or 2003-02-01, 23.12.1850",
    "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, ISSN 0378-5955",
    "version 10.2.33.4, v1.22.333.4, section 8.2.2.1 and 2.0.0.1",
    "127.0.0.1 and ::1, 255.255.255.0, 224.0.0.1, 0.0.0.0",
    "std::vector, B::C, Foo::Bar::Baz, git rev dead::beef",
    "getty@tty1.service, logo@2x.png, user@host, foo @ bar",
    "https://example.com:8080/a?page=2&token_count=3",
    "4111 1111 1111 1112 and 1234567812345678",  # the check digit is wrong
    "DE88 3704 0044 0532 0130 00",  # so here
    "000-12-3456, 666-12-3456, 900-12-3456, 123-00-4567",
    "3.14159265358979, 0.12345678901234567, 1e-10, 6.02214076e+23",
    "+5 -3 +12, 20 + 30 + 40 + 50 = 140, -40 +100 000",
    "He was 5 ft 11, 180 lb; 12 000 000 Mark, 1 000 000 000",
    "call in 1914 1918; the years 1815 1830 1848",
    "0123",
    "<doi:10.1016/j.cell.2015.05.002>",
    "::ffff:0:0/96 and 203.97.2.0/24",
]


@pytest.mark.parametrize(("text", "kind", "found"), FOUND)
def test_what_is_found(text: str, kind: str, found: str) -> None:
    assert [(span.kind, text[span.begin : span.end]) for span in find_pii(text)] == [(kind, found)]


@pytest.mark.parametrize("text", LEFT)
def test_what_is_left(text: str) -> None:
    assert [text[span.begin : span.end] for span in find_pii(text)] == []


def test_a_document_is_scrubbed_and_counted() -> None:
    step = Pii()
    assert isinstance(step, Step)
    scrub = step.open()
    assert isinstance(scrub, Opened)
    verdict = scrub("Call (212) 555-0123 or (212) 555-0124, or write to a@b.org in 1999.")
    assert verdict.text == "Call [PHONE] or [PHONE], or write to [EMAIL] in 1999."
    assert verdict.reason == "personal data replaced"
    assert verdict.counts == {"phone": 2, "email": 1}
    assert verdict.example is not None
    assert "555" not in verdict.example
    assert scrub("Nothing to see in 1999.") == type(verdict)("Nothing to see in 1999.")


def test_the_example_shows_the_place_and_no_secret() -> None:
    text = "word " * 500 + "jane@example.com and (212) 555-0123 " + "word " * 500
    example = Pii().open()(text).example
    assert example is not None
    assert "[EMAIL] and [PHONE]" in example
    assert len(example) <= 200


def test_kinds_and_stand_ins() -> None:
    text = "a@b.org, (212) 555-0123"
    assert Pii(kinds=("phone",)).open()(text).text == "a@b.org, [PHONE]"
    assert Pii(replacement="example").open()(text).text == "someone@example.com, 202-555-0100"
    assert from_json(Pii, to_json(Pii(kinds=("email",))), "x") == Pii(kinds=("email",))
    with pytest.raises(InputError, match="kinds"):
        from_json(Pii, '{"kinds": ["name"]}', "x")


def test_a_url_with_a_password_is_one_thing() -> None:
    text = "See https://jane:pw@example.com/a?b=c for 84.113.25.201."
    assert [span.kind for span in find_pii(text)] == ["url", "ip"]
    assert [span.kind for span in find_pii(text, ("email",))] == ["email"]  # what there is for one who asks for no URLs


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from(string.ascii_letters + string.digits + "@.+-()/: \n[]DE"), max_size=300))
def test_spans_are_in_order_and_apart_and_tags_stay(text: str) -> None:
    spans = find_pii(text)
    for first, second in pairwise(spans):
        assert first.end <= second.begin
    assert all(0 <= span.begin < span.end <= len(text) for span in spans)
    clean = replace(text, spans)
    assert Counter(span.kind for span in spans) == Counter(
        kind for kind in KINDS for _ in range(clean.count(f"[{kind.upper()}]"))
    )


@pytest.mark.parametrize("piece", ["a", "a.", "1", "1.", "a@", "@", "12-", "::", "://", "0 ", "+1 ", "http://a:"])
def test_a_text_without_end_takes_no_time_without_end(piece: str) -> None:
    """Hostile texts of 200,000 characters; what grows with their square would not come back before the guard of the tests."""
    find_pii(piece * (200_000 // len(piece)))


def test_numbers_made_to_be_valid_are_found_and_others_are_not() -> None:
    random_ = random.Random(0)
    found = other = 0
    for _ in range(300):
        digits = "4" + "".join(random_.choices(string.digits, k=15))
        total = sum(d if i % 2 else (2 * d - 9 * (2 * d > 9)) for i, d in enumerate(map(int, digits)))
        valid = total % 10 == 0
        spans = find_pii(f"the number {digits} here", ("card",))
        assert bool(spans) == valid
        found, other = found + valid, other + (not valid)
    assert found > 10
    assert other > 200


def test_spans_are_plain() -> None:
    assert find_pii("a@b.org") == [Span("email", 0, 7)]
