"""From raw text to a pretrained encoder: tokenizer, shards, training, a folder others load, a report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from bothways.config import to_json
from bothways.data.loader import Loader
from bothways.data.masking import Vocabulary
from bothways.data.shards import Shards, write_shards, writing
from bothways.data.source import list_source, read_documents
from bothways.data.token_data import TokenData, hold_out
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import train_tokenizer
from bothways.encoder.encoder import Encoder
from bothways.encoder.initialisation import initialise
from bothways.errors import InputError
from bothways.families import FAMILIES
from bothways.families.family import Heads, Spec
from bothways.layers.heads import MaskedLm
from bothways.model.model import Model
from bothways.objectives.masked_lm import MaskedInputs, MaskedLanguageModeling
from bothways.recipes.runs import FREE, GivenTokenizer, Pretraining
from bothways.training import record
from bothways.training.loop import Result, train
from bothways.training.report import report
from bothways.training.settings import Watch
from bothways.training.speed import gemm_rate

# Micro-batches of held-out text: a fixed sample, always the same masks
_EVALUATED = 20
# Beside the tokenizer and the shards: the text they were made from
_MADE_FROM = "corpus.json"


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished run, the model it made, and where both lie."""

    result: Result
    model: Model
    folder: Path


def pretrain(
    run: Pretraining, folder: Path, say: Callable[[str], None] = lambda line: None, command: str = "", device: str | None = None
) -> Trained:
    """Carry out a run in `folder`, or go on with it: `model/` is the result, `report.html` the account.

    Args:
        say: told of each stage in a line.
        command: what the report names as the way to repeat the run.

    Raises:
        InputError: text that cannot be read, a folder of another run, a contradiction in the run.
        Interrupted: after Ctrl-C, with everything saved; the same call goes on.
    """
    _check(run)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    remember_corpus(run, folder)
    tokenizer = prepare_tokenizer(run, folder, say)
    shards = prepare_shards(run, folder, tokenizer, say)
    objective = build(run, tokenizer)
    kept, held = hold_out(len(shards.lengths), run.held_out, run.training.seed)
    if not len(kept) or not len(held):
        raise InputError(
            f"{len(shards.lengths)} documents cannot be divided into training and held-out text; give more, or split='paragraph'"
        )
    data, heldout = (TokenData(shards, tokenizer, run.max_length, part) for part in (kept, held))
    loader = Loader(data, run.batching, objective.prepare, run.training.seed, run.workers)
    fill = loader.plan.epoch(0).fill
    say(f"{len(data):,} samples, {fill.tokens:,} tokens an epoch in {fill.batches:,} batches, {fill.share:.2%} full")
    evaluation = list(islice(Loader(heldout, run.batching, objective.prepare, run.training.seed).evaluation(), _EVALUATED))
    model = assemble(run, tokenizer, objective)
    watch = Watch(
        evaluate=lambda: evaluate(objective, evaluation, device),
        samples=lambda: predictions(model, heldout),
        rate=gemm_rate(device, torch.float32),
    )
    result = train(objective, loader.open, run.training, folder, device=device, run=to_json(run), free=FREE, watch=watch)
    model.eval().save(folder / "model")
    report(folder, title=f"Pretraining {run.family}", command=command, metrics=("accuracy", "masked", "mask_token"))
    return Trained(result, model, folder)


def remember_corpus(run: Pretraining, folder: Path) -> None:
    """Note what the folder's tokenizer and shards are made from; where no run has begun, forget those of other text.

    Raises:
        InputError: there are a tokenizer or shards, and nothing says what they were made from.
    """
    if (folder / record.NAME).exists():
        return  # the run's own record decides from here on
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in list_source(run.source).files]
    made_from = json.dumps([to_json(run.source), to_json(run.tokenizer), run.encoder.max_length, files], indent=2) + "\n"
    note = folder / _MADE_FROM
    if note.exists() and note.read_text(encoding="utf-8") == made_from:
        return
    for made in (folder / "tokenizer", folder / "data"):
        if made.exists() and not note.exists():
            raise InputError(f"{made}: nothing says which text this was made from; remove it or choose another folder")
        shutil.rmtree(made, ignore_errors=True)
    with writing(note):
        folder.mkdir(parents=True, exist_ok=True)
        note.with_suffix(".partial").write_text(made_from, encoding="utf-8")
        note.with_suffix(".partial").replace(note)


