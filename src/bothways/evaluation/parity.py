"""What two models are asked, one question a check: tokens, settings, layers, vectors, heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bothways.data.table import cut_to
from bothways.data.tokenizer import Tokenizer
from bothways.evaluation.checks import Budget, Check, at_least, at_most, equal, untold
from bothways.evaluation.comparison import Rows, closeness, label_flips, layer_gaps, masked_gap, overlap
from bothways.evaluation.heads import class_names, head_gap, problem
from bothways.model.model import Model
from bothways.retrieval.embedder import tokenizer_of


@dataclass(frozen=True, eq=False)
class Read:
    """The texts as ids, cut to what both models read.

    Attributes:
        alike: for each text, whether the two tokenizers give the same ids.
        pairs: neighbouring texts, where one of the models reads pairs.
        pairs_alike: for each pair, whether the ids and the token types are the same.
        common: those texts and pairs that are.
        tokens: of all texts, by the reference.
        cut: how many texts were longer.
    """

    alike: list[bool]
    pairs: list[tuple[str, str]]
    pairs_alike: list[bool]
    common: Rows
    tokens: int
    cut: int


def read_texts(reference: Model, candidate: Model, texts: Sequence[str]) -> Read:
    """Each text with its special tokens, and no prompt, by both tokenizers."""
    both: list[Rows] = []
    cut, pairs = 0, _neighbours(texts) if any(map(_reads_pairs, (reference, candidate))) else []
    for model in (reference, candidate):
        tokenizer = tokenizer_of(model)
        contents = tokenizer.encode(texts, specials=False)
        room = min(reference.max_seq_length, candidate.max_seq_length) - tokenizer.specials_per_sequence
        cut = max(cut, sum(len(ids) > room for ids in contents))
        rows = Rows.of([tokenizer.wrap(ids[:room]) for ids in contents])
        joined = _joined(tokenizer, pairs, room + tokenizer.specials_per_sequence - tokenizer.specials_per_pair)
        both.append(Rows(rows.ids + joined.ids, rows.types + joined.types))
    one, other = both
    same = [
        np.array_equal(a, b) and np.array_equal(x, y)
        for a, b, x, y in zip(one.ids, other.ids, one.types, other.types, strict=True)
    ]
    common = one.take([number for number, one in enumerate(same) if one])
    count = len(texts)
    return Read(same[:count], pairs, same[count:], common, sum(map(len, one.ids[:count])), cut)


def _reads_pairs(model: Model) -> bool:
    """Whether a model has a use for two texts: a type for the second, or a head that judges both."""
    heads = model.spec.heads
    return model.spec.encoder.embedding.token_types > 1 or any((heads.classifier, heads.next_sentence, heads.sentence_order))


def _neighbours(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Each text in a pair with the next one, and so each in one pair; a single text, or the last, with the first."""
    return [(texts[i], texts[(i + 1) % len(texts)]) for i in range(0, len(texts), 2)]


def _joined(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], room: int) -> Rows:
    flat = tokenizer.encode([text for pair in pairs for text in pair], specials=False)
    cut = [cut_to(flat[i : i + 2], max(room, 0)) for i in range(0, len(flat), 2)]
    joined = [tokenizer.join(first, second) for first, second in cut]
    return Rows([ids for ids, _ in joined], [types for _, types in joined])


def pair_checks(read: Read, allowed: bool) -> list[Check]:
    """Whether pairs of texts have the same ids and token types; nothing where neither model reads pairs."""
    if not read.pairs:
        return []
    share, found = sum(read.pairs_alike) / len(read.pairs), f"{sum(read.pairs_alike):,} of {len(read.pairs):,} alike"
    if allowed:
        return [Check(name="pair ids", found=found, value=share, budget="allowed", passed=True if share == 1 else None)]
    return [Check(name="pair ids", found=found, value=share, limit=1.0, budget="equal", passed=share == 1)]


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


def compare_layers(reference: Model, candidate: Model, common: Rows, budget: Budget) -> tuple[list[tuple[str, float]], Check]:
    depths = [model.spec.encoder.num_layers for model in (reference, candidate)]
    if depths[0] != depths[1]:
        return [], untold("layers", f"the reference has {depths[0]}, the candidate {depths[1]}")
    if not common.ids:
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
    reference: Model, candidate: Model, texts: Sequence[str], read: Read, budget: Budget, allowed: bool
) -> list[Check]:
    """Every head of either model has a check that names it. One that the candidate lacks is a failure by itself."""
    checks: list[Check] = []
    for name in [field for field in vars(reference.spec.heads) if field in reference.heads or field in candidate.heads]:
        if name not in candidate.heads:
            missing = Check(name=f"head {name}", found="the candidate lacks it", budget="there", passed=False)
            checks.append(untold(missing.name, "only the reference has it") if allowed else missing)
        elif name not in reference.heads:
            checks.append(untold(f"head {name}", "only the candidate has it"))
        elif name == "masked_lm":
            checks += _masked_checks(reference, candidate, read.common, budget)
        elif name == "classifier":
            checks += _label_checks(reference, candidate, texts, read.pairs, budget)
        else:
            checks.append(_head_check(reference, candidate, name, read.common, budget))
    return checks


def _head_check(reference: Model, candidate: Model, name: str, common: Rows, budget: Budget) -> Check:
    shown = f"head {name}"
    if not common.ids:
        return untold(shown, "no text has the same token ids")
    gap = head_gap(reference, candidate, name, common)
    return equal(shown, "outputs", "outputs of another shape") if gap is None else at_most(shown, gap, budget.logits)


def _masked_checks(reference: Model, candidate: Model, common: Rows, budget: Budget) -> list[Check]:
    sizes = [model.spec.encoder.vocab_size for model in (reference, candidate)]
    if sizes[0] != sizes[1]:
        return [untold("logits", f"vocabularies of {sizes[0]:,} and {sizes[1]:,}")]
    if not common.ids:
        return [untold("logits", "no text has the same token ids")]
    gap = masked_gap(reference, candidate, common.ids)
    if not gap.positions:
        return [untold("logits", "no text has a token to mask")]
    return [
        at_most("logits", gap.relative, budget.logits, f"{gap.positions:,} masked tokens"),
        at_least("best token", gap.top1, budget.top1),
    ]


def _label_checks(
    reference: Model, candidate: Model, texts: Sequence[str], pairs: Sequence[tuple[str, str]], budget: Budget
) -> list[Check]:
    heads = [model.spec.heads.classifier for model in (reference, candidate)]
    labels = [head.labels for head in heads if head is not None]
    if len(set(labels)) > 1:
        return [equal("labels", f"{labels[0]}", f"{labels[1]}")]
    flips, largest = label_flips(reference, candidate, texts, pairs)
    checks = [
        equal("class names", class_names(reference), class_names(candidate)),
        equal("problem", problem(reference), problem(candidate)),
        at_most("outputs", largest, budget.outputs),
    ]
    return checks if flips is None else [*checks, at_most("label flips", flips, budget.flips)]


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 24 else text[:23] + "…")
