"""What each optimizer and each way of computing costs a training step, in turns with the plain one: AdamW in fp32.

The network and the tokens are those of step_profile.py.

    python benchmarks/step_options.py [--family modernbert] [--tokens 4096] [--rounds 7]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from harness import interleaved, ratio, record
from step_profile import build

PLAIN = "adamw"
OPTIONS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "stable_adamw": {"optimizer": "stable_adamw"},
    "lamb": {"optimizer": "lamb"},
    "bert_adam": {"optimizer": "bert_adam"},
    "muon": {"optimizer": "muon"},
    "adamw, recompute": {"recompute": True},
    "adamw, bf16": {"precision": "bf16_emulated"},
    "adamw, compile": {"compile": True},
}


def contender(family: str, tokens: int, options: dict[str, Any]) -> Callable[[], object]:
    updates, stream = build(family, tokens=tokens, **{"optimizer": PLAIN, "precision": "fp32"} | options)
    return lambda: updates([next(stream)], 0, 1e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=["bert", "modernbert"], default="modernbert")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=list(OPTIONS), action="append", help="beside the plain step; all unless given")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    names = [PLAIN, *arguments.only] if arguments.only else list(OPTIONS)
    contenders = {name: contender(arguments.family, arguments.tokens, OPTIONS[name]) for name in names}
    timings = interleaved(contenders, arguments.rounds)
    result = {
        "family": arguments.family,
        "tokens_a_step": arguments.tokens,
        "bf16_instructions": {name: bool(value) for name, value in torch.cpu.get_capabilities().items() if "bf16" in name},
        "best_milliseconds": {name: round(1000 * min(timing.seconds), 1) for name, timing in timings.items()},
        "times_the_plain_step": {name: round(ratio(timing, timings[PLAIN]), 3) for name, timing in timings.items()},
    }
    for key, value in result.items():
        print(f"{key}: {value}")
    print(record("step_options_some" if arguments.only else "step_options", result))


if __name__ == "__main__":
    main()
