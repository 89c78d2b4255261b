"""Python's tokens as text: back to the same tree, whatever comments and blank lines there were."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.data.code.lexing import DEDENT, INDENT, escape, flatten, lex, sentences, to_source, to_text, unescape
from bothways.data.tokenizer_training import ByteLevelBpe, train_tokenizer
from bothways.errors import InputError

SOURCE = '''
import os  # of the system


class Box:
    """A box ⇥ with
    two lines."""

    def weigh(self, *things, by=os):
        # nothing yet
        if things and (len(things)
                       > 1):
            total = sum(one.weight ** 2 for one in things) - 0x1F

            return f"{total!r:>{10}} kg" 'and ⏎ ␛ more'
        return  -1
x = [1,
     2]
'''
FLAT = """ import os
 class Box :
 ⇥ \"\"\"A box ␛⇥ with⏎    two lines.\"\"\"
 def weigh ( self , * things , by = os ) :
 ⇥ if things and ( len ( things ) > 1 ) :
 ⇥ total = sum ( one . weight ** 2 for one in things ) - 0x1F
 return f"{total!r:>{10}} kg" 'and ␛⏎ ␛␛ more'
 ⇤ return - 1
 ⇤ ⇤ x = [ 1 , 2 ]
"""
LIBRARY = Path(sysconfig.get_path("stdlib"))
# Strings of all kinds, decorators, lines that are continued, async, marks within strings
FILES = ["asyncio/taskgroups.py", "dataclasses.py", "json/decoder.py", "string.py"]


def same(one: str, other: str) -> bool:
    return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))


def test_the_text_by_hand() -> None:
    assert to_text(SOURCE) == FLAT
    assert same(to_source(FLAT), SOURCE)


def test_kinds_tell_keywords_from_names_and_indentations_keep_their_spelling() -> None:
    tokens = lex("if match:\n  lambda: None\n")
    assert [(one.kind, one.text) for one in tokens] == [
        ("keyword", "if"), ("name", "match"), ("operator", ":"), ("newline", "\n"),
        ("indent", "  "), ("keyword", "lambda"), ("operator", ":"), ("keyword", "None"), ("newline", "\n"), ("dedent", ""),
    ]  # fmt: skip


def test_places_of_tokens() -> None:
    tokens = lex(SOURCE)
    flat = flatten(tokens)
    assert all(
        flat.text.startswith(one.text, offset)
        for one, offset in zip(tokens, flat.offsets, strict=True)
        if one.kind in ("name", "keyword", "number", "operator", "newline")
    )
    assert [flat.text[offset] for one, offset in zip(tokens, flat.offsets, strict=True) if one.kind == "indent"] == [INDENT] * 3


@pytest.mark.parametrize("name", FILES)
def test_the_standard_library_comes_back(name: str) -> None:
    """Reference check D3: the round trip through `ast`, INDENT and DEDENT included; and check 12.(1)."""
    source = (LIBRARY / name).read_text(encoding="utf-8")
    text = to_text(source)
    assert same(to_source(text), source)
    assert text.count(f" {INDENT}") >= text.count(f" {DEDENT}") > 0
    assert to_text(to_source(text)) == text
    with_comments = to_text(source, comments=True)
    assert with_comments != text
    assert same(to_source(with_comments), source)
    assert to_text(to_source(with_comments)) == text


def test_comments_and_blank_lines_change_nothing() -> None:
    """Reference check 12.(1)."""
    other = SOURCE.replace("        # nothing yet\n", "\n\n    # something\n").replace("  # of the system", "\n# a line\n")
    other = other.replace("class Box:", "class Box:  # a box\n").replace("x = [1,", "x = [1,  # one\n\n\n  # two\n")
    assert other != SOURCE
    assert to_text(other) == to_text(SOURCE)
    assert to_text(SOURCE.replace("\n", "\r\n")) == to_text(SOURCE)


def test_sentences_are_logical_lines() -> None:
    """Not physical ones (the pitfall): one for each NEWLINE of the lexer."""
    found = sentences(to_text(SOURCE))
    assert len(found) == sum(one.kind == "newline" for one in lex(SOURCE)) == 9
    assert found[4] == " ⇥ if things and ( len ( things ) > 1 ) :"


@given(st.text(alphabet="ab\n⇥⇤⏎␛ '#\\"))
def test_what_is_escaped_comes_back(text: str) -> None:
    inside = escape(text)
    assert unescape(inside) == text
    assert "\n" not in inside


def test_a_byte_level_tokenizer_begins_a_token_with_each_of_pythons() -> None:
    text = to_text(SOURCE)
    tokenizer = train_tokenizer(ByteLevelBpe(vocab_size=400, specials="bert"), [text])
    encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    begins = {start for start, _ in encoding.offsets}
    tokens = lex(SOURCE)
    for one, offset in zip(tokens, flatten(tokens).offsets, strict=True):
        assert {offset, offset - 1} & begins, one
    assert tokenizer.decode(encoding.ids) == text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = (1,\n", "line 2: EOF in multi-line statement"),
        ("if x:\n    y\n  z\n", "line 3: unindent does not match"),
        ("x = $\n", r"line 1: '\$' is no token of Python|line 1: "),
    ],
)
def test_what_is_no_python_is_refused(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lex(source)
