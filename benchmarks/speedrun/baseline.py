"""The speedrun's baselines: a network of `transformers` and its Trainer with run_mlm's recipe.

AdamW, linear decay without warm-up, 15 % masked anew each time, the network's own dropout, eight sequences of 128 a step,
which is its default. Nothing but the network (BERT's, or ModernBERT's: `--model_type` of run_mlm), the learning rate and the
number of steps is chosen. Needs `pip install accelerate`. Started again, it goes on from its last checkpoint.

    python benchmarks/speedrun/baseline.py CORPUS.jsonl.gz --work build/speedrun --lr 3e-4 [--network modernbert] [--steps 20000]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from task import LAYERS, LENGTH, VOCABULARY, WIDTH, Task, prepare
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

BATCH, NETWORKS = 8, ("bert", "modernbert")


class Rows(torch.utils.data.Dataset):
    """Full sequences, with their special tokens, as run_mlm's `group_texts` leaves them."""

    def __init__(self, task: Task) -> None:
        self.data, self.numbers = task.data, np.flatnonzero(task.data.lengths == LENGTH)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"input_ids": self.data[int(self.numbers[number])].sequences[0].tolist()}


def network(name: str, task: Task) -> PreTrainedModel:
    """Newly drawn; the shapes are those of `entries.py`."""
    shape = {
        "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
        "max_position_embeddings": LENGTH, "pad_token_id": task.tokenizer.pad_id,
    }  # fmt: skip
    if name == "bert":
        return BertForMaskedLM(BertConfig(**shape, intermediate_size=4 * WIDTH))
    special = {f"{one}_token_id": None for one in ("bos", "eos", "cls", "sep")}
    return ModernBertForMaskedLM(ModernBertConfig(**shape, intermediate_size=3 * WIDTH, **special))


def held_out(model: PreTrainedModel, task: Task) -> float:
    """The figure."""
    model.eval()
    total, count = 0.0, int(task.places.sum())
    with torch.no_grad():
        for begin in range(0, len(task.ids), 64):
            part = slice(begin, begin + 64)
            logits = model(input_ids=torch.from_numpy(task.masked[part]).long()).logits
            places = torch.from_numpy(task.places[part])
            labels = torch.from_numpy(task.ids[part]).long()
            total += float(torch.nn.functional.cross_entropy(logits[places], labels[places], reduction="sum"))
    model.train()
    return total / count


class Curve(TrainerCallback):
    """Writes the figure every `every` steps, and ends the run where it is `until` nats or less."""

    def __init__(self, task: Task, path: Path, every: int, until: float) -> None:
        self.task, self.path, self.every, self.until = task, path, every, until

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            line = {"step": state.global_step, "tokens": state.global_step * BATCH * LENGTH, "loss": held_out(model, self.task)}
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)
            control.should_training_stop |= line["loss"] <= self.until


def trainer(
    name: str, task: Task, folder: Path, tokenizer: Path, lr: float, steps: int, callbacks: list[TrainerCallback]
) -> Trainer:
    """All of the baseline."""
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=BATCH, learning_rate=lr, max_steps=steps,
        save_steps=1000, save_total_limit=2, logging_steps=50, report_to=[], use_cpu=True, seed=0, dataloader_num_workers=0,
        disable_tqdm=True,
    )  # fmt: skip
    loaded = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    torch.manual_seed(0)
    collate = DataCollatorForLanguageModeling(loaded, mlm_probability=0.15)
    return Trainer(network(name, task), arguments, collate, Rows(task), processing_class=loaded, callbacks=callbacks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--network", choices=NETWORKS, default="bert")
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--every", type=int, default=1000)
    parser.add_argument("--until", type=float, default=0.0, help="nats at which it may end")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = prepare(options.corpus, options.work)
    folder = options.work / f"baseline-{options.network}-lr{options.lr:g}-steps{options.steps}"
    folder.mkdir(parents=True, exist_ok=True)
    callbacks = [Curve(task, folder / "curve.jsonl", options.every, options.until)]
    trained = trainer(options.network, task, folder, options.work / "tokenizer", options.lr, options.steps, callbacks)
    print(f"unigram {task.unigram:.3f} nats; {len(Rows(task)):,} sequences", flush=True)
    trained.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    trained.save_model(str(folder / "model"))
    print(folder, held_out(trained.model, task))


if __name__ == "__main__":
    main()
