"""Python's own tokens as text, and the text back as Python.

`flatten` writes every token behind a space and ends every logical line with a line break, so a line is a sentence, and each token
begins a word for a byte-level tokenizer. A deeper indentation is the mark INDENT, its end the mark DEDENT. Blank lines, comments,
continued lines and the width of indentations are not kept; all that `ast` knows is.

After CuBERT's tokenizer (arXiv 2001.00059), with three differences: line breaks within brackets are dropped, an indentation has
no width, and names and texts are not cut up here, since the tokenizer that is trained on the text does that.
"""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bothways.errors import InputError

Kind = Literal["keyword", "name", "number", "string", "operator", "comment", "newline", "indent", "dedent"]

INDENT, DEDENT = "⇥", "⇤"
# What stands within strings and comments for a line break, and before a character that would else be a mark
_BREAK, _ESCAPE = "⏎", "␛"
_MARKED = re.compile(f"[\n{INDENT}{DEDENT}{_BREAK}{_ESCAPE}]")
_ESCAPED = re.compile(f"{_ESCAPE}(.)|{_BREAK}")
_DEPTH = re.compile(f"(?: [{INDENT}{DEDENT}])*")
_KINDS: dict[int, Kind] = {
    tokenize.NUMBER: "number",
    tokenize.STRING: "string",
    tokenize.OP: "operator",
    tokenize.COMMENT: "comment",
    tokenize.NEWLINE: "newline",
    tokenize.INDENT: "indent",
    tokenize.DEDENT: "dedent",
}
_UNSEEN = (tokenize.ENCODING, tokenize.NL, tokenize.ENDMARKER)
# From Python 3.12 on, an f-string comes in parts
_FSTRING = tuple(getattr(tokenize, name, -1) for name in ("FSTRING_START", "FSTRING_END"))


@dataclass(frozen=True, slots=True)
class CodeToken:
    """A token of Python's lexer; `text` is as it is spelt, `start` its line from 1 and its column from 0."""

    kind: Kind
    text: str
    start: tuple[int, int]


@dataclass(frozen=True)
class Flat:
    """Tokens as text, and where in it each begins."""

    text: str
    offsets: tuple[int, ...]


def lex(source: str, comments: bool = False) -> list[CodeToken]:
    """The tokens of a source; those of comments only where asked for.

    Raises:
        InputError: it is not made of Python's tokens; the message names the line.
    """
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    try:
        found = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except tokenize.TokenError as error:
        raise InputError(f"line {error.args[1][0]}: {error.args[0]}") from None
    except SyntaxError as error:  # an indentation that fits none before it
        raise InputError(f"line {error.lineno}: {error.msg}") from None
    tokens = []
    for one in _joined(found, source):
        if one.type in _UNSEEN or (one.type == tokenize.COMMENT and not comments):
            continue
        if one.type != tokenize.NAME and one.type not in _KINDS:
            raise InputError(f"line {one.start[0]}: {one.string!r} is no token of Python")
        kind = ("keyword" if keyword.iskeyword(one.string) else "name") if one.type == tokenize.NAME else _KINDS[one.type]
        tokens.append(CodeToken(kind, one.string, one.start))
    return tokens


def flatten(tokens: Sequence[CodeToken]) -> Flat:
    """Tokens as text: each behind a space, each logical line on a line of its own, and so is a comment's rest of a line."""
    parts: list[str] = []
    offsets, length = list[int](), 0
    for number, one in enumerate(tokens):
        offsets.append(length if one.kind == "newline" else length + 1)
        part = _spelt(one)
        if one.kind == "comment" and (number + 1 == len(tokens) or tokens[number + 1].kind != "newline"):
            part += "\n"
        parts.append(part)
        length += len(part)
    return Flat("".join(parts), tuple(offsets))


def to_text(source: str, comments: bool = False) -> str:
    """A source as the text of its tokens. Raises InputError as `lex`."""
    return flatten(lex(source, comments)).text


def sentences(text: str) -> list[str]:
    """The logical lines of a flattened text."""
    return [line for line in text.split("\n") if line.strip()]


def to_source(text: str) -> str:
    """Python again: the same to `ast` as what was flattened."""
    lines, depth = list[str](), 0
    for line in text.split("\n"):
        marks = _DEPTH.match(line)
        assert marks is not None  # it matches nothing, too
        depth += marks[0].count(INDENT) - marks[0].count(DEDENT)
        body = line[marks.end() :].removeprefix(" ")
        lines.append("    " * depth + unescape(body) if body else "")
    return "\n".join(lines)


def escape(text: str) -> str:
    """The inside of a string or a comment, without line breaks and without marks."""
    return _MARKED.sub(lambda found: _BREAK if found[0] == "\n" else _ESCAPE + found[0], text)


def unescape(text: str) -> str:
    """What `escape` was given."""
    return _ESCAPED.sub(lambda found: found[1] or "\n", text)


def _spelt(token: CodeToken) -> str:
    match token.kind:
        case "newline":
            return "\n"
        case "indent":
            return f" {INDENT}"
        case "dedent":
            return f" {DEDENT}"
        case "string" | "comment":
            return f" {escape(token.text)}"
        case _:
            return f" {token.text}"


def _joined(found: Iterable[tokenize.TokenInfo], source: str) -> Iterator[tokenize.TokenInfo]:
    """The tokens with the parts of each f-string as one string."""
    begin, end = _FSTRING
    lines, depth, first = list[str](), 0, (0, 0)
    for one in found:
        if one.type == begin:
            first = one.start if depth == 0 else first
            depth += 1
        elif one.type == end:
            depth -= 1
            if depth == 0:
                lines = lines or list(io.StringIO(source))
                text = _between(lines, first, one.end)
                yield tokenize.TokenInfo(tokenize.STRING, text, first, one.end, one.line)
        elif depth == 0:
            yield one


def _between(lines: Sequence[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    rows = list(lines[start[0] - 1 : end[0]])
    rows[-1] = rows[-1][: end[1]]
    rows[0] = rows[0][start[1] :]
    return "".join(rows)
