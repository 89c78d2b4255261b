"""Rules of quality that need no model: Gopher's (arXiv 2112.11446), C4's (1910.10683), FineWeb's (2406.17557).

The rules are datatrove's. They work offline; words are split by spaCy's rules of the language, which need no model either.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from bothways.config import config
from bothways.data.curation.step import Verdict
from bothways.errors import InputError, MissingExtraError

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
_ENGLISH = "eng"


@config
class GopherRepetition:
    """Drops documents that repeat lines, paragraphs or runs of words, by Gopher's Table A1.

    Attributes:
        language: how words are split; a code of ISO 639-3.
        lines, paragraphs: the largest share of them that may be repeated.
        line_characters, paragraph_characters: the largest share of characters in repeated ones.
        top: for runs of n words, the largest share of characters in the most frequent one.
        repeated: for runs of n words, the largest share of characters in those that occur again.
    """

    type: Literal["gopher_repetition"] = "gopher_repetition"
    language: str = _ENGLISH
    lines: Share = 0.3
    paragraphs: Share = 0.3
    line_characters: Share = 0.2
    paragraph_characters: Share = 0.2
    top: tuple[tuple[int, float], ...] = ((2, 0.2), (3, 0.18), (4, 0.16))
    repeated: tuple[tuple[int, float], ...] = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1))

    def files(self) -> tuple[Path, ...]:
        return ()

    def open(self) -> Rules:
        """Raises InputError for a language without rules, MissingExtraError without datatrove."""
        return Rules(
            "gopher_repetition_filter.GopherRepetitionFilter",
            self.language,
            dup_line_frac=self.lines,
            dup_para_frac=self.paragraphs,
            dup_line_char_frac=self.line_characters,
            dup_para_char_frac=self.paragraph_characters,
            top_n_grams=self.top,
            dup_n_grams=self.repeated,
        )


@config
class GopherQuality:
    """Drops documents that do not look like prose, by Gopher's rules; None leaves a rule out.

    Attributes:
        language: how words are split, and whose stop words are counted; a code of ISO 639-3.
        min_words, max_words: of the document. Whole books have more than the published 100,000.
        min_word_length, max_word_length: of the words on average, in characters.
        symbols: the largest number of hashes, or of ellipses, for each word.
        bullets, ellipses: the largest share of lines that begin with a bullet, or end with an ellipsis.
        alphabetic: the smallest share of words with a letter in them.
        min_stop_words: how many of the stop words must occur.
        stop_words: None for Gopher's eight in English, for spaCy's list in another language.
    """

    type: Literal["gopher_quality"] = "gopher_quality"
    language: str = _ENGLISH
    min_words: pydantic.PositiveInt | None = 50
    max_words: pydantic.PositiveInt | None = 100_000
    min_word_length: pydantic.PositiveFloat | None = 3
    max_word_length: pydantic.PositiveFloat | None = 10
    symbols: pydantic.PositiveFloat | None = 0.1
    bullets: Share | None = 0.9
    ellipses: Share | None = 0.3
    alphabetic: Share | None = 0.8
    min_stop_words: pydantic.PositiveInt | None = 2
    stop_words: tuple[str, ...] | None = None

    def files(self) -> tuple[Path, ...]:
        return ()

    def open(self) -> Rules:
        """Raises InputError for a language without rules, MissingExtraError without datatrove."""
        return Rules(
            "gopher_quality_filter.GopherQualityFilter",
            self.language,
            min_doc_words=self.min_words,
            max_doc_words=self.max_words,
            min_avg_word_length=self.min_word_length,
            max_avg_word_length=self.max_word_length,
            max_symbol_word_ratio=self.symbols,
            max_bullet_lines_ratio=self.bullets,
            max_ellipsis_lines_ratio=self.ellipses,
            max_non_alpha_words_ratio=self.alphabetic,
            min_stop_words=self.min_stop_words,
            stop_words=self._stop_words(),
        )

    def _stop_words(self) -> Iterable[str] | None:
        if self.stop_words is not None or self.language == _ENGLISH or self.min_stop_words is None:
            return self.stop_words
        words = _spacy_stop_words(self.language)
        if not words:
            raise InputError(f"gopher_quality: no stop words of '{self.language}'; give stop_words, or min_stop_words=null")
        return words


@config
class C4:
    """Drops lines and documents that web pages are made of rather than texts, by C4's rules.

    Lines go that do not end as sentences do, are shorter than `min_words`, or speak of JavaScript, cookies or terms of use;
    documents go that hold a curly bracket or lorem ipsum, or have fewer than `min_sentences` sentences left.
    """

    type: Literal["c4"] = "c4"
    language: str = _ENGLISH
    min_sentences: pydantic.NonNegativeInt = 5
    min_words: pydantic.NonNegativeInt = 3
    max_word_length: pydantic.PositiveInt = 1000
    terminal_punctuation: bool = True
    curly_brackets: bool = True
    citations: bool = True

    def files(self) -> tuple[Path, ...]:
        return ()

    def open(self) -> Rules:
        """Raises InputError for a language without rules, MissingExtraError without datatrove."""
        return Rules(
            "c4_filters.C4QualityFilter",
            self.language,
            min_num_sentences=self.min_sentences,
            min_words_per_line=self.min_words,
            max_word_length=self.max_word_length,
            filter_no_terminal_punct=self.terminal_punctuation,
            filter_curly_bracket=self.curly_brackets,
            remove_citations=self.citations,
        )


@config
class FineWeb:
    """Drops documents that are lists rather than texts, by FineWeb's three rules.

    Attributes:
        punctuated: the smallest share of lines that end in punctuation.
        short, short_length: the largest share of lines of at most so many characters.
        duplicated: the largest share of characters in lines that are repeated.
        new_lines: the largest number of line ends for each word.
    """

    type: Literal["fineweb"] = "fineweb"
    language: str = _ENGLISH
    punctuated: Share = 0.12
    short: Share = 0.67
    short_length: pydantic.PositiveInt = 30
    duplicated: Share = 0.01
    new_lines: pydantic.PositiveFloat = 0.3

    def files(self) -> tuple[Path, ...]:
        return ()

    def open(self) -> Rules:
        """Raises InputError for a language without rules, MissingExtraError without datatrove."""
        return Rules(
            "fineweb_quality_filter.FineWebQualityFilter",
            self.language,
            line_punct_thr=self.punctuated,
            short_line_thr=self.short,
            short_line_length=self.short_length,
            char_duplicates_ratio=self.duplicated,
            new_line_ratio=self.new_lines,
        )


class Rules:
    """One of datatrove's filters at work."""

    def __init__(self, place: str, language: str, **options: Any) -> None:
        module, _, name = place.partition(".")
        try:
            filters = importlib.import_module(f"datatrove.pipeline.filters.{module}")
        except ImportError:
            raise MissingExtraError("quality rules", "data") from None
        self.filter = getattr(filters, name)(language=_remembering(language), **options)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {}

    def __call__(self, text: str) -> Verdict:
        from datatrove.data import Document

        if not text.strip():
            return Verdict(None, reason="empty")
        document = Document(text=text, id="")
        found = self.filter.filter(document)
        passed, reason = found if isinstance(found, tuple) else (found, None)
        if not passed:
            return Verdict(None, reason=reason or "quality")
        return Verdict(text) if document.text == text else Verdict(document.text, reason="lines removed")


