"""Time and peak memory of a forward pass against length: each family at base width, two layers deep.

One sequence of each length, float32, no gradients. A windowed layer should cost as much more as the text is
longer, a full one more than that. Every figure comes from a process of its own, since a process only
tells the highest memory it has ever used; the weights and the imports are taken off.

ModernBERT has three rows: two layers of its pattern (a global and a local one), and two of each kind.

    python benchmarks/context.py [--lengths 128 512 ...] [--families longformer ...] [--device cuda] [--plot]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from harness import record

from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.families import bert, deberta_v2, eurobert, longformer, m2bert, modernbert, mosaicbert, mpnet, neobert, nomic
from bothways.layers.monarch import Monarch
from bothways.ragged import Batch

LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
# Each architecture at base width (RoBERTa, ALBERT, DistilBERT and ELECTRA compute as BERT does, in layers of its kind);
# `shortened` makes its positions long enough.
BASES: dict[str, EncoderConfig] = {
    "bert": bert.bert(),
    "mosaicbert (ALiBi)": mosaicbert.mosaicbert(),
    "mpnet (buckets)": mpnet.mpnet(),
    "deberta-v2": deberta_v2.SIZES["v3-base"],
    "nomic_bert": nomic.SIZES["2048"],
    "eurobert": eurobert.SIZES["210m"],
    "m2_bert": m2bert.m2bert(filler=None),
    "longformer": longformer.longformer(),
    "modernbert": modernbert.modernbert(),
    "modernbert, local layers": modernbert.modernbert(pattern=(False,)),
    "modernbert, global layers": modernbert.modernbert(pattern=(True,)),
    "neobert": neobert.neobert(),
}
# those whose layers are all windowed: twice the length, twice the cost
LINEAR = ("longformer", "modernbert, local layers")
IMAGE = Path(__file__).parent.parent / "docs" / "images" / "context.png"


def shortened(config: EncoderConfig, longest: int) -> EncoderConfig:
    """Two layers and a small vocabulary, which a forward pass of the encoder does not go through."""
    longest = max(config.max_length, longest)
    # a long convolution is made for one length
    layers = tuple(
        replace(layer, mixer=replace(mixer, length=longest)) if isinstance(mixer, Monarch) else layer
        for layer, mixer in ((layer, layer.mixer) for layer in config.layers)
    )
    return replace(config, layers=layers, num_layers=2, max_length=longest, vocab_size=1000)


def measured(family: str, length: int, device: str, rounds: int) -> dict[str, float]:
    """Median seconds of a forward pass, and the mebibytes it adds at its highest. For a process of its own."""
    torch.manual_seed(0)
    encoder = Encoder(shortened(BASES[family], length)).eval().to(device)
    batch = Batch.of([np.arange(length) % 1000])
    if family == "longformer":
        batch = batch.with_first_global()
    with torch.inference_mode():
        encoder(Batch.of([np.arange(16)]).to(device))  # what a first call sets up is not the pass's
        batch, before = batch.to(device), _highest(device)
        seconds = []
        for _ in range(rounds):
            begin = time.perf_counter()
            encoder(batch)
            if device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
    return {"seconds": float(np.median(seconds)), "mebibytes": (_highest(device) - before) / 2**20}


def _highest(device: str) -> int:
    """Bytes in use at the highest so far."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def apart(family: str, length: int, device: str, rounds: int) -> dict[str, float]:
    """`measured` in a process of its own."""
    command = [sys.executable, __file__, "--one", family, "--lengths", str(length), "--device", device, "--rounds", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def ratios(
    figures: dict[str, dict[str, dict[str, float]]], short: str = "4096", long: str = "8192"
) -> dict[str, dict[str, float]]:
    """How much more twice the length takes, for the families that are linear; none where a length was not measured."""
    return {
        family: {key: round(rows[long][key] / rows[short][key], 2) for key in ("seconds", "mebibytes")}
        for family, rows in figures.items()
        if family in LINEAR and {short, long} <= set(rows)
    }


def plot(figures: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Both figures against length, on logarithmic axes."""
    from matplotlib.figure import Figure  # an extra: only where it is asked for

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    both = figure.subplots(1, 2)
    for axes, (key, title) in zip(both, {"seconds": "seconds", "mebibytes": "peak memory, MiB"}.items(), strict=True):
        for family, rows in figures.items():
            axes.plot([int(length) for length in rows], [row[key] for row in rows.values()], "o-", markersize=3, label=family)
        axes.set(xscale="log", yscale="log", xlabel="tokens", title=title)
        ticks = sorted({int(length) for rows in figures.values() for length in rows})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=45)
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.grid(alpha=0.3)
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize="small")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--families", nargs="+", choices=BASES, default=list(BASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", action="store_true", help=f"draw {IMAGE.name} into docs/images")
    parser.add_argument("--one", choices=BASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(2)
    if arguments.one:
        print(json.dumps(measured(arguments.one, arguments.lengths[0], arguments.device, arguments.rounds)))
        return
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for family in arguments.families:
        for length in arguments.lengths:
            one = apart(family, length, arguments.device, arguments.rounds)
            figures.setdefault(family, {})[str(length)] = one
            print(f"{family:>26} {length:>6,} tokens {one['seconds']:9.4f} s {one['mebibytes']:9.1f} MiB", flush=True)
    for family, ratio in ratios(figures).items():
        print(f"{family}: 8,192 tokens take {ratio['seconds']} times as long as 4,096, and {ratio['mebibytes']} times the memory")
    result = {"layers": 2, "rounds": arguments.rounds, "figures": figures, "ratios_8192_to_4096": ratios(figures)}
    print(record("context" if arguments.device == "cpu" else "context_gpu", result))
    if arguments.plot:
        plot(figures, IMAGE)
        print(IMAGE)


if __name__ == "__main__":
    main()
