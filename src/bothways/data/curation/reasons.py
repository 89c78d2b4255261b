"""The rules' names of why a document was dropped, in words, with the limit and the field of the step that sets it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# By datatrove's names: the phrase, and the field of the step that sets the limit
_PHRASES = {
    "gopher_short_doc": ("too few words", "min_words"),
    "gopher_long_doc": ("too many words", "max_words"),
    "gopher_below_avg_threshold": ("words too short", "min_word_length"),
    "gopher_above_avg_threshold": ("words too long", "max_word_length"),
    "gopher_too_many_hashes": ("too many hashes", "symbols"),
    "gopher_too_many_ellipsis": ("too many ellipses", "symbols"),
    "gopher_too_many_bullets": ("too many lines with bullets", "bullets"),
    "gopher_too_many_end_ellipsis": ("too many lines end in …", "ellipses"),
    "gopher_below_alpha_threshold": ("too few words with letters", "alphabetic"),
    "gopher_enough_stop_words": ("too few stop words", "min_stop_words"),
    "dup_para_frac": ("repeated paragraphs", "paragraphs"),
    "dup_para_char_frac": ("repeated paragraphs", "paragraph_characters"),
    "dup_line_frac": ("repeated lines", "lines"),
    "dup_line_char_frac": ("repeated lines", "line_characters"),
    "curly_bracket": ("a curly bracket", "curly_brackets"),
    "too_few_sentences": ("too few sentences left", "min_sentences"),
    "line_punct_ratio": ("few lines end in punctuation", "punctuated"),
    "short_line_ratio": ("too many short lines", "short"),
    "char_dup_ratio": ("repeated lines", "duplicated"),
    "list_ratio": ("too many line ends", "new_lines"),
}
_TOP, _REPEATED = re.compile(r"top_(\d+)_gram"), re.compile(r"duplicated_(\d+)_n_grams")


def in_words(reason: str, settings: Mapping[str, Any]) -> str:
    """A reason as people read it; one that is a phrase already stays as it is.

    Args:
        reason: as the account has it (audit.json).
        settings: those of the step, as the account has them.
    """
    if match := _TOP.fullmatch(reason):
        return f"a frequent run of {match[1]} words (top)"
    if match := _REPEATED.fullmatch(reason):
        return f"repeated runs of {match[1]} words (repeated)"
    if reason not in _PHRASES:
        return reason if " " in reason else reason.replace("_", " ")
    phrase, field = _PHRASES[reason]
    limit = settings.get(field)
    # bool is an int, and says nothing here
    return f"{phrase} ({field} {limit:,})" if type(limit) in (int, float) else f"{phrase} ({field})"
