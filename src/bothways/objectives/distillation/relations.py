"""Terms that compare what tokens look at: scores before the softmax, and relations among queries, keys and values.

Queries and keys of a layer are made anew from what entered it, which the encoder keeps; attention itself is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Num
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.layers.attention import Attention, SelfAttention
from bothways.layers.context import Context
from bothways.objectives.distillation.methods import MiniLm, MiniLmV2, TinyBert
from bothways.objectives.distillation.teacher import Reading
from bothways.objectives.distillation.term import Term, matched_layers, weighted
from bothways.ops.attention import Score
from bothways.ops.scores import equal_lengths, scores
from bothways.ragged import Ragged

_Scored = tuple[Tensor, Tensor, Tensor, Score]
_NEVER = torch.finfo(torch.float32).min / 2  # of a pair that is not seen: its probability is 0, and its logarithm a number


class LayerScores(Term):
    """Squared differences of attention scores before the softmax, layer by layer, `attention` (arXiv 1909.10351).

    Raises:
        InputError: layers without attention, or different numbers of heads.
    """

    def __init__(self, method: TinyBert, student: EncoderConfig, teacher: EncoderConfig) -> None:
        super().__init__()
        self.layers = matched_layers(student, teacher, method.layers)
        for i, number in enumerate(self.layers):
            _same_heads(_attention(student, i, "student"), _attention(teacher, number, "teacher"), "tinybert with attention 0")
        self.weights = {"attention": method.attention}

    def counts(self, ragged: Ragged) -> dict[str, int]:
        return {"attention": sum(length**2 for length in ragged.lengths)}

    def forward(self, student: Reading, teacher: Reading) -> dict[str, Num[Tensor, ""]]:
        contexts = [_context(one) for one in (student, teacher)]
        total = student.encoded.hidden.new_zeros((), dtype=torch.float32)
        for i, number in enumerate(self.layers):
            ours, theirs = _scored(student, i, contexts[0]), _scored(teacher, number, contexts[1])
            # partial, not a closure: what is made again for the backward pass must be this layer's
            total = total + _by_group(student.encoded.ragged, ours[0].shape[1], partial(_squared, ours, theirs))
        return {"attention": total}


class LastAttention(Term):
    """KL of the last layer's attention, `attention`, and of the relations between its values, `values` (arXiv 2002.10957).

    Raises:
        InputError: a layer without attention, different numbers of heads, or other pairs that see each other.
    """

    def __init__(self, method: MiniLm, student: EncoderConfig, teacher: EncoderConfig) -> None:
        super().__init__()
        self.layer = _chosen(method.teacher_layer, teacher)
        ours, theirs = _attention(student, student.num_layers - 1, "student"), _attention(teacher, self.layer, "teacher")
        _same_heads(ours, theirs, "minilm_v2")
        if (ours.window, ours.causal) != (theirs.window, theirs.causal):
            raise InputError(
                "minilm compares attention, but the student's layer and the teacher's see other tokens; choose minilm_v2"
            )
        self.weights = weighted(attention=method.attention, values=method.values)

    def counts(self, ragged: Ragged) -> dict[str, int]:
        return dict.fromkeys(self.weights, ragged.tokens)

    def forward(self, student: Reading, teacher: Reading) -> dict[str, Num[Tensor, ""]]:
        ragged, sums = student.encoded.ragged, {}
        last = len(student.encoder.stack) - 1
        ours, theirs = _scored(student, last, _context(student)), _scored(teacher, self.layer, _context(teacher))
        if "attention" in self.weights:
            sums["attention"] = _by_group(ragged, ours[0].shape[1], lambda rows: _apart(_looks(ours, rows), _looks(theirs, rows)))
        if "values" in self.weights:
            sums["values"] = _related(ragged, ours[2], theirs[2])
        return sums


class LastRelations(Term):
    """KL of relations among queries, among keys and among values, cut anew into heads (arXiv 2012.15828).

    Raises:
        InputError: a layer without attention, or features that do not make so many relation heads.
    """

    def __init__(self, method: MiniLmV2, student: EncoderConfig, teacher: EncoderConfig) -> None:
        super().__init__()
        self.heads, self.layer = method.relation_heads, _chosen(method.teacher_layer, teacher)
        self.weights = weighted(queries=method.queries, keys=method.keys, values=method.values)
        for whose, config, number in (("student", student, student.num_layers - 1), ("teacher", teacher, self.layer)):
            heads, kv_heads, size = _attention(config, number, whose).sizes(config.hidden_size)
            for features in (heads * size, kv_heads * size):
                if features % self.heads:
                    raise InputError(
                        f"relation_heads: {self.heads} does not divide {features}, the features of the {whose}'s heads"
                    )

    def counts(self, ragged: Ragged) -> dict[str, int]:
        return dict.fromkeys(self.weights, ragged.tokens)

    def forward(self, student: Reading, teacher: Reading) -> dict[str, Num[Tensor, ""]]:
        ours, theirs = _projections(student, len(student.encoder.stack) - 1, None), _projections(teacher, self.layer, None)
        sides = zip(("queries", "keys", "values"), ours, theirs, strict=True)
        ragged = student.encoded.ragged
        return {name: _related(ragged, self._cut(own), self._cut(other)) for name, own, other in sides if name in self.weights}

    def _cut(self, x: Float[Tensor, "tokens heads size"]) -> Float[Tensor, "tokens relation_heads part"]:
        return x.flatten(1).unflatten(1, (self.heads, -1))


def _chosen(number: int | None, teacher: EncoderConfig) -> int:
    if number is not None and number >= teacher.num_layers:
        raise InputError(f"teacher_layer: {number}, but the teacher's layers are 0 to {teacher.num_layers - 1}")
    return teacher.num_layers - 1 if number is None else number


def _attention(config: EncoderConfig, number: int, whose: str) -> Attention:
    mixer = config.layer(number).mixer
    if not isinstance(mixer, Attention):
        raise InputError(f"the {whose}'s layer {number} has no attention to compare; choose distilbert")
    return mixer


def _same_heads(ours: Attention, theirs: Attention, instead: str) -> None:
    numbers = [(one.heads, one.kv_heads or one.heads) for one in (ours, theirs)]
    if numbers[0] != numbers[1]:
        raise InputError(
            f"the student has {ours.heads} heads, the teacher {theirs.heads}, of which each must meet its like; choose {instead}"
        )


def _context(reading: Reading) -> Context:
    return reading.encoder.context(reading.encoded.ragged)


def _projections(reading: Reading, number: int, context: Context | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a layer, from what entered it."""
    layer = reading.encoder.stack[number]
    mixer = layer.mixer
    assert isinstance(mixer, SelfAttention)
    return mixer.queries_keys_values(layer.entering(reading.encoded.layers[number]), context)