def prepare_tokenizer(run: Pretraining, folder: Path, say: Callable[[str], None]) -> Tokenizer:
    """The run's tokenizer: given, or trained once and kept in the folder."""
    if isinstance(run.tokenizer, GivenTokenizer):
        tokenizer = Tokenizer.load(Path(run.tokenizer.folder))
    elif (folder / "tokenizer" / "tokenizer.json").exists():
        tokenizer = Tokenizer.load(folder / "tokenizer")
    else:
        say(f"training a tokenizer of {run.tokenizer.vocab_size:,} pieces")
        texts = (document.text for document in read_documents(run.source))
        tokenizer = train_tokenizer(run.tokenizer, texts, run.encoder.max_length)
        partial = folder / ".tokenizer.partial"  # a killed process leaves no half of a tokenizer under its name
        tokenizer.save(partial)
        partial.replace(folder / "tokenizer")
    if tokenizer.vocab_size > run.encoder.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} ids, encoder.vocab_size is {run.encoder.vocab_size}; raise it"
        )
    return tokenizer


def prepare_shards(run: Pretraining, folder: Path, tokenizer: Tokenizer, say: Callable[[str], None]) -> Shards:
    """The corpus as token shards, written once."""
    if not (folder / "data" / "manifest.json").exists():
        say("tokenising the corpus")
        write_shards(read_documents(run.source), tokenizer, folder / "data")
    return Shards(folder / "data", tokenizer)


def build(run: Pretraining, tokenizer: Tokenizer) -> MaskedLanguageModeling:
    """The objective with fresh weights, a function of the seed."""
    encoder = Encoder(run.encoder)
    head = MaskedLm(run.head, run.encoder.hidden_size, run.encoder.vocab_size)
    objective = MaskedLanguageModeling(encoder, head, run.masking, Vocabulary.of(tokenizer, run.encoder.vocab_size))
    initialise(objective, run.encoder.initialisation, run.encoder.num_layers, run.training.seed)
    return objective


def assemble(run: Pretraining, tokenizer: Tokenizer, objective: MaskedLanguageModeling) -> Model:
    """The model a user loads, on the very modules that are trained."""
    family = next(one for one in FAMILIES if one.name == run.family)
    spec = Spec(encoder=run.encoder, heads=Heads(masked_lm=run.head), pad_id=tokenizer.pad_id or 0)
    with torch.device("meta"):
        model = Model(family, spec, tokenizer, name=run.family)
    model.encoder = objective.encoder
    model.heads["masked_lm"] = objective.head
    return model


def evaluate(objective: MaskedLanguageModeling, batches: list[MaskedInputs], device: str) -> Mapping[str, float]:
    """Loss in nats and accuracy over held-out batches."""
    sums = {"loss": 0.0, "accuracy": 0.0}
    predicted = 0
    for batch in batches:
        out = objective(batch.to(device))
        predicted += len(batch.labels)
        for name in sums:
            sums[name] += float(out[name])
    return {name: total / max(predicted, 1) for name, total in sums.items()}


def predictions(model: Model, heldout: TokenData, count: int = 4, around: int = 12) -> list[dict[str, str]]:
    """What the model puts in the place of one token of a few held-out texts."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    assert tokenizer.mask_id is not None
    rows = []
    longest = np.argsort(-heldout.lengths, kind="stable")[:count]
    for number in longest.tolist():
        ids = heldout[number].sequences[0].copy()
        place = len(ids) // 2
        truth, ids[place] = int(ids[place]), tokenizer.mask_id
        with torch.no_grad():
            hidden = model.hidden_states([ids])[0][place]
            logits = model.masked_lm(torch.from_numpy(hidden).to(model.device)[None])[0]
        best = logits[: tokenizer.vocab_size].topk(min(3, tokenizer.vocab_size)).indices.tolist()
        left, right = tokenizer.decode(ids[max(place - around, 0) : place]), tokenizer.decode(ids[place + 1 : place + around])
        rows.append(
            {
                "text": f"{left} ____ {right}",
                "was": tokenizer.decode([truth]),
                "guesses": ", ".join(tokenizer.decode([token]) for token in best),
            }
        )
    return rows


def _check(run: Pretraining) -> None:
    if run.max_length > run.encoder.max_length:
        raise InputError(f"max_length {run.max_length} exceeds encoder.max_length {run.encoder.max_length}")
    if run.max_length > run.batching.tokens:
        raise InputError(f"max_length {run.max_length} exceeds batching.tokens {run.batching.tokens}: a sample must fit a batch")