def _word_tokenizer(language: str) -> Any:
    try:
        from datatrove.utils.word_tokenizers import load_word_tokenizer
    except ImportError:
        raise MissingExtraError("quality rules", "data") from None
    try:
        return load_word_tokenizer(language)
    except ValueError:
        raise InputError(f"no rules to split words of '{language}'; give a code of ISO 639-3, as eng") from None
    except ImportError as error:  # some languages are split by packages of their own, which the message names
        raise InputError(f"words of '{language}': {error}") from None


@functools.cache
def _remembering(language: str) -> Any:
    """How words of a language are split, with the last text remembered: several steps split it, which is most of their work."""
    tokenizer = _word_tokenizer(language)
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Remembering(WordTokenizer):
        def __init__(self) -> None:
            super().__init__(language)
            self.words = functools.lru_cache(maxsize=1)(tokenizer.word_tokenize)

        def word_tokenize(self, text: str) -> list[str]:
            return self.words(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return tokenizer.sent_tokenize(text)

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return tokenizer.span_tokenize(text)

    return Remembering()


def _spacy_stop_words(language: str) -> tuple[str, ...]:
    tokenizer = _word_tokenizer(language)
    from datatrove.utils.word_tokenizers import SpaCyTokenizer

    if not isinstance(tokenizer, SpaCyTokenizer):
        return ()
    return tuple(sorted(tokenizer.tokenizer.Defaults.stop_words))
