"""How many graphs torch's compiler makes of layers, and how far their numbers are from those without it, as JSON.

Started by `test_compiling.py`. With "inductor", torch's own compiler does it all.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import torch
from tests.builders import CONFIGS, gap, random_batch, randomise
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from bothways.encoder.encoder import Encoder
from bothways.ops.attention import REFERENCE, VARLEN, Backend
from bothways.ragged import Batch, Capacity
from bothways.training import compiling

CPU = torch.device("cpu")
ROOM = Capacity(tokens=40, slots=7, longest=17)
LENGTHS = [[17, 9, 7], [12, 12, 5, 2], [16, 3, 1, 1]]
BATCHES = [random_batch(lengths, seed=n).to_capacity(ROOM) for n, lengths in enumerate(LENGTHS)]
# ModernBERT's first layer has no norm of its own, the others are local or global
REFERENCES = ("bert", "modernbert", "albert")
USUAL = ("modernbert", "longformer", "m2_bert", "deberta")


def encoder(name: str, backend: Backend | None, layers: int) -> Encoder:
    """Without dropout, whose draws differ."""
    made = Encoder(replace(CONFIGS[name], num_layers=layers))
    randomise(made)
    made.backend = backend
    return made.eval()


def learned(module: Encoder, batch: Batch) -> tuple[Tensor, Tensor]:
    """Hidden states, and all gradients of a number made of them."""
    module.zero_grad()
    hidden = module(batch).hidden[: batch.tokens]
    (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
    return hidden.detach(), torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def count(name: str, backend: Backend | None, layers: int, compiler: str) -> dict[str, Any]:
    """Graphs after each of the batches, and after one of another shape; the gaps of hidden states and gradients."""
    torch._dynamo.reset()
    compiling.BACKEND = counter = CompileCounterWithBackend(compiler)
    compiled, plain = encoder(name, backend, layers), encoder(name, backend, layers)
    compiling.compile_layers(compiled, True, CPU)
    before = counter.frame_count  # of what was compiled to see whether it can be
    graphs, gaps = [], []
    for batch in BATCHES:
        marked = replace(batch, global_mask=batch.ids % 7 == 1) if name == "longformer" else batch
        gaps += [gap(one, other) for one, other in zip(learned(compiled, marked), learned(plain, marked), strict=True)]
        graphs.append(counter.frame_count - before)
    learned(compiled, random_batch([17, 9]))
    return {"graphs": [*graphs, counter.frame_count - before], "gaps": gaps}


def traced() -> dict[str, Any]:
    """What of CUDA's attention stands in the graphs of layers; it is not carried out."""
    torch._dynamo.reset()
    seen: list[torch.fx.GraphModule] = []

    def capture(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        seen.append(graph)
        return lambda *given: (torch.zeros(ROOM.tokens, 24),)

    module = encoder("neobert", replace(VARLEN, can=lambda q, queries, keys, score: True), layers=3)
    for layer in module.layers:
        layer.compile(dynamic=False, backend=capture)
    with torch.no_grad():
        for batch in BATCHES:
            module(batch)
    calls = [node for graph in seen for node in graph.graph.nodes if "_varlen_attn" in str(node.target)]
    longest = [one for one in calls[0].args if isinstance(one, int) and not isinstance(one, bool)] if calls else []
    return {"graphs": len(seen), "calls": len(calls), "longest": longest}


def main() -> None:
    if sys.argv[1:] == ["inductor"]:
        pairs = {"usual": None, "reference": REFERENCE}
        found: dict[str, Any] = {key: {"modernbert": count("modernbert", one, 3, "inductor")} for key, one in pairs.items()}
    else:
        found = {
            "reference": {name: count(name, REFERENCE, 4, "aot_eager") for name in REFERENCES},
            "usual": {name: count(name, None, 2, "aot_eager") for name in USUAL},
            "varlen": traced(),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
