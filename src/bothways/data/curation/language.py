"""Which language a document is written in (lingua, whose models come with its wheel)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from bothways.config import config
from bothways.data.curation.step import Verdict
from bothways.errors import InputError, MissingExtraError

# The languages most of the web is written in, that lingua can tell apart
COMMON = ("eng", "rus", "deu", "spa", "fra", "jpn", "zho", "por", "ita", "nld", "pol", "tur")
# A document is judged by so many excerpts, spread evenly over it, of so many characters
_EXCERPTS = 8

Codes = Annotated[tuple[str, ...], pydantic.Field(min_length=1)]


@config
class Language:
    """Keeps documents in the languages wanted, told from those that may occur; codes are ISO 639-3 (`eng`, `deu`).

    Attributes:
        keep: the languages wanted.
        among: the languages that may occur. Fewer are told apart faster and better; one that is not named is taken for
            the nearest that is.
        confidence: how probable the language must be among those, 0 to 1; what is below is dropped as uncertain.
        characters: how much of a document is looked at.
        short_texts: also use the models for texts below 120 characters: slower, and much larger in memory.
    """

    type: Literal["language"] = "language"
    keep: Codes
    among: Codes = COMMON
    confidence: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.6
    characters: pydantic.PositiveInt = 2000
    short_texts: bool = False

    def files(self) -> tuple[Path, ...]:
        return ()

    def open(self) -> OpenLanguage:
        """Load the models.

        Raises:
            InputError: a code that lingua does not know.
            MissingExtraError: lingua is not installed.
        """
        return OpenLanguage(self)


class OpenLanguage:
    """The detector at work."""

    def __init__(self, step: Language) -> None:
        try:
            from lingua import IsoCode639_3, LanguageDetectorBuilder
        except ImportError:
            raise MissingExtraError("language identification", "data") from None
        candidates = tuple(dict.fromkeys((*step.keep, *step.among)))
        if len(candidates) < 2:
            raise InputError(f"language: '{candidates[0]}' has nothing to be told from; name others in among")
        codes = []
        for name in candidates:
            code = getattr(IsoCode639_3, name.upper(), None)
            if code is None:
                raise InputError(f"language: '{name}' is not known; give a code of ISO 639-3 that lingua has, as eng or deu")
            codes.append(code)
        builder = LanguageDetectorBuilder.from_iso_codes_639_3(*codes)
        self.detector = (builder if step.short_texts else builder.with_low_accuracy_mode()).build()
        self.step = step

    @property
    def facts(self) -> Mapping[str, Any]:
        return {}

    def __call__(self, text: str) -> Verdict:
        values = self.detector.compute_language_confidence_values(excerpts(text, self.step.characters))
        code = values[0].language.iso_code_639_3.name.lower()
        # ties are in no particular order: what is certain enough is the same in every process
        if values[0].value < self.step.confidence or (len(values) > 1 and values[0].value == values[1].value):
            return Verdict(None, reason="uncertain")
        return Verdict(text) if code in self.step.keep else Verdict(None, reason=f"language {code}")


def excerpts(text: str, characters: int) -> str:
    """At most so many characters of a text, in excerpts spread evenly over it, since a book may begin in Latin."""
    if len(text) <= characters:
        return text
    size = -(-characters // _EXCERPTS)
    gap = (len(text) - size) // (_EXCERPTS - 1)
    return " ".join(text[place * gap : place * gap + size] for place in range(_EXCERPTS))
