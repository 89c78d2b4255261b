"""`bothways info`: what a model is, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bothways.cli.options import FamilyOption, JsonOption, ModelArgument, StrictOption, examples
from bothways.cli.output import aligned, show

if TYPE_CHECKING:
    from bothways.layers.attention import Attention
    from bothways.layers.monarch import Monarch
    from bothways.model.model import Model

_EXAMPLES = examples(
    "bothways info my_model",
    "bothways info my_model --length 64 --length 4096",
    "bothways info sentence-transformers/all-MiniLM-L6-v2 --json",
)
# The widths of the numbers that models are kept in.
_DTYPES = {"float32": 4, "bfloat16": 2}


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(info)


def info(
    model: ModelArgument,
    length: Annotated[
        list[int] | None,
        typer.Option("--length", min=1, help="Tokens of a text whose cost is counted; default: 128, 512 and the longest."),
    ] = None,
    family: FamilyOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show a model's sizes, its parameters by part, what a token costs, how it embeds, its license and its certificate."""
    import bothways
    from bothways.model.folder import resolve

    loaded = bothways.load(model, family=family, device="cpu", strict=strict)
    data = _facts(loaded, resolve(model), length or [])
    show(data, _text(data), as_json)


def _facts(model: Model, folder: Path, lengths: list[int]) -> dict[str, Any]:
    from bothways.layers.attention import Attention
    from bothways.model.card import license_of
    from bothways.model.cost import flops_per_token, forward_bytes, head_flops, parameters_by_part

    config, tokenizer = model.spec.encoder, model.tokenizer
    longest, mixers = config.max_length, [layer.mixer for layer in config.layers]
    chosen = sorted({min(one, longest) for one in (lengths or [128, 512, longest])})
    batch, of_heads = _batch(model), head_flops(model, min(512, longest))
    return {
        "model": model.name,
        "family": model.family.name,
        "hidden_size": config.hidden_size,
        "layers": config.num_layers,
        "mixers": [mixer.type for mixer in mixers],
        "heads": [mixer.heads if isinstance(mixer, Attention) else None for mixer in mixers],
        "intermediate_size": [layer.mlp.size for layer in config.layers],
        "windows": [mixer.window if isinstance(mixer, Attention) else None for mixer in mixers],
        "positions": _positions(model),
        "context": longest,
        "vocab_size": config.vocab_size,
        "parameters": {**parameters_by_part(model), "total": model.parameters_count},
        "bytes": {name: size * model.parameters_count for name, size in _DTYPES.items()},
        "forward_bytes": {"tokens": batch, **{name: forward_bytes(model, batch, size) for name, size in _DTYPES.items()}},
        "flops_per_token": {
            str(one): {**parts, "total": sum(parts.values())} for one, parts in flops_per_token(model, chosen).items()
        },
        "head_flops": {name: flops for name, (flops, _) in of_heads.items()},
        "head_flops_of": {name: unit for name, (_, unit) in of_heads.items()},
        "labels": list(model.spec.labels) if model.spec.heads.classifier else None,
        "embedding": _embedding(model),
        "tokenizer": None
        if tokenizer is None
        else {
            "kind": type(tokenizer.backend.model).__name__,
            "vocab_size": tokenizer.vocab_size,
            "max_length": tokenizer.max_length,
            "special_tokens": tokenizer.tokens,
        },
        "license": license_of(folder),
        "certificate": _certificate(model, folder),
    }


def _batch(model: Model) -> int:
    from bothways.model.batching import CPU_TOKENS

    return max(CPU_TOKENS, model.spec.encoder.max_length)


def _positions(model: Model) -> list[str]:
    """Where positions act, for each layer of the pattern."""
    position = model.spec.encoder.embedding.position
    added = [] if position is None else [position.type]
    return [" and ".join(added + _scored(layer.mixer)) or "none" for layer in model.spec.encoder.layers]


def _scored(mixer: Attention | Monarch) -> list[str]:
    from bothways.layers.attention import Attention
    from bothways.layers.position import Rotary

    match mixer.position if isinstance(mixer, Attention) else None:
        case None:
            return []
        case Rotary(theta=theta):
            return [f"rotary (theta {theta:,.0f})"]
        case other:
            return [other.type]


def _embedding(model: Model) -> dict[str, Any]:
    settings = model.settings
    return {
        "declared": settings.declared,
        "pooling": settings.pooling,
        "normalize": settings.normalize,
        "max_seq_length": model.max_seq_length,
        "prompts": dict(settings.prompts),
        "default_prompt": settings.default_prompt,
    }


