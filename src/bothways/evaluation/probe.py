"""Texts on which two models are compared: many languages and scripts, code, numbers, signs, and hardly anything at all."""

from __future__ import annotations

import json
from importlib.resources import files


def probe_texts() -> list[str]:
    """The texts that come with the package: short and long, 130 of them, none of them empty."""
    lines = files("bothways.evaluation").joinpath("probe.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line)["text"] for line in lines if line]
