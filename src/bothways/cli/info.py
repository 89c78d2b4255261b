"""`bothways info`: what a model is, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bothways.cli.options import FamilyOption, JsonOption, ModelArgument, StrictOption, examples
from bothways.cli.output import aligned, show

if TYPE_CHECKING:
    from bothways.model.model import Model

_EXAMPLES = examples(
    "bothways info my_model",
    "bothways info sentence-transformers/all-MiniLM-L6-v2 --json",
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(info)


def info(
    model: ModelArgument,
    length: Annotated[int, typer.Option("--length", min=1, help="Tokens of the text whose cost is counted.")] = 512,
    family: FamilyOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show a model's sizes, its parameters by part, what a token costs, and how it embeds."""
    import bothways

    loaded = bothways.load(model, family=family, device="cpu", strict=strict)
    data = _facts(loaded, length)
    show(data, aligned(_lines(data)), as_json)


def _facts(model: Model, length: int) -> dict[str, Any]:
    from bothways.layers.attention import Attention
    from bothways.ragged import Ragged

    config, settings, tokenizer = model.spec.encoder, model.settings, model.tokenizer
    length, mixers = min(length, config.max_length), [layer.mixer for layer in config.layers]
    parts = {
        "embedding": model.encoder.embedding,
        "layers": model.encoder.layers,
        "final_norm": model.encoder.final_norm,
        **{f"head {name}": head for name, head in model.heads.items()},
    }
    counts = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}
    return {
        "model": model.name,
        "family": model.family.name,
        "hidden_size": config.hidden_size,
        "layers": config.num_layers,
        "mixers": [mixer.type for mixer in mixers],
        "heads": [mixer.heads if isinstance(mixer, Attention) else None for mixer in mixers],
        "intermediate_size": [layer.mlp.size for layer in config.layers],
        "windows": [mixer.window if isinstance(mixer, Attention) else None for mixer in mixers],
        "context": config.max_length,
        "vocab_size": config.vocab_size,
        "parameters": {**{name: count for name, count in counts.items() if count}, "total": model.parameters_count},
        "bytes_float32": sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
        "flops_per_token": {"length": length, "flops": model.encoder.flops(Ragged.of([length])) / length},
        "embedding": {
            "declared": settings.declared,
            "pooling": settings.pooling,
            "normalize": settings.normalize,
            "max_seq_length": model.max_seq_length,
            "prompts": dict(settings.prompts),
            "default_prompt": settings.default_prompt,
        },
        "tokenizer": None
        if tokenizer is None
        else {
            "kind": type(tokenizer.backend.model).__name__,
            "vocab_size": tokenizer.vocab_size,
            "max_length": tokenizer.max_length,
            "special_tokens": tokenizer.tokens,
        },
    }


def _lines(facts: dict[str, Any]) -> dict[str, str]:
    parameters, cost, embedding, tokenizer = (facts[key] for key in ("parameters", "flops_per_token", "embedding", "tokenizer"))
    rest = {key: value for key, value in parameters.items() if key != "total"}
    prompts = [f"{name} {text!r}" for name, text in embedding["prompts"].items()]
    default = embedding["default_prompt"]
    pooling = f"{embedding['pooling']}, {'length 1' if embedding['normalize'] else 'not normalised'}"
    return {
        "model": facts["model"],
        "family": facts["family"],
        "hidden size": f"{facts['hidden_size']:,}",
        "layers": f"{facts['layers']}",
        "heads": _each(["none" if heads is None else heads for heads in facts["heads"]]),
        "mlp": _each(facts["intermediate_size"]),
        "attention": _each(list(map(_mixing, facts["mixers"], facts["windows"]))),
        "context": f"{facts['context']:,} tokens",
        "vocabulary": f"{facts['vocab_size']:,}",
        "parameters": f"{parameters['total']:,}",
        **{f"  {name}": f"{count:,} ({count / parameters['total']:.1%})" for name, count in rest.items()},
        "memory": f"{facts['bytes_float32'] / 2**20:,.1f} MiB of weights in float32",
        "cost": f"{cost['flops'] / 1e6:,.1f} MFLOPs a token in texts of {cost['length']:,}",
        "pooling": pooling if embedding["declared"] else f"{pooling} (the folder does not say; these are the defaults)",
        "embeds": f"{embedding['max_seq_length']:,} tokens of a text",
        "prompts": ", ".join(prompts) + (f" (default: {default})" if default else "") if prompts else "none",
        "tokenizer": "none"
        if tokenizer is None
        else f"{tokenizer['kind']}, {tokenizer['vocab_size']:,} ids, {' '.join(tokenizer['special_tokens'].values())}",
    }


def _mixing(mixer: str, window: int | None) -> str:
    """How far a layer looks."""
    if mixer != "attention":
        return f"none: {mixer}"
    return "global" if window is None else f"window {window}"


def _each(values: list[Any]) -> str:
    """One value where all layers of the pattern agree, else all of the pattern."""
    return str(values[0]) if len(set(values)) == 1 else ", ".join(map(str, values)) + ", repeated"