def _certificate(model: Model, folder: Path) -> dict[str, Any] | None:
    """The folder's certificate; `current` says whether it is of these very weights."""
    from bothways.config import to_json
    from bothways.errors import InputError
    from bothways.evaluation.certificate import read_certificate, summary

    try:
        found = read_certificate(folder)
    except InputError as error:
        return {"error": str(error)}
    if found is None:
        return None
    certified = (found.candidate.fingerprint, found.candidate.heads_fingerprint)
    current = certified == (model.fingerprint, model.heads_fingerprint)
    return {"verdict": found.verdict, "current": current, "summary": summary(found), "certificate": _tree(to_json(found))}


def _tree(text: str) -> Any:
    import json

    return json.loads(text)


# -- for people -----------------------------------------------------------------------------------


def _text(facts: dict[str, Any]) -> str:
    return "\n".join((aligned(_shape(facts)), "", *_parts(facts), "", aligned(_rest(facts))))


def _shape(facts: dict[str, Any]) -> dict[str, str]:
    return {
        "model": facts["model"],
        "family": facts["family"],
        "hidden size": f"{facts['hidden_size']:,}",
        "layers": f"{facts['layers']}",
        "heads": _each(["none" if heads is None else heads for heads in facts["heads"]]),
        "mlp": _each(facts["intermediate_size"]),
        "attention": _each(list(map(_mixing, facts["mixers"], facts["windows"]))),
        "positions": _each(facts["positions"]),
        "context": f"{facts['context']:,} tokens",
        "vocabulary": f"{facts['vocab_size']:,}",
    }


def _parts(facts: dict[str, Any]) -> list[str]:
    """A table: what each part holds, and what it costs a token in texts of each length."""
    counts, costs = facts["parameters"], facts["flops_per_token"]
    total = counts["total"]
    rows = [["part", "parameters", "share", *(f"at {int(length):,}" for length in costs)]]
    for name in dict.fromkeys([*counts, *(part for parts in costs.values() for part in parts)]):
        if name == "total" or not (name in counts or any(parts[name] for parts in costs.values())):
            continue
        count = counts.get(name, 0)
        spent = [_flops(parts[name]) if parts.get(name) else "" for parts in costs.values()]
        rows.append([name, f"{count:,}", f"{count / total:.1%}", *spent])
    rows.append(["total", f"{total:,}", "", *(_flops(parts["total"]) for parts in costs.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{row[0]:<{widths[0]}}  " + "  ".join(map(str.rjust, row[1:], widths[1:])) for row in rows]
    rule = "-" * len(lines[0])
    above = " " * (sum(widths[:3]) + 6) + "FLOPs a token in texts"
    return [above, lines[0], rule, *(line.rstrip() for line in lines[1:-1]), rule, lines[-1]]


def _rest(facts: dict[str, Any]) -> dict[str, str]:
    return {**_memory(facts), **_use(facts), **_papers(facts)}


def _memory(facts: dict[str, Any]) -> dict[str, str]:
    weights, forward = facts["bytes"], facts["forward_bytes"]
    return {
        "weights": ", ".join(f"{_size(weights[name])} in {name}" for name in _DTYPES),
        "forward pass": "about " + ", ".join(f"{_size(forward[name])} in {name}" for name in _DTYPES)
        + f" more, for {forward['tokens']:,} tokens at once",
    }  # fmt: skip


def _use(facts: dict[str, Any]) -> dict[str, str]:
    embedding, tokenizer = facts["embedding"], facts["tokenizer"]
    prompts = [f"{name} {text!r}" for name, text in embedding["prompts"].items()]
    default = embedding["default_prompt"]
    pooling = f"{embedding['pooling']}, {'length 1' if embedding['normalize'] else 'not normalised'}"
    heads = {
        f"head {name}": f"{_flops(flops)}FLOPs {facts['head_flops_of'][name]}"
        + (f"; {', '.join(facts['labels'])}" if name == "classifier" and facts["labels"] else "")
        for name, flops in facts["head_flops"].items()
    }
    return {
        **(heads or {"heads on it": "none"}),
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


def _papers(facts: dict[str, Any]) -> dict[str, str]:
    found = facts["certificate"]
    if found is None:
        certificate = "none; bothways verify REFERENCE MODEL makes one"
    elif "error" in found:
        certificate = f"unreadable: {found['error']}"
    else:
        stale = "" if found["current"] else " (not of these weights: they have changed since)"
        certificate = found["summary"] + stale
    return {"license": facts["license"] or "not stated", "certificate": certificate}


def _flops(flops: float) -> str:
    """Three digits and a letter, as in 10.6 M."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if flops >= scale:
            return f"{flops / scale:,.1f} {letter}"
    return f"{flops:,.0f} "


def _size(count: int) -> str:
    units = ((30, "GiB"), (20, "MiB"), (10, "KiB"))
    return next(f"{count / 2**power:,.1f} {unit}" for power, unit in units if count >> power or power == 10)


def _each(values: list[Any]) -> str:
    """One value where all layers of the pattern agree, else all of the pattern."""
    return str(values[0]) if len(set(values)) == 1 else ", ".join(map(str, values)) + ", repeated"
