"""Small corpora with known duplicates in them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

WORDS = re.findall(
    r"\w+",
    "harbour tide ship mast rope gull lantern storm captain sail anchor deck wave island chart compass pier crew cargo "
    "fog bell wind morning evening winter summer letter door window garden river bridge market street candle table chair",
)


def prose(seed: int, words: int = 120) -> str:
    """Random words in sentences; two seeds share hardly any run of five words."""
    draw = random.Random(seed)
    sentences = []
    for _ in range(0, words, 12):
        chosen = [draw.choice(WORDS) for _ in range(9)]
        sentences.append(" ".join(["The", *chosen[:4], draw.choice(["of", "to", "and", "with"]), "the", *chosen[4:]]) + ".")
    return "\n".join(" ".join(sentences[i : i + 3]) for i in range(0, len(sentences), 3))


def edited(text: str, seed: int, share: float = 0.02) -> str:
    """The text with a share of its words replaced, at least one."""
    draw = random.Random(seed)
    words = text.split(" ")
    for place in draw.sample(range(len(words)), max(round(share * len(words)), 1)):
        words[place] = "elsewhere"
    return " ".join(words)


def write_lines(path: Path, texts: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a finished curation but its page, which says how long it took."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "audit.html")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
