"""A masked-language-model training step beside transformers' run_mlm, on the same BERT, text and tokenizer.

6 layers of 256 (4 heads, 1,024), vocabulary 30k, 15 % masked, AdamW, dropout 0.1, at most 128 tokens,
paragraphs of English novels. transformers' two data paths are those of its run_mlm example: a line a row,
padded to the longest of the batch, and `group_texts`, which joins lines into full rows of 128. Each
contender runs in a process of its own, so that its peak memory is its own; rounds interleave in time by
turns over a pipe. What is counted is real tokens, not padding.

    python benchmarks/masked_lm_step.py CORPUS.jsonl[.gz] [--rounds 5] [--steps 6]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import in_turn, rates, record, times_faster

LENGTH, VOCABULARY, ROWS = 128, 30_000, 32
ARCHITECTURE = "BERT 6x256, 4 heads, 1,024, vocabulary 30k, length 128, 15 % masked"


def texts(corpus: Path, count: int) -> list[str]:
    """Paragraphs of the corpus, in order."""
    from itertools import islice

    from bothways.data.source import open_source, read_documents

    documents = read_documents(open_source(corpus, split="line"))
    return [document.text for document in islice(documents, count)]


def ours(corpus: Path, folder: Path) -> Callable[[], int]:
    """One optimizer step of our loop's parts; returns the tokens of the step."""
    from bothways.training.optimizer import AdamW, build, default_groups, parameter_table
    from bothways.training.step import step

    objective, loader = our_parts(corpus, folder)
    objective.train()
    stream = loader.open()
    settings = AdamW(lr=1e-4)
    optimizer = build(settings, objective, parameter_table(objective, default_groups(settings, objective)))

    def one() -> int:
        inputs = next(stream)
        optimizer.zero_grad(set_to_none=True)
        step(objective, [inputs], lambda _micro: None)
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        return inputs.tokens

    return one


def our_parts(corpus: Path, folder: Path) -> tuple[Any, Any]:
    """Our objective and loader over the corpus."""
    from bothways.data.loader import Loader
    from bothways.data.masking import BERT
    from bothways.data.packing import TokenBudget
    from bothways.data.shard_writer import write_shards
    from bothways.data.shards import Shards
    from bothways.data.source import Document
    from bothways.data.token_data import TokenData
    from bothways.data.tokenizer import Tokenizer
    from bothways.data.vocabulary import Vocabulary
    from bothways.encoder.encoder import Encoder
    from bothways.encoder.initialisation import initialise
    from bothways.families.bert import bert, masked_lm_head
    from bothways.layers.heads import MaskedLm
    from bothways.objectives.masked_lm import MaskedLanguageModeling

    tokenizer = Tokenizer.load(folder)
    write_shards((Document(text, "") for text in texts(corpus, 20_000)), tokenizer, folder / "shards")
    config = bert(VOCABULARY, 256, 6, 4, 1024, max_length=LENGTH)
    encoder = Encoder(config)
    head = MaskedLm(masked_lm_head(config), 256, VOCABULARY)
    objective = MaskedLanguageModeling(encoder, head, BERT, Vocabulary.of(tokenizer, VOCABULARY))
    initialise(objective, config.initialisation, 6, 0)
    data = TokenData(Shards(folder / "shards", tokenizer), tokenizer, LENGTH)
    return objective, Loader(data, TokenBudget(tokens=ROWS * LENGTH), objective.prepare, seed=0)


def theirs(corpus: Path, folder: Path, grouped: bool) -> Callable[[], int]:
    """One optimizer step of BertForMaskedLM with run_mlm's data path."""
    model, rows, collate = their_parts(corpus, folder, grouped)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    order = np.random.default_rng(0).permutation(len(rows)).tolist()

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        while True:
            for i in range(0, len(order) - ROWS, ROWS):
                yield collate([rows[j] for j in order[i : i + ROWS]])

    stream = batches()

    def one() -> int:
        batch = next(stream)
        optimizer.zero_grad(set_to_none=True)
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return int(batch["attention_mask"].sum())

    return one


def their_parts(corpus: Path, folder: Path, grouped: bool) -> tuple[Any, list[dict[str, list[int]]], Any]:
    """transformers' model, rows and collator."""
    from transformers import BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024,
        max_position_embeddings=LENGTH,
    )  # fmt: skip
    lines = texts(corpus, 20_000)
    if grouped:
        joined = [i for ids in tokenizer(lines)["input_ids"] for i in ids]
        rows = [joined[i : i + LENGTH] for i in range(0, len(joined) - LENGTH, LENGTH)]
    else:
        rows = tokenizer(lines, truncation=True, max_length=LENGTH)["input_ids"]
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    return BertForMaskedLM(config), [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows], collate


CONTENDERS: dict[str, Callable[[Path, Path], Callable[[], int]]] = {
    "bothways": ours,
    "transformers_padded": lambda corpus, folder: theirs(corpus, folder, grouped=False),
    "transformers_group_texts": lambda corpus, folder: theirs(corpus, folder, grouped=True),
}


def worker(name: str, corpus: Path, folder: Path, steps: int, rounds: int, pipe: Connection) -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    one = CONTENDERS[name](corpus, own_folder(folder, name))
    one()
    pipe.send(None)
    while pipe.recv():
        begin = time.perf_counter()
        tokens = sum(one() for _ in range(steps))
        pipe.send((tokens / (time.perf_counter() - begin), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def own_folder(folder: Path, name: str) -> Path:
    """A folder for one contender, with the tokenizer in it."""
    place = folder / name
    place.mkdir()
    for file in folder.glob("*.json"):
        (place / file.name).write_bytes(file.read_bytes())
    return place


def raced(worker: Callable[..., None], names: Iterable[str], corpus: Path, steps: int, rounds: int) -> dict[str, list[Any]]:
    """`in_turn`, with a tokenizer of the corpus; workers are given the corpus, a folder with the tokenizer, steps and rounds."""
    from bothways.data.tokenizer_training import WordPiece, train_tokenizer

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train_tokenizer(WordPiece(vocab_size=VOCABULARY), texts(corpus, 60_000), LENGTH).save(folder)
        return in_turn(worker, names, (corpus, folder, steps, rounds), rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    told = raced(worker, CONTENDERS, options.corpus, options.steps, options.rounds)
    speeds = {name: [speed for speed, _ in rows] for name, rows in told.items()}
    peak = {name: max(most for _, most in rows) for name, rows in told.items()}
    result: dict[str, Any] = {
        "architecture": ARCHITECTURE,
        "ratio_to_padded": times_faster(speeds, "bothways", "transformers_padded"),
        "ratio_to_group_texts": times_faster(speeds, "bothways", "transformers_group_texts"),
        "peak_memory_mib": {name: round(value) for name, value in peak.items()},
        "peak_memory_ratio_to_padded": round(peak["bothways"] / peak["transformers_padded"], 2),
        "peak_memory_ratio_to_group_texts": round(peak["bothways"] / peak["transformers_group_texts"], 2),
        **rates(speeds),
    }
    for key, value in result.items():
        print(f"{key}: {value}")
    print(record("masked_lm_step", result))


if __name__ == "__main__":
    main()
