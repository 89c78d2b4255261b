"""Lines of a model card (README.md) that are kept up to date."""

from __future__ import annotations

import re
from pathlib import Path

from bothways.files import write_text

CARD = "README.md"


def add_line(folder: Path, key: str, text: str) -> None:
    """Put a line between the markers of `key` in a folder's card, or at its end where it has none; no card, no line.

    Raises:
        InputError: the card cannot be written; it is left as it was.
    """
    card = folder / CARD
    if not card.is_file():
        return
    marker = f"<!-- bothways:{key} -->"
    block = f"{marker}\n{text}\n{marker}"
    old = card.read_text(encoding="utf-8")
    new, found = re.subn(re.escape(marker) + ".*?" + re.escape(marker), lambda _: block, old, count=1, flags=re.DOTALL)
    write_text(card, new if found else f"{old.rstrip()}\n\n{block}\n")
