"""The tables in the documentation that follow from the code: printed, or written between their markers.

`python scripts/tables.py` rewrites the pages; a test says when that was forgotten.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.families import FAMILIES, bert, deberta, deberta_v2, modernbert, neobert, roberta
from bothways.layers.position import Disentangled, Rotary

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "loading.md"

# A size of each family, as published
BASES = {
    "bert": bert.SIZES["base"],
    "roberta": roberta.SIZES["base"],
    "xlm-roberta": roberta.SIZES["xlm-base"],
    "modernbert": modernbert.SIZES["base"],
    "neobert": neobert.SIZES["base"],
    "deberta": deberta.SIZES["base"],
    "deberta-v2": deberta_v2.SIZES["v3-base"],
}
COLUMNS = ("family", "norm", "order", "position", "MLP", "window", "layers", "hidden", "longest", "encoder parameters")


def families() -> str:
    """A row a family: the decisions of its base size."""
    return table(COLUMNS, [decisions(family.name, BASES[family.name]) for family in FAMILIES])


def decisions(name: str, config: EncoderConfig) -> tuple[str, ...]:
    layer = config.layers[0]
    return (
        f"`{name}`",
        kind(layer.norm),
        layer.order,
        position(config),
        f"{kind(layer.mlp)}, {layer.mlp.activation}",
        windows(config),
        str(config.num_layers),
        str(config.hidden_size),
        str(config.max_length),
        f"{parameters(config):,}",
    )


def position(config: EncoderConfig) -> str:
    if config.embedding.position is not None:
        return kind(config.embedding.position)
    positions = [layer.mixer.position for layer in config.layers]
    if inside := next((kind(one) for one in positions if isinstance(one, Disentangled)), None):
        return inside
    thetas = dict.fromkeys(position.theta for position in positions if isinstance(position, Rotary))
    return "rotary, theta " + " and ".join(f"{theta:,.0f}" for theta in thetas)


def windows(config: EncoderConfig) -> str:
    reaches = ["none" if layer.mixer.window is None else f"±{layer.mixer.window}" for layer in config.layers]
    return "none" if set(reaches) == {"none"} else ", ".join(reaches)


def kind(choice: Any) -> str:
    """The `type` of a config, and the fields by which a norm's differ from the default (a bias that is not there)."""
    named = choice.type.replace("_", " ")
    plain = any(field.name == "bias" and field.default is True for field in fields(choice)) and not choice.bias
    return f"{named}, no bias" if plain else named


def parameters(config: EncoderConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Encoder(config).parameters())


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def filled(page: str, name: str, content: str) -> str:
    """The page with this content between the markers of this name.

    Raises:
        ValueError: the page does not have the two markers.
    """
    begin, end = f"<!-- table: {name} -->", f"<!-- end of table: {name} -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"no place for the table '{name}': expected {begin} and {end}")
    return f"{before}{begin}\n{content}\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), "families", families()), encoding="utf-8")