def _scored(reading: Reading, number: int, context: Context) -> _Scored:
    mixer = reading.encoder.stack[number].mixer
    assert isinstance(mixer, SelfAttention)
    return *_projections(reading, number, context), mixer.score(context)


def _by_group(ragged: Ragged, heads: int, compare: Callable[[Tensor], Tensor]) -> Float[Tensor, ""]:
    """The sum of a comparison over all sequences. Its squares are not kept for the backward pass, but made again."""
    parts = [
        checkpoint(compare, rows, use_reentrant=False, preserve_rng_state=False) if torch.is_grad_enabled() else compare(rows)
        for rows in equal_lengths(ragged, heads)
    ]
    return torch.stack(parts).sum() if parts else torch.zeros((), device=ragged.positions.device)


def _squared(ours: _Scored, theirs: _Scored, rows: Tensor) -> Float[Tensor, ""]:
    own, other = (_filled(*scores(q, k, rows, score), 0.0) for q, k, _, score in (ours, theirs))
    return F.mse_loss(own, other, reduction="sum") / own.shape[1]


def _looks(side: _Scored, rows: Tensor) -> Float[Tensor, "count heads length length"]:
    q, k, _, score = side
    return _filled(*scores(q, k, rows, score), _NEVER)


def _filled(made: Tensor, sees: Bool[Tensor, "length length"] | None, value: float) -> Tensor:
    return made if sees is None else made.masked_fill(~sees, value)


def _related(ragged: Ragged, ours: Float[Tensor, "tokens heads a"], theirs: Float[Tensor, "tokens heads b"]) -> Float[Tensor, ""]:
    return _by_group(ragged, ours.shape[1], lambda rows: _apart(_relations(ours, rows), _relations(theirs, rows)))


def _relations(x: Tensor, rows: Tensor) -> Float[Tensor, "count heads length length"]:
    one = x[rows].transpose(1, 2).float()
    return one @ one.transpose(2, 3) / math.sqrt(x.shape[2])


def _apart(student: Tensor, teacher: Tensor) -> Float[Tensor, ""]:
    """KL(teacher ‖ student) of the softmax of logits [count, heads, length, length]: the mean over heads, else summed."""
    log_p, log_q = teacher.log_softmax(dim=3), student.log_softmax(dim=3)
    return (log_p.exp() * (log_p - log_q)).sum() / student.shape[1]
