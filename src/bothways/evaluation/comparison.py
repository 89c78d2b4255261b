"""How far two models lie apart: their vectors, their layers, their heads, their speed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from bothways.encoder.encoder import Encoder
from bothways.model.batching import CPU_TOKENS, by_budget
from bothways.model.model import Model
from bothways.model.overflow import CutWarning
from bothways.ragged import Batch
from bothways.retrieval.dense import unit

# Cosines closer than this are a tie: rounding decides who comes first.
_TIE = 1e-6
# Of a long list of texts, so many are enough for what grows with the square of them, or with the vocabulary.
_NEIGHBOURS, _MASKED = 2000, 256
_LOGIT_ROWS = 128
T = TypeVar("T")


@runtime_checkable
class Encodes(Protocol):
    """Texts to vectors, float32 [texts, size]: a model, or a server."""

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Rows:
    """Token ids of sequences, and the token types of each."""

    ids: list[np.ndarray]
    types: list[np.ndarray]

    @classmethod
    def of(cls, sequences: Sequence[np.ndarray]) -> Rows:
        """Single texts: all of type 0."""
        return cls(list(sequences), [np.zeros_like(ids) for ids in sequences])

    def take(self, chosen: Sequence[int]) -> Rows:
        return Rows([self.ids[i] for i in chosen], [self.types[i] for i in chosen])

    def batch(self, encoder: Encoder) -> Batch:
        """As the encoder reads them: without types where it has only one."""
        return Batch.of(self.ids, self.types if encoder.config.embedding.token_types > 1 else None)


@dataclass(frozen=True)
class Closeness:
    """Two vectors for each text.

    Attributes:
        worst: the number of the text with the least cosine.
        largest: the largest difference of two numbers; `relative` is it by the reference's largest number.
    """

    mean_cosine: float
    least_cosine: float
    worst: int
    largest: float
    relative: float


@dataclass(frozen=True)
class MaskedGap:
    """Logits at `positions` masked tokens: the largest difference, relative, and how often the best token is the same."""

    positions: int
    relative: float
    top1: float


@dataclass(frozen=True)
class Seconds:
    """Medians of the reference and of the candidate: for one text at a time, and for all of them."""

    one: tuple[float, float]
    all: tuple[float, float]


def closeness(reference: np.ndarray, candidate: np.ndarray) -> Closeness:
    """Compare vectors [texts, size] row by row, in float64. Two zero vectors have cosine 1."""
    a, b = (vectors.astype(np.float64) for vectors in (reference, candidate))
    cosines = (unit(a) * unit(b)).sum(axis=1)
    cosines[~a.any(axis=1) & ~b.any(axis=1)] = 1.0
    gap, scale = float(np.abs(a - b).max()), float(np.abs(a).max())
    return Closeness(float(cosines.mean()), float(cosines.min()), int(cosines.argmin()), gap, gap / scale if scale else gap)


def overlap(reference: np.ndarray, candidate: np.ndarray, k: int) -> float | None:
    """The share of each text's `k` nearest others by the candidate that are its nearest by the reference, too.

    Equals count for each other: a neighbour as near as the reference's k-th is right. None: there are no others.
    """
    some = _some(range(len(reference)), _NEIGHBOURS)
    a, b = (unit(vectors[some].astype(np.float64)) for vectors in (reference, candidate))
    k = min(k, len(some) - 1)
    if k < 1:
        return None
    right = 0.0
    for row in range(len(some)):
        ours, theirs = np.delete(a @ a[row], row), np.delete(b @ b[row], row)
        nearest = np.argsort(-theirs, kind="stable")[:k]
        right += float((ours[nearest] >= np.partition(ours, -k)[-k] - _TIE).mean())
    return right / len(some)


@torch.inference_mode()
def layer_gaps(reference: Encoder, candidate: Encoder, rows: Rows) -> list[tuple[str, float]]:
    """The largest difference of hidden states after each layer, relative to the reference's largest value there.

    Layers are numbered from 0, as in the names of weights; before them comes the embedding, after them a last norm.
    Both encoders have the same depth and width.
    """
    names = ["embedding", *(f"layer {number}" for number in range(reference.config.num_layers))]
    if reference.config.final_norm is not None or candidate.config.final_norm is not None:
        names.append("final norm")
    gaps, scales = torch.zeros(len(names)), torch.zeros(len(names))
    for chosen in by_budget([len(one) for one in rows.ids], CPU_TOKENS):
        part = rows.take(chosen)
        if not sum(map(len, part.ids)):
            continue
        pairs = list(zip(*(_states(encoder, part, len(names)) for encoder in (reference, candidate)), strict=True))
        gaps = torch.maximum(gaps, torch.stack([(a - b).abs().max() for a, b in pairs]).cpu())  # keeps a NaN
        scales = torch.maximum(scales, torch.stack([a.abs().max() for a, _ in pairs]).cpu())
    return [(name, float(gap / scale if scale else gap)) for name, gap, scale in zip(names, gaps, scales, strict=True)]


@torch.inference_mode()
def masked_gap(reference: Model, candidate: Model, sequences: Sequence[np.ndarray]) -> MaskedGap:
    """Compare what the masked-language-model heads say where every fifth token is masked.

    Both vocabularies have the same size. A tokenizer without a mask leaves the tokens as they are.
    """
    tokenizer = reference.tokenizer
    assert tokenizer is not None
    gap = scale = torch.zeros(())
    same = positions = 0
    masked, rows = _masked(_some(sequences, _MASKED), tokenizer.mask_id, tokenizer.special_ids)
    for chosen in by_budget([len(one) for one in masked], CPU_TOKENS):
        batch = Batch.of([masked[i] for i in chosen])
        where = torch.from_numpy(
            np.concatenate([rows[i] + start for i, start in zip(chosen, batch.ragged.offsets, strict=False)])
        )
        hidden = [model.encoder(batch.to(model.device)).hidden[where.to(model.device)] for model in (reference, candidate)]
        for parts in zip(*(one.split(_LOGIT_ROWS) for one in hidden), strict=True):
            a, b = (model.masked_lm(part).float().cpu() for model, part in zip((reference, candidate), parts, strict=True))
            if not len(a):
                continue
            gap, scale = torch.maximum(gap, (a - b).abs().max()), torch.maximum(scale, a.abs().max())
            same += int((a.argmax(dim=1) == b.argmax(dim=1)).sum())
            positions += len(a)
    return MaskedGap(positions, float(gap / scale if scale else gap), same / positions if positions else 1.0)


def relative(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The largest difference of any pair, by the largest value of all first ones. What is not finite stays so."""
    gap = scale = torch.zeros(())
    for a, b in pairs:
        gap, scale = torch.maximum(gap, (a - b).abs().max()), torch.maximum(scale, a.abs().max())
    return float(gap / scale if scale else gap)


