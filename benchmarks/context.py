"""Time and peak memory of a forward pass against length: each family at base width, two layers deep.

One sequence of each length, float32, no gradients. A windowed layer should cost as much more as the text is
longer, a full one more than that. The lengths of a family are timed in turn, several rounds, and compared
within a round. Memory comes from a process for each length, since a process only tells the highest it has
ever used; the weights and the imports are taken off.

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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from harness import RESULTS, record

from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.families import bert, deberta_v2, eurobert, longformer, m2bert, modernbert, mosaicbert, mpnet, neobert, nomic
from bothways.layers.monarch import Monarch
from bothways.ragged import Batch

ENOUGH = 20.0  # seconds of passes over one length, after which it is not measured again
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
Figure: TypeAlias = dict[str, Any]  # "seconds", a list, and "mebibytes"
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


def prepared(family: str, length: int, device: str) -> tuple[Encoder, Batch]:
    """An encoder and one sequence for it; what a first call sets up is done."""
    torch.manual_seed(0)
    encoder = Encoder(shortened(BASES[family], length)).eval().to(device)
    batch = Batch.of([np.arange(length) % 1000])
    if family == "longformer":
        batch = batch.with_first_global()
    encoder(Batch.of([np.arange(16)]).to(device))
    return encoder, batch.to(device)


def timed(family: str, lengths: Sequence[int], device: str, rounds: int) -> list[list[float]]:
    """Seconds of a forward pass for each length, a list a round: a slow spell of the machine hits neighbouring lengths alike.

    A length that has taken `ENOUGH` is not measured again: its last time stands in for the rounds that follow.
    """
    pairs = [prepared(family, length, device) for length in lengths]
    found: list[list[float]] = []
    for _ in range(rounds):
        row = []
        for i, (encoder, batch) in enumerate(pairs):
            if sum(before[i] for before in found) > ENOUGH:
                row.append(found[-1][i])
                continue
            begin = time.perf_counter()
            encoder(batch)
            if device != "cpu":
                torch.cuda.synchronize()
            row.append(time.perf_counter() - begin)
        found.append(row)
    return found


def added(family: str, length: int, device: str) -> float:
    """The mebibytes that a pass adds at its highest. For a process of its own, which only tells the highest it has ever used."""
    encoder, batch = prepared(family, length, device)
    before = _highest(device)
    encoder(batch)
    return (_highest(device) - before) / 2**20


def _highest(device: str) -> int:
    """Bytes in use at the highest so far."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def apart(what: str, family: str, lengths: Sequence[int], device: str, rounds: int) -> Any:
    """`timed` or `added` in a process of its own."""
    command = [sys.executable, __file__, "--one", what, "--families", family, "--lengths", *map(str, lengths)]
    command += ["--device", device, "--rounds", str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(family: str, lengths: Sequence[int], device: str, rounds: int) -> dict[str, Figure]:
    """For each length the seconds of every round and the mebibytes."""
    seconds = apart("timed", family, lengths, device, rounds)
    figures: dict[str, Figure] = {}
    for i, length in enumerate(lengths):
        memory = apart("added", family, [length], device, 1)
        figures[str(length)] = {"seconds": [row[i] for row in seconds], "mebibytes": memory}
    return figures


def growth(rows: dict[str, Figure], short: str, long: str) -> float:
    """How many times the time of `short` one of `long` takes: the median over the rounds."""
    return float(np.median(np.array(rows[long]["seconds"]) / np.array(rows[short]["seconds"])))


def ratios(figures: dict[str, dict[str, Figure]], short: str = "4096", long: str = "8192") -> dict[str, dict[str, float]]:
    """How much more twice the length takes, for the families that are linear; none where a length was not measured."""
    return {
        family: {
            "seconds": round(growth(rows, short, long), 2),
            "mebibytes": round(rows[long]["mebibytes"] / rows[short]["mebibytes"], 2),
        }
        for family, rows in figures.items()
        if family in LINEAR and {short, long} <= set(rows)
    }


def exponents(figures: dict[str, dict[str, Figure]], short: str = "4096", long: str = "16384") -> dict[str, float]:
    """x where time grows as length to the x between two lengths: 1 is linear, 2 quadratic; none where one was not measured."""
    times = np.log(int(long) / int(short))
    return {
        family: round(float(np.log(growth(rows, short, long)) / times), 2)
        for family, rows in figures.items()
        if {short, long} <= set(rows)
    }


def plot(figures: dict[str, dict[str, Figure]], path: Path) -> None:
    """Both figures against length, on logarithmic axes."""
    from matplotlib import figure as drawing  # an extra: only where it is asked for

    figure = drawing.Figure(figsize=(9, 3.8), layout="constrained")
    both = figure.subplots(1, 2)
    for axes, (key, title) in zip(both, {"seconds": "seconds", "mebibytes": "peak memory, MiB"}.items(), strict=True):
        for number, (family, rows) in enumerate(figures.items()):
            axes.plot(
                [int(length) for length in rows],
                [float(np.median(row[key])) for row in rows.values()],
                "o-" if number < 10 else "s--",  # matplotlib has ten colours
                markersize=3,
                label=family,
            )
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
    parser.add_argument("--add", action="store_true", help="keep the recorded figures of families that are not measured now")
    parser.add_argument("--plot", action="store_true", help=f"draw {IMAGE.name} into docs/images")
    parser.add_argument("--one", choices=("timed", "added"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(2)
    if options.one:
        with torch.inference_mode():
            first = options.families[0]
            timing = options.one == "timed"
            one = timed(first, options.lengths, options.device, options.rounds) if timing else None
            print(json.dumps(one if timing else added(first, options.lengths[0], options.device)))
        return
    name = "context" if options.device == "cpu" else "context_gpu"
    figures: dict[str, dict[str, Figure]] = json.loads((RESULTS / f"{name}.json").read_text())["figures"] if options.add else {}
    for family in options.families:
        figures[family] = measured(family, options.lengths, options.device, options.rounds)
        for length, one in figures[family].items():
            print(
                f"{family:>26} {int(length):>6,} tokens {np.median(one['seconds']):9.4f} s {one['mebibytes']:9.1f} MiB",
                flush=True,
            )
        figures = {family: figures[family] for family in BASES if family in figures}
        result = {"layers": 2, "rounds": options.rounds, "figures": figures}
        record(name, result | {"ratios_8192_to_4096": ratios(figures), "exponents_4096_to_16384": exponents(figures)})
    for family, ratio in ratios(figures).items():
        print(f"{family}: 8,192 tokens take {ratio['seconds']} times as long as 4,096, and {ratio['mebibytes']} times the memory")
    for family, exponent in exponents(figures).items():
        print(f"{family}: time grows as length to the {exponent} from 4,096 to 16,384 tokens")
    if options.plot:
        plot(figures, IMAGE)
        print(IMAGE)


if __name__ == "__main__":
    main()
