"""The tables in the documentation that follow from the code: printed, or written between their markers.

`python scripts/tables.py` rewrites the pages; a test says when that was forgotten.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from bothways.data.source import TextFiles
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
from bothways.recipes.published import RECIPES
from bothways.recipes.recipe import Recipe
from bothways.recipes.runs import Staged
from bothways.training.schedule import Elapsed, Hours, Steps, Tokens

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "loading.md"
RECIPES_PAGE = ROOT / "docs" / "recipes.md"

# A size of each family, as published, in the table's order
BASES = {
    "bert": bert.SIZES["base"],
    "roberta": roberta.SIZES["base"],
    "xlm-roberta": roberta.SIZES["xlm-base"],
    "camembert": roberta.SIZES["camembert-base"],
    "longformer": longformer.SIZES["base"],
    "albert": albert.SIZES["base-v2"],
    "distilbert": distilbert.SIZES["base"],
    "electra": electra.SIZES["base"],
    "deberta": deberta.SIZES["base"],
    "deberta-v2": deberta_v2.SIZES["v3-base"],
    "mpnet": mpnet.SIZES["base"],
    "ernie_gram": ernie_gram.SIZES["base"],
    "mosaicbert": mosaicbert.SIZES["base"],
    "nomic_bert": nomic.SIZES["2048"],
    "modernbert": modernbert.SIZES["base"],
    "neobert": neobert.SIZES["base"],
    "eurobert": eurobert.SIZES["210m"],
    "m2_bert": m2bert.SIZES["80m"],
    "llama": llama.SIZES["llama-3.2-1b"],
    "mistral": llama.SIZES["mistral-7b"],
    "qwen2": llama.SIZES["qwen2.5-0.5b"],
    "qwen3": llama.SIZES["qwen3-0.6b"],
}
COLUMNS = ("family", "norm", "order", "position", "MLP", "heads", "window", "layers", "hidden", "longest", "encoder parameters")


def families() -> str:
    """A row a family: the decisions of its base size.

    Raises:
        ValueError: a family without a row, or a row without a family.
    """
    if odd := {family.name for family in FAMILIES} ^ set(BASES):
        raise ValueError(f"BASES and FAMILIES differ in {', '.join(sorted(odd))}")
    return table(COLUMNS, [decisions(name, config) for name, config in BASES.items()])


def recipes() -> str:
    """A row a published run, at the paper's size; of several stages, in their order."""
    columns = ("recipe", "paper", "size", "stages", "length", "masked", "highest rate", "tokens a step", "budget")
    return table(columns, [figures(recipe) for recipe in RECIPES.values()])


def figures(recipe: Recipe) -> tuple[str, ...]:
    run = recipe(TextFiles(paths=("texts",)), None, "base")
    runs = run.runs if isinstance(run, Staged) else (run,)
    names = " · ".join(stage.name for stage in run.stages) if isinstance(run, Staged) else "one"
    of_each = (
        [f"{one.max_length:,}" for one in runs],
        [one.masking.rates for one in runs],
        [f"{one.training.optimizer.lr:g}" for one in runs],
        [f"{one.batching.tokens * one.training.accumulate:,}" for one in runs],
        [amount(one.training.budget) for one in runs],
    )
    told = (values[0] if len(set(values)) == 1 else " · ".join(values) for values in of_each)
    return (f"`{recipe.name}`", recipe.paper, recipe.base, names, *told)


def amount(budget: Steps | Tokens | Hours | Elapsed) -> str:
    """A budget in words."""
    if isinstance(budget, Hours | Elapsed):
        return f"{budget.hours:g} hours"
    return f"{budget.count:,} steps" if isinstance(budget, Steps) else f"{budget.count / 1e9:,.0f} billion tokens"


def decisions(name: str, config: EncoderConfig) -> tuple[str, ...]:
    layer = config.layers[0]
    return (
        f"`{name}`",
        kind(layer.norm),
        layer.order,
        position(config),
        f"{kind(layer.mlp)}, {layer.mlp.activation}",
        heads(layer, config.hidden_size),
        windows(config),
        str(config.num_layers) if config.shared is None else f"{config.num_layers} (of {max(config.depths) + 1} module)",
        str(config.hidden_size),
        str(config.max_length),
        f"{parameters(config):,}",
    )


def position(config: EncoderConfig) -> str:
    """Where positions act: added to the embedding, inside the score, or both."""
    added = [kind(config.embedding.position)] if config.embedding.position is not None else []
    positions = [mixer.position for mixer in config.attentions]
    bases = dict.fromkeys(base(position) for position in positions if isinstance(position, Rotary))
    rotary = ["rotary, theta " + " and ".join(bases)] if bases else []
    others = dict.fromkeys(kind(one) for one in positions if one is not None and not isinstance(one, Rotary))
    return " + ".join((*added, *rotary, *others)) or "none"


def base(position: Rotary) -> str:
    """The base of rotary positions, and how their frequencies are scaled."""
    return f"{position.theta:,.0f}" + ("" if position.scaling is None else f", scaled as {kind(position.scaling)}")


def heads(layer: Layer, hidden_size: int) -> str:
    """How many heads, and how many of keys and values where these are fewer."""
    if not isinstance(layer.mixer, Attention):
        return "none"
    count, kv_count, _ = layer.mixer.sizes(hidden_size)
    return str(count) if kv_count == count else f"{count}, {kv_count} of keys"


def windows(config: EncoderConfig) -> str:
    reaches = [reach(layer) for layer in config.layers]
    return reaches[0] if len(set(reaches)) == 1 else ", ".join(reaches)


def reach(layer: Layer) -> str:
    """How far attention looks; a mixer of another kind is named."""
    if not isinstance(layer.mixer, Attention):
        return f"no attention: {kind(layer.mixer)}"
    if layer.mixer.causal:
        return "causal" if layer.mixer.window is None else f"causal, -{layer.mixer.window}"
    everywhere = " and global tokens" if layer.mixer.global_tokens else ""
    return "none" if layer.mixer.window is None else f"±{layer.mixer.window}{everywhere}"


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
    for page, name, content in ((PAGE, "families", families()), (RECIPES_PAGE, "recipes", recipes())):
        page.write_text(filled(page.read_text(encoding="utf-8"), name, content), encoding="utf-8")
