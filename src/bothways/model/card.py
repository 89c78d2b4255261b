"""Lines of a model card (README.md) that are kept up to date."""

from __future__ import annotations

import re
from pathlib import Path

from bothways.errors import InputError
from bothways.files import write_text

CARD = "README.md"


def add_line(folder: Path, key: str, text: str) -> None:
    """Put a line between the markers of `key` in a folder's card, or at its end where it has none; no card, no line.

    Raises:
        InputError: the card is not UTF-8, or cannot be written; it is left as it was.
    """
    card = folder / CARD
    if not card.is_file():
        return
    marker = f"<!-- bothways:{key} -->"
    block = f"{marker}\n{text}\n{marker}"
    try:
        old = card.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{card}: not utf-8 at byte {error.start}; it is left as it was") from None
    new, found = re.subn(re.escape(marker) + ".*?" + re.escape(marker), lambda _: block, old, count=1, flags=re.DOTALL)
    write_text(card, new if found else f"{old.rstrip()}\n\n{block}\n")


def license_of(folder: Path) -> str | None:
    """The license that a folder states: in its card's front matter, else the first line of its LICENSE."""
    from huggingface_hub import metadata_load  # slow to import, and seldom wanted

    try:
        stated = (metadata_load(folder / CARD) or {}).get("license") if (folder / CARD).is_file() else None
    except Exception:  # whatever stands at the head of the card, it states no license that can be read
        stated = None
    if stated:
        return ", ".join(map(str, stated)) if isinstance(stated, list) else str(stated)
    file = folder / "LICENSE"
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.is_file() else []
    return next((line.strip() for line in lines if line.strip()), None)
