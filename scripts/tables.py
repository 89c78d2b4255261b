"""The tables in the documentation that follow from the code: printed, or written between their markers.

`python scripts/tables.py` rewrites the pages; a test says when that was forgotten.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from bothways.encoder.config import EncoderConfig, Layer
from bothways.encoder.encoder import Encoder
from bothways.families import (
    FAMILIES,
    albert,
    bert,
    deberta,
    deberta_v2,
    distilbert,
    electra,
    ernie_gram,
    eurobert,
    llama,
    longformer,
    m2bert,
    modernbert,
    mosaicbert,
    mpnet,
    neobert,
    nomic,
    roberta,
)
from bothways.layers.attention import Attention
from bothways.layers.position import Rotary

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "loading.md"

# A size of each family, as published
BASES = {
    "bert": bert.SIZES["base"],
    "roberta": roberta.SIZES["base"],
    "xlm-roberta": roberta.SIZES["xlm-base"],
    "albert": albert.SIZES["base-v2"],
    "distilbert": distilbert.SIZES["base"],
    "electra": electra.SIZES["base"],
    "longformer": longformer.SIZES["base"],
    "modernbert": modernbert.SIZES["base"],
    "neobert": neobert.SIZES["base"],
    "mpnet": mpnet.SIZES["base"],
    "ernie_gram": ernie_gram.SIZES["base"],
    "mosaicbert": mosaicbert.SIZES["base"],
    "nomic_bert": nomic.SIZES["2048"],
    "m2_bert": m2bert.SIZES["80m"],
    "camembert": roberta.SIZES["camembert-base"],
    "eurobert": eurobert.SIZES["210m"],
    "llama": llama.SIZES["llama-3.2-1b"],
    "mistral": llama.SIZES["mistral-7b"],
    "qwen2": llama.SIZES["qwen2.5-0.5b"],
    "qwen3": llama.SIZES["qwen3-0.6b"],
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
    """Where positions act: added to the embedding, inside the score, or both."""
    added = [kind(config.embedding.position)] if config.embedding.position is not None else []
    positions = [mixer.position for mixer in config.attentions]
    thetas = dict.fromkeys(position.theta for position in positions if isinstance(position, Rotary))
    rotary = ["rotary, theta " + " and ".join(f"{theta:,.0f}" for theta in thetas)] if thetas else []
    others = dict.fromkeys(kind(one) for one in positions if one is not None and not isinstance(one, Rotary))
    return " + ".join((*added, *rotary, *others)) or "none"


def windows(config: EncoderConfig) -> str:
    reaches = [reach(layer) for layer in config.layers]
    return reaches[0] if len(set(reaches)) == 1 else ", ".join(reaches)


def reach(layer: Layer) -> str:
    """How far attention looks; a mixer of another kind is named."""
    if not isinstance(layer.mixer, Attention):
        return f"no attention: {kind(layer.mixer)}"
    if layer.mixer.causal:
        return "causal" if layer.mixer.window is None else f"causal, -{layer.mixer.window}"
    return "none" if layer.mixer.window is None else f"±{layer.mixer.window}"


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
