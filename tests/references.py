"""Their side of the tests: tiny random models of `transformers` (NeoBERT's restated), and a run of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tests.builders import HEADS, INNER, LAYERS, LONGEST, SIZE, VOCAB, WINDOW, randomise
from tests.neobert_reference import NeoBert, NeoBertClassifier, NeoBertMaskedLm
from torch import Tensor, nn

LABELS = 3
_NEOBERT = {"bare": NeoBert, "masked_lm": NeoBertMaskedLm, "classifier": NeoBertClassifier}
_SHAPE = {"vocab_size": VOCAB, "hidden_size": SIZE, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
_SIZES: dict[str, dict[str, Any]] = {
    "bert": {"intermediate_size": INNER, "max_position_embeddings": LONGEST},
    "roberta": {"intermediate_size": INNER, "max_position_embeddings": LONGEST + 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    "modernbert": {
        "intermediate_size": INNER,
        "max_position_embeddings": LONGEST,
        "local_attention": 2 * WINDOW,
        # the defaults lie outside this vocabulary
        **{f"{name}_token_id": i for i, name in enumerate(("pad", "bos", "eos", "cls", "sep"))},
    },
    "neobert": {"intermediate_size": 30, "max_length": LONGEST, "norm_eps": 1e-6, "model_type": "neobert", "num_labels": LABELS},
}
_SIZES["xlm-roberta"] = _SIZES["roberta"]
# where the first vectors and the layers are, below the body
_PARTS = {
    "bert": ("embeddings", "encoder.layer"),
    "roberta": ("embeddings", "encoder.layer"),
    "xlm-roberta": ("embeddings", "encoder.layer"),
    "modernbert": ("embeddings", "layers"),
    "neobert": ("encoder", "transformer_encoder"),
}


@dataclass(frozen=True, eq=False)
class Case:
    """A published architecture: family, head (bare, masked_lm, classifier, pretraining) and config changes."""

    family: str
    head: str
    changes: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        return "-".join(part for part in (self.family, self.head, self.note) if part)

    @property
    def pad_id(self) -> int:
        return 1 if "roberta" in self.family else 0


_BIASES = {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True, "decoder_bias": False}
_LAYER_TYPES = [("sliding_attention", "full_attention")[kind] for kind in (0, 1, 1, 0, 0)]
_THETAS = {"full_attention": 3e3, "sliding_attention": 50.0}
_ROPE = {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in _THETAS.items()}
CASES = (
    *(Case("bert", head) for head in ("bare", "masked_lm", "pretraining", "classifier")),
    Case("bert", "masked_lm", {"hidden_act": "gelu_new"}, "tanh-gelu"),
    Case("bert", "masked_lm", {"hidden_act": "relu"}, "relu"),
    *(Case(family, head) for family in ("roberta", "xlm-roberta") for head in ("bare", "masked_lm", "classifier")),
    *(Case("modernbert", head) for head in ("bare", "masked_lm", "classifier")),
    Case("modernbert", "classifier", {"classifier_pooling": "mean", **_BIASES}, "mean-biases"),
    Case("modernbert", "masked_lm", _BIASES, "biases"),
    Case("modernbert", "masked_lm", {"layer_types": _LAYER_TYPES, "rope_parameters": _ROPE}, "types-thetas"),
    *(Case("neobert", head) for head in ("bare", "masked_lm", "classifier")),
)


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
    settings = {**_SHAPE, **_SIZES[case.family], **case.changes}
    if case.family == "neobert":
        model: nn.Module = _NEOBERT[case.head](settings)
    else:
        import transformers

        config = transformers.AutoConfig.for_model(case.family, **settings, num_labels=LABELS)
        model = architecture(case).from_config(config, attn_implementation=attention)
    return randomise(model, seed).eval()


def reload(case: Case, folder: Path) -> nn.Module:
    """The reference read from a folder; every weight must be there, and no other."""
    if case.family == "neobert":
        settings = json.loads((folder / "config.json").read_text())
        model: nn.Module = _NEOBERT[case.head]({"num_labels": LABELS, **settings})
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
    longest = max(len(ids) for ids in sequences)
    mask = torch.tensor([[i < len(ids) for i in range(longest)] for ids in sequences])
    given = {"input_ids": _padded(sequences, longest, case.pad_id), "attention_mask": mask.long()}
    if types is not None:
        given["token_type_ids"] = _padded(types, longest, 0)
    out: dict[str, Tensor] = {}
    body = model.base_model
    embedding, layers = (body.get_submodule(name) for name in _PARTS[case.family])

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: object, output: Any) -> None:
            out[name] = (output if isinstance(output, Tensor) else output[0])[mask]

        return hook

    def keep_body(module: nn.Module, args: object, output: Any) -> None:
        out["final"] = output.last_hidden_state[mask]
        if case.head == "bare" and getattr(output, "pooler_output", None) is not None:
            out["pooler"] = output.pooler_output

    hooks = [part.register_forward_hook(keep(f"layer.{i}")) for i, part in enumerate((embedding, *layers))]
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
