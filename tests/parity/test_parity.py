"""Our encoders equal the reference implementations: every layer, every head, every gradient (X1, X6).

Every parameter is drawn at random and large. Rows are padded on their side and packed on ours;
some sequences are many times the local window. Differences are relative to the reference's largest
value of the tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from tests import references
from tests.builders import gap, random_ids
from tests.references import CASES, Case
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import bothways
from bothways.families.convert import expand, to_theirs
from bothways.layers.heads import Classifier, pool
from bothways.model.model import Model
from bothways.ragged import Batch

TOLERANCE = 1e-5
LENGTHS = (1, 230, 17, 40, 2)
# where a family's projections are apart: the biases of its keys, and of its queries
KEY_BIASES = {
    "key.bias": "query.bias",
    "key_global.bias": "query_global.bias",
    "k_lin.bias": "q_lin.bias",
    "attn.k.bias": "attn.q.bias",
}


def loaded(case: Case, dtype: torch.dtype, attention: str) -> tuple[Any, Model]:
    """A reference, and our model read from its folder."""
    theirs = references.build(case, attention=attention)
    with TemporaryDirectory() as folder:
        ours = bothways.load(references.save(theirs, Path(folder)), dtype=dtype, strict=True)
    return theirs.to(dtype), ours


def texts(case: Case) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """Token ids, and token types where the family has more than one."""
    generator, types = np.random.default_rng(1), references.REFERENCES[case.family].types
    return random_ids(LENGTHS), [generator.integers(0, types, n) for n in LENGTHS] if types > 1 else None


def batch_of(case: Case) -> Batch:
    """The texts of a case, packed, with their global tokens."""
    sequences, types = texts(case)
    return Batch.of(sequences, types, global_mask=references.global_masks(case, sequences))


def run(model: Model, batch: Batch) -> dict[str, Tensor]:
    """Everything our model computes, under the keys of `references.run`."""
    if isinstance(classifier := dict(model.heads.items()).get("classifier"), Classifier):
        batch = classifier.marked(batch)
    encoded = model.encoder(batch, keep=True)
    out = {f"layer.{i}": hidden for i, hidden in enumerate(encoded.layers)} | {"final": encoded.hidden}
    for name, head in model.heads.items():
        match name:
            case "masked_lm":
                out[name] = model.masked_lm(encoded.hidden)
            case "pooler":
                out[name] = head(pool("cls", encoded.hidden, encoded.ragged))
            case _:
                out[name] = head(encoded.hidden, encoded.ragged)
    return out


def worst(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    assert set(ours) == set(theirs)
    return max(gap(ours[name], theirs[name]) for name in theirs)


@cache
def outputs(case: Case) -> tuple[Model, Batch, dict[str, Tensor]]:
    """Our model, a batch, and what the reference makes of it."""
    theirs, ours = loaded(case, torch.float32, "eager")
    sequences, types = texts(case)
    with torch.no_grad():
        return ours, batch_of(case), references.run(case, theirs, sequences, types)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_layer_and_head_equals_the_reference(case: Case) -> None:
    model, batch, expected = outputs(case)
    with torch.no_grad():
        assert worst(run(model, batch), expected) <= TOLERANCE


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "camembert"])
def test_positions_begin_with_the_text(family: str) -> None:
    """Rows padded on the left give the same: their positions count from the first real token, ours know no padding."""
    case = next(case for case in CASES if (case.family, case.head) == (family, "masked_lm"))
    theirs, ours = loaded(case, torch.float32, "eager")
    sequences, types = texts(case)
    with torch.no_grad():
        expected = references.run(case, theirs, sequences, types, side="left")
        assert worst(run(ours, batch_of(case)), expected) <= TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_gradient_equals_the_reference(case: Case) -> None:
    """Gradients of a random linear functional of all outputs.

    In float64 they are equal. In float32 the reference itself lies up to 6e-5 from that (RoBERTa, where attention is
    sharpest), so there ours may lie twice as far as the reference does, where that is more than the tolerance.
    """
    exact, expected = gradients(case, torch.float64)
    errors = distances(exact, expected)
    assert max(errors.values()) <= TOLERANCE, max(errors, key=errors.__getitem__)
    ours, theirs = gradients(case, torch.float32)
    own = max(distances(theirs, expected).values())
    assert max(distances(ours, expected).values()) <= max(TOLERANCE, 2 * own)


def gradients(case: Case, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Ours and theirs, under the names of the checkpoint; ours has every name of theirs, and nothing else but zeros."""
    theirs, ours = loaded(case, dtype, "sdpa")
    sequences, types = texts(case)
    functional(references.run(case, theirs, sequences, types)).backward()
    # the fused kernel's gradients lie further off in float32; it is measured against theirs where they have it
    with nullcontext() if references.REFERENCES[case.family].sdpa else sdpa_kernel(SDPBackend.MATH):
        functional(run(ours, batch_of(case))).backward()
    prefix = "" if ours.spec.heads.present() <= {"pooler"} else ours.family.prefix
    rules = expand(ours.family.rules(ours.spec, prefix), ours.spec.encoder.num_layers)
    own = {name: torch.zeros_like(tensor) for name, tensor in ours.state_dict().items()}
    own |= {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    found = to_theirs(rules, own, ties=True)
    expected = references.published(case, theirs, {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None})
    assert len(expected) >= 6 * len(ours.encoder.layers)
    unused = references.published(case, theirs, {n: p for n, p in theirs.named_parameters() if p.grad is None})
    assert set(expected) <= set(found)
    assert not any(found[name].any() for name in unused)
    return found, expected


# the names of the biases of keys, of contents or positions, and of the norm of a table of positions
_KEYS_BIAS = re.compile(r"self\.(?:pos_)?key(_proj)?\.bias")
_TABLES_BIAS = re.compile(r"(encoder\.LayerNorm\.)bias$")


def distances(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """How far each gradient is off, relative to the largest value of the expected one.

    A key's bias adds the same to every score of a query, which softmax ignores: without rotary positions
    its gradient is 0 but for rounding, and is measured against that of the query's. Likewise the bias of the norm of
    a table of relative positions, where these give keys alone.
    """
    scales = {name: expected[_query_of(name)] for name in expected}
    return {name: gap(found[name], gradient, scales[name]) for name, gradient in expected.items()}


def _query_of(name: str) -> str:
    """The name of a bias of queries for that of keys; any other as it is."""
    name = _TABLES_BIAS.sub(r"\1weight", _KEYS_BIAS.sub(r"self.query\1.bias", name))
    for key, query in KEY_BIASES.items():
        name = name.replace(key, query)
    return name


def functional(outputs: Mapping[str, Tensor]) -> Tensor:
    """A random linear functional of outputs, the same for equal keys and shapes."""
    generator = torch.Generator().manual_seed(2)
    parts = [(torch.randn(x.shape, generator=generator, dtype=torch.float64) * x).sum() for _, x in sorted(outputs.items())]
    return torch.stack(parts).sum()
