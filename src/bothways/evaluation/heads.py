"""What stands on two encoders, head by head: outputs on the same token ids."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from bothways.encoder.enhanced_mask_decoder import EnhancedMaskDecoder
from bothways.evaluation.comparison import Rows, relative
from bothways.layers.heads import Classifier, TransformLayer
from bothways.layers.replaced_token import ReplacedToken
from bothways.model.batching import CPU_TOKENS, by_budget
from bothways.model.model import Model
from bothways.ops.segment import segment_first
from bothways.ragged import Batch


@torch.inference_mode()
def head_gap(reference: Model, candidate: Model, name: str, rows: Rows) -> float | None:
    """The largest difference of a head's outputs, by the reference's largest one; None: they have other shapes.

    `masked_lm` is not among these heads: it reads masked tokens.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    for chosen in by_budget([len(ids) for ids in rows.ids], CPU_TOKENS):
        part = rows.take(chosen)
        if not sum(map(len, part.ids)):
            continue
        a, b = (_outputs(model, name, part.batch(model.encoder)).float().cpu() for model in (reference, candidate))
        if a.shape != b.shape:
            return None
        pairs.append((a, b))
    return relative(pairs)


def class_names(model: Model) -> str:
    """A folder that names no classes has those that `transformers` makes up."""
    head = model.spec.heads.classifier
    count = head.labels if head else 0
    return ", ".join(model.spec.labels or [f"LABEL_{number}" for number in range(count)])


def problem(model: Model) -> str:
    """The kind of a classifier; several outputs of which nothing is said are classes that share probability."""
    head = model.spec.heads.classifier
    return model.spec.problem or ("single_label_classification" if head and head.labels > 1 else "not stated")


def _outputs(model: Model, name: str, batch: Batch) -> Tensor:
    head = model.heads[name]
    if isinstance(head, Classifier):
        batch = head.marked(batch)
    encoded = model.encoder(batch.to(model.device), keep=isinstance(head, EnhancedMaskDecoder))
    if isinstance(head, EnhancedMaskDecoder):
        return head(model.encoder, encoded)
    if isinstance(head, TransformLayer):
        return head(segment_first(encoded.hidden, encoded.ragged))
    return cast("Classifier | ReplacedToken", head)(encoded.hidden, encoded.ragged)
