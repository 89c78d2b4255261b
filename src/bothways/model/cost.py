"""What a model weighs and what a token costs, by part."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from bothways.encoder.enhanced_mask_decoder import EnhancedMaskDecoder
from bothways.layers.heads import Classifier, MaskedLm, TransformLayer
from bothways.layers.replaced_token import ReplacedToken
from bothways.model.batching import CPU_TOKENS
from bothways.model.model import Model
from bothways.ragged import Ragged


def parameters_by_part(model: Model) -> dict[str, int]:
    """How many parameters each part holds; what is shared between depths counts once, parts without any are left out.

    The parts: `embedding`, `attention` (or the mixer in its place; with a table of relative positions), `mlp`,
    `convolution`, `norms` (those of the layers and the last), and each head.
    """
    encoder = model.encoder
    counts = {
        "embedding": _count(encoder.embedding),
        "attention": sum(_count(layer.mixer) for layer in encoder.layers) + _count(encoder.relative),  # type: ignore[arg-type]
        "mlp": sum(_count(layer.mlp) for layer in encoder.layers),  # type: ignore[arg-type]
        "convolution": _count(encoder.convolution),
    }
    counts["norms"] = _count(encoder) - sum(counts.values())
    counts |= {f"head {name}": _count(head) for name, head in model.heads.items()}
    return {name: count for name, count in counts.items() if count}


def flops_per_token(model: Model, lengths: Sequence[int]) -> dict[int, dict[str, float]]:
    """Matrix-multiply FLOPs a token in texts of each length, by part of the encoder."""
    return {
        length: {name: flops / length for name, flops in model.encoder.flops_by_part(Ragged.of([length])).items()}
        for length in lengths
    }


def head_flops(model: Model, length: int) -> dict[str, tuple[float, str]]:
    """Matrix-multiply FLOPs of each head, and for what: a text, a token, or a predicted token.

    A mask decoder attends once more: a token of it costs what it does in a text of `length`.
    """
    return {name: _head_flops(model, head, Ragged.of([length])) for name, head in model.heads.items()}


def _head_flops(model: Model, head: nn.Module, ragged: Ragged) -> tuple[float, str]:
    match head:
        case MaskedLm():
            return head.flops(1, model.encoder.embedding.tokens.weight), "a predicted token"
        case Classifier():
            return head.flops(Ragged.of([1])), "a token" if head.config.pooling == "late" else "a text"
        case ReplacedToken():
            return head.transform.flops(1) + 2.0 * head.out.weight.numel(), "a token"
        case EnhancedMaskDecoder():
            return head.flops(model.encoder, ragged) / ragged.tokens, f"a token in texts of {ragged.tokens:,}"
        case TransformLayer():
            return head.flops(1), "a text"
        case _:
            raise NotImplementedError(type(head).__name__)


def forward_bytes(model: Model, tokens: int = CPU_TOKENS, element: int = 4) -> int:
    """An estimate of the memory that a forward pass of `tokens` tokens takes beside the weights.

    Three times the stream, and twice the widest thing that a layer makes of it; `element` is the bytes of a number.
    Within 30 % of what is measured (tests/model/test_cost.py). Fused kernels keep no scores, so none are counted.
    """
    widest = max(one.out_features for one in model.encoder.layers.modules() if isinstance(one, nn.Linear))
    return tokens * element * (2 * widest + 3 * model.spec.encoder.hidden_size)


def _count(module: nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())
