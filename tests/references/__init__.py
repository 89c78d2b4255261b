"""Their side of the tests: tiny random models of `transformers` (some restated here), and a run of one. A file a family."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from tests.builders import randomise
from tests.references import (
    albert,
    bert,
    deberta,
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
from tests.references.reference import LABELS, Case, Reference
from torch import Tensor, nn

_FILES = (
    bert,
    roberta,
    albert,
    distilbert,
    electra,
    longformer,
    deberta,
    modernbert,
    neobert,
    mpnet,
    ernie_gram,
    mosaicbert,
    nomic,
    m2bert,
    eurobert,
    llama,
)
REFERENCES: dict[str, Reference] = {name: one for file in _FILES for name, one in file.REFERENCES.items()}
CASES: tuple[Case, ...] = tuple(case for file in _FILES for case in file.CASES)


def architecture(case: Case) -> Any:
    """The `transformers` class of a case."""
    import transformers  # slow to import: only where a reference is built

    return {
        "bare": transformers.AutoModel,
        "masked_lm": transformers.AutoModelForMaskedLM,
        "causal_lm": transformers.AutoModelForCausalLM,
        "classifier": transformers.AutoModelForSequenceClassification,
        "pretraining": transformers.AutoModelForPreTraining,
        "replaced_token": transformers.AutoModelForPreTraining,
    }[case.head]


def build(case: Case, seed: int = 0, attention: str = "eager") -> nn.Module:
    """The reference of a case with random weights, in evaluation mode; `attention` is theirs, eager or sdpa."""
    reference = REFERENCES[case.family]
    settings = {**reference.settings, **case.changes}
    if reference.classes:
        model: nn.Module = reference.classes[case.head](settings)
    else:
        import transformers

        config = transformers.AutoConfig.for_model(case.family, **settings, num_labels=LABELS)
        model = architecture(case).from_config(config, attn_implementation=attention if reference.sdpa else "eager")
    return randomise(model, seed).eval()


def reload(case: Case, folder: Path) -> nn.Module:
    """The reference read from a folder; every weight must be there, and no other."""
    if classes := REFERENCES[case.family].classes:
        settings = json.loads((folder / "config.json").read_text())
        model: nn.Module = classes[case.head]({"num_labels": LABELS, **settings})
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
    model, report = architecture(case).from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    assert not any(report.values()), report
    return model.eval()


def save(model: Any, folder: Path) -> Path:
    """A folder as they write it."""
    model.save_pretrained(folder)
    return folder


def published(case: Case, model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a reference's parameters under the names, and in the pieces, of its checkpoints."""
    if REFERENCES[case.family].classes:
        return tensors
    from transformers.core_model_loading import revert_weight_conversion

    return revert_weight_conversion(model, tensors)


def global_masks(case: Case, sequences: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """Which tokens a case makes global: drawn at random, in every second sequence."""
    if not case.global_tokens:
        return None
    generator = np.random.default_rng(7)
    return [(generator.random(len(ids)) < 0.15) & (i % 2 == 1) for i, ids in enumerate(sequences)]


def run(
    case: Case,
    model: Any,
    sequences: Sequence[np.ndarray],
    types: Sequence[np.ndarray] | None,
    side: Literal["right", "left"] = "right",
) -> dict[str, Tensor]:
    """Everything a reference computes for padded rows, at the real tokens only, packed.

    The keys: `layer.0` (the embedding) to `layer.n` in the order they are called, `final`, and a head's name.
    """
    reference = REFERENCES[case.family]
    longest = reference.rows or max(len(ids) for ids in sequences)
    mask = _padded([np.ones(len(ids)) for ids in sequences], longest, 0, side).bool()
    pad_id = case.changes.get("pad_token_id", reference.pad_id)
    given = {"input_ids": _padded(sequences, longest, pad_id, side), "attention_mask": mask.long()}
    if types is not None:
        given["token_type_ids"] = _padded(types, longest, 0, side)
    if (masks := global_masks(case, sequences)) is not None:
        given["global_attention_mask"] = _padded(masks, longest, 0, side)
    out: dict[str, Tensor] = {}
    body = model.base_model

    # a shared layer is called more than once; inside, Longformer's rows are longer: padded to a multiple of its window
    def keep(module: nn.Module, args: object, output: Any) -> None:
        number = sum(name.startswith("layer.") for name in out)
        out[f"layer.{number}"] = (output if isinstance(output, Tensor) else output[0])[:, :longest][mask]

    def keep_body(module: nn.Module, args: object, output: Any) -> None:
        out["final"] = output.last_hidden_state[mask]
        if case.head == "bare" and getattr(output, "pooler_output", None) is not None:
            out["pooler"] = output.pooler_output

    parts = [_embedding(body, reference), *_layers(body, reference)]
    for number, name in reference.after.items():
        parts[number] = operator.attrgetter(name)(body) or parts[number]
    hooks = [part.register_forward_hook(keep) for part in parts]
    hooks.append(body.register_forward_hook(keep_body))
    with reference.within():
        result = model(**given)
    for hook in hooks:
        hook.remove()
    match case.head:
        case "masked_lm" | "causal_lm":
            out["masked_lm"] = result.logits[mask]
        case "classifier":
            out["classifier"] = result.logits
            if getattr(result, "pooler_output", None) is not None:  # beside the classifier, not below it
                out["pooler"] = result.pooler_output
        case "pretraining":
            out["masked_lm"] = result.prediction_logits[mask]
            names = (("next_sentence", "seq_relationship_logits"), ("sentence_order", "sop_logits"))
            out |= {ours: result[theirs] for ours, theirs in names if theirs in result}
        case "replaced_token":
            out["replaced_token"] = result.logits[mask]
    return out


def _embedding(body: Any, reference: Reference) -> nn.Module:
    return body.get_submodule(next(path for path in reference.embedding.split("|") if hasattr(body, path.partition(".")[0])))


def _layers(body: Any, reference: Reference) -> list[nn.Module]:
    outer, nested, inner = reference.layers.partition(".*.")
    parts = list(body.get_submodule(outer))
    return [layer for part in parts for layer in part.get_submodule(inner)] if nested else parts


def _padded(rows: Sequence[np.ndarray], longest: int, pad: int, side: str) -> Tensor:
    around = [(longest - len(row), 0) if side == "left" else (0, longest - len(row)) for row in rows]
    padded = [np.pad(row, width, constant_values=pad) for row, width in zip(rows, around, strict=True)]
    return torch.from_numpy(np.stack(padded).astype(np.int64))
