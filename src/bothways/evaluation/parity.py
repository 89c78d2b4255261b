"""What two models are asked, one question a check: tokens, settings, layers, vectors, heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bothways.data.tokenizer import Tokenizer
from bothways.evaluation.checks import Budget, Check, at_least, at_most, equal, untold
from bothways.evaluation.comparison import closeness, label_flips, layer_gaps, masked_gap, overlap
from bothways.model.model import Model
from bothways.retrieval.embedder import tokenizer_of


@dataclass(frozen=True, eq=False)
class Read:
    """The texts as ids, cut to what both models read.

    Attributes:
        alike: for each text, whether the two tokenizers give the same ids.
        common: the ids of those that are.
        tokens: of all texts, by the reference.
        cut: how many texts were longer.
    """

    alike: list[bool]
    common: list[np.ndarray]
    tokens: int
    cut: int


def read_texts(reference: Model, candidate: Model, texts: Sequence[str]) -> Read:
    """Each text with its special tokens, and no prompt, by both tokenizers."""
    both: list[list[np.ndarray]] = []
    cut = 0
    for model in (reference, candidate):
        tokenizer = tokenizer_of(model)
        contents = tokenizer.encode(texts, specials=False)
        room = min(reference.max_seq_length, candidate.max_seq_length) - tokenizer.specials_per_sequence
        cut = max(cut, sum(len(ids) > room for ids in contents))
        both.append([tokenizer.wrap(ids[:room]) for ids in contents])
    alike = [np.array_equal(a, b) for a, b in zip(*both, strict=True)]
    common = [ids for ids, same in zip(both[0], alike, strict=True) if same]
    return Read(alike, common, sum(map(len, both[0])), cut)


def token_check(reference: Model, candidate: Model, texts: Sequence[str], alike: list[bool], allowed: bool) -> Check:
    share, note = sum(alike) / len(alike), ""
    if share < 1:
        number = alike.index(False)
        note = f"first other: text {number + 1}, {_excerpt(texts[number])}, {_first_other(reference, candidate, texts[number])}"
    return Check(
        name="token ids",
        found=f"{sum(alike):,} of {len(alike):,} alike",
        note=note,
        value=share,
        limit=None if allowed else 1.0,
        budget="allowed" if allowed else "equal",
        passed=None if allowed and share < 1 else share == 1,
    )


def _first_other(reference: Model, candidate: Model, text: str) -> str:
    """Where the ids of a text part, as the tokens there."""
    one, other = (tokenizer_of(model) for model in (reference, candidate))
    a, b = (tokenizer.encode([text])[0].tolist() for tokenizer in (one, other))
    place = next((i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))
    return f"token {place}: {_token(one, a, place)} / {_token(other, b, place)}"


def _token(tokenizer: Tokenizer, ids: list[int], place: int) -> str:
    return f"{ids[place]} {tokenizer.backend.id_to_token(ids[place])!r}" if place < len(ids) else "none"


def settings_checks(reference: Model, candidate: Model) -> list[Check]:
    one, other = reference.settings, candidate.settings
    return [
        equal("pooling", one.pooling, other.pooling),
        equal("normalisation", _length(one.normalize), _length(other.normalize)),
        equal("max_seq_length", f"{reference.max_seq_length:,}", f"{candidate.max_seq_length:,}"),
        equal("prompts", *(_prompts(model) for model in (reference, candidate))),
    ]


def length_check(reference: Model, vectors: np.ndarray) -> Check:
    """A server shows whether it normalises; the rest of its settings it keeps to itself."""
    scaled = bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3))
    return equal("normalisation", _length(reference.settings.normalize), _length(scaled))


def _length(normalize: bool) -> str:
    return "length 1" if normalize else "none"


def _prompts(model: Model) -> str:
    settings = model.settings
    named = [f"{name} {text!r}" for name, text in sorted(settings.prompts.items())]
    default = [f"default {settings.default_prompt}"] if settings.default_prompt else []
    pooled = ["not pooled"] if named and not settings.include_prompt else []
    return ", ".join(named + default + pooled) or "none"


def compare_layers(
    reference: Model, candidate: Model, common: list[np.ndarray], budget: Budget
) -> tuple[list[tuple[str, float]], Check]:
    depths = [model.spec.encoder.num_layers for model in (reference, candidate)]
    if depths[0] != depths[1]:
        return [], untold("layers", f"the reference has {depths[0]}, the candidate {depths[1]}")
    if not common:
        return [], untold("layers", "no text has the same token ids")
    if reference.spec.encoder.hidden_size != candidate.spec.encoder.hidden_size:
        return [], untold("layers", "their widths differ")
    gaps = layer_gaps(reference.encoder, candidate.encoder, common)
    worst = max((gap for _, gap in gaps), key=lambda gap: np.inf if np.isnan(gap) else gap)
    first = next((name for name, gap in gaps if not gap <= budget.layers), None)
    return gaps, at_most("layers", worst, budget.layers, f"first beyond: {first}" if first else "")


def vector_checks(vectors: tuple[np.ndarray, np.ndarray], texts: Sequence[str], budget: Budget) -> list[Check]:
    close = closeness(*vectors)
    worst = f"text {close.worst + 1}, {_excerpt(texts[close.worst])}" if close.least_cosine < 0.999999 else ""
    checks = [
        at_least("mean cosine", close.mean_cosine, budget.mean_cosine),
        at_least("least cosine", close.least_cosine, budget.least_cosine, worst),
        at_most("vectors", close.relative, budget.vectors),
    ]
    for k in (1, 10):
        share = overlap(*vectors, k)
        name = f"nearest {k}"
        one = untold(name, "a single text") if share is None else at_least(name, share, budget.neighbours)
        checks.append(one)
    return checks


def head_checks(
    reference: Model, candidate: Model, texts: Sequence[str], common: list[np.ndarray], budget: Budget
) -> list[Check]:
    checks = []
    for name in ("masked_lm", "classifier"):
        owners = [who for who, model in (("reference", reference), ("candidate", candidate)) if name in model.heads]
        if len(owners) == 1:
            checks.append(untold(f"head {name}", f"only the {owners[0]} has it"))
        elif owners:
            compare = _masked_checks if name == "masked_lm" else _label_checks
            checks += compare(reference, candidate, texts, common, budget)
    return checks


def _masked_checks(
    reference: Model, candidate: Model, texts: Sequence[str], common: list[np.ndarray], budget: Budget
) -> list[Check]:
    sizes = [model.spec.encoder.vocab_size for model in (reference, candidate)]
    if sizes[0] != sizes[1]:
        return [untold("logits", f"vocabularies of {sizes[0]:,} and {sizes[1]:,}")]
    if not common:
        return [untold("logits", "no text has the same token ids")]
    gap = masked_gap(reference, candidate, common)
    return [
        at_most("logits", gap.relative, budget.logits, f"{gap.positions:,} masked tokens"),
        at_least("best token", gap.top1, budget.top1),
    ]


def _label_checks(
    reference: Model, candidate: Model, texts: Sequence[str], common: list[np.ndarray], budget: Budget
) -> list[Check]:
    heads = [model.spec.heads.classifier for model in (reference, candidate)]
    labels = [head.labels for head in heads if head is not None]
    if len(set(labels)) > 1:
        return [equal("labels", f"{labels[0]}", f"{labels[1]}")]
    flips, largest = label_flips(reference, candidate, texts)
    outputs = at_most("outputs", largest, budget.outputs)
    return [outputs] if flips is None else [outputs, at_most("label flips", flips, budget.flips)]


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 24 else text[:23] + "…")
