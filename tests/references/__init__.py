"""Their side of the tests: tiny random models of `transformers` (some restated here), and a run of one. A file a family."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tests.builders import randomise
from tests.references import bert, deberta, modernbert, neobert, roberta
from tests.references.reference import LABELS, Case, Reference
from torch import Tensor, nn

_FILES = (bert, roberta, modernbert, neobert, deberta)
REFERENCES: dict[str, Reference] = {name: one for file in _FILES for name, one in file.REFERENCES.items()}
CASES: tuple[Case, ...] = tuple(case for file in _FILES for case in file.CASES)


def architecture(case: Case) -> Any:
    """The `transformers` class of a case."""
    import transformers  # slow to import: only where a reference is built

    return {
        "bare": transformers.AutoModel,
        "masked_lm": transformers.AutoModelForMaskedLM,
        "classifier": transformers.AutoModelForSequenceClassification,
        "pretraining": transformers.AutoModelForPreTraining,
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


def run(case: Case, model: Any, sequences: Sequence[np.ndarray], types: Sequence[np.ndarray] | None) -> dict[str, Tensor]:
    """Everything a reference computes for right-padded rows, at the real tokens only, packed.

    The keys: `layer.0` (the embedding) to `layer.n`, `final`, and a head's name.
    """
    reference = REFERENCES[case.family]
    longest = max(len(ids) for ids in sequences)
    mask = torch.tensor([[i < len(ids) for i in range(longest)] for ids in sequences])
    given = {"input_ids": _padded(sequences, longest, reference.pad_id), "attention_mask": mask.long()}
    if types is not None:
        given["token_type_ids"] = _padded(types, longest, 0)
    out: dict[str, Tensor] = {}
    body = model.base_model
    embedding, layers = body.get_submodule(reference.embedding), body.get_submodule(reference.layers)

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: object, output: Any) -> None:
            out[name] = (output if isinstance(output, Tensor) else output[0])[mask]

        return hook

    def keep_body(module: nn.Module, args: object, output: Any) -> None:
        out["final"] = output.last_hidden_state[mask]
        if case.head == "bare" and getattr(output, "pooler_output", None) is not None:
            out["pooler"] = output.pooler_output

    parts = [embedding, *layers]
    for number, name in reference.after.items():
        parts[number] = operator.attrgetter(name)(body) or parts[number]
    hooks = [part.register_forward_hook(keep(f"layer.{i}")) for i, part in enumerate(parts)]
    hooks.append(body.register_forward_hook(keep_body))
    result = model(**given)
    for hook in hooks:
        hook.remove()
    match case.head:
        case "masked_lm":
            out["masked_lm"] = result.logits[mask]
        case "classifier":
            out["classifier"] = result.logits
        case "pretraining":
            out["masked_lm"], out["next_sentence"] = result.prediction_logits[mask], result.seq_relationship_logits
    return out


def _padded(rows: Sequence[np.ndarray], longest: int, pad: int) -> Tensor:
    padded = [np.pad(row, (0, longest - len(row)), constant_values=pad) for row in rows]
    return torch.from_numpy(np.stack(padded).astype(np.int64))