def label_flips(
    reference: Model, candidate: Model, texts: Sequence[str], pairs: Sequence[tuple[str, str]] = ()
) -> tuple[float | None, float]:
    """The share of texts and pairs whose labels differ (None for a regression), and the largest difference of an output.

    Both classifiers have the same number of outputs.
    """
    with quiet():
        a, b = (
            np.concatenate([model.predict(list(texts), overflow="cut"), model.predict(list(pairs), overflow="cut")])
            for model in (reference, candidate)
        )
    largest = float(np.abs(a - b).max())
    if reference.spec.problem == "regression" or a.shape[1] == 1:
        return None, largest
    if reference.spec.problem == "multi_label_classification":
        return float(((a > 0.5) != (b > 0.5)).any(axis=1).mean()), largest
    return float((a.argmax(axis=1) != b.argmax(axis=1)).mean()), largest


def latency(reference: Encodes, candidate: Encodes, texts: Sequence[str], rounds: int) -> Seconds:
    """How long both take, in turns, so that what else the machine does falls on both. Medians over `rounds`."""
    single = [[text] for text in _some(texts, 8)]
    one = [[_seconds(encoder, text) for encoder in (reference, candidate)] for _ in range(rounds) for text in single]
    every = [[_seconds(encoder, texts) for encoder in (reference, candidate)] for _ in range(rounds)]
    medians = [tuple(median(column) for column in zip(*rows, strict=True)) for rows in (one, every)]
    return Seconds((medians[0][0], medians[0][1]), (medians[1][0], medians[1][1]))


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block, cut texts are not warned of: both models cut them alike, or the comparison says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutWarning)
        yield


def _seconds(encoder: Encodes, texts: Sequence[str]) -> float:
    with quiet():
        start = time.perf_counter()
        encoder.encode(texts)
        return time.perf_counter() - start


def _states(encoder: Encoder, rows: Rows, count: int) -> list[Tensor]:
    encoded = encoder(rows.batch(encoder).to(encoder.embedding.tokens.weight.device), keep=True)
    return [one.float() for one in (*encoded.layers, encoded.hidden)[:count]]


def _masked(
    sequences: Sequence[np.ndarray], mask: int | None, specials: frozenset[int]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The sequences with every fifth token of content masked, and where."""
    rows = [np.flatnonzero(~np.isin(ids, list(specials)))[::5] for ids in sequences]
    changed = [ids.copy() for ids in sequences]
    if mask is not None:
        for ids, where in zip(changed, rows, strict=True):
            ids[where] = mask
    return changed, rows


def _some(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly spread."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]
