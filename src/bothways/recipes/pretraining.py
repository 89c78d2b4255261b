"""From raw text to a pretrained encoder: tokenizer, shards, training, a folder others load, a report."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from bothways.config import to_json
from bothways.data.loader import Loader
from bothways.data.masking import Vocabulary
from bothways.data.shards import Shards, write_shards
from bothways.data.source import list_source, read_documents
from bothways.data.token_data import TokenData, hold_out
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import train_tokenizer
from bothways.encoder.encoder import Encoder
from bothways.encoder.initialisation import initialise
from bothways.errors import InputError
from bothways.families import FAMILIES
from bothways.families.family import Heads, Spec
from bothways.files import replacing, write_text
from bothways.layers.heads import MaskedLm
from bothways.model.model import Model
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.recipes.audit import describe_corpus, find_audit, overview, read_audit
from bothways.recipes.carrying_out import Say, Trained, averages, carry_out, claim
from bothways.recipes.runs import GivenTokenizer, Pretraining
from bothways.training import record
from bothways.training.settings import Watch
from bothways.training.speed import gemm_rate

# Micro-batches of held-out text: a fixed sample, always the same masks
_EVALUATED = 20
# What tells our note from a file that happens to have its name: only behind it is anything removed
_OURS = "what this folder's tokenizer and data were made from"
# Beside the tokenizer and the shards: the text they were made from
_MADE_FROM = "prepared-from.json"


def pretrain(
    run: Pretraining, folder: Path, say: Say = lambda line: None, command: str = "", device: str | None = None
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
    claim(run, folder)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    remember_corpus(run, folder)
    tokenizer = prepare_tokenizer(run, folder, say)
    shards = prepare_shards(run, folder, tokenizer, say)
    objective = build(run, tokenizer)
    kept, held = hold_out(len(shards.lengths), run.held_out, run.training.seed)
    data, heldout = (TokenData(shards, tokenizer, run.max_length, part) for part in (kept, held))
    loader = Loader(data, run.batching, objective.prepare, run.training.seed, run.workers)
    fill = loader.plan.epoch(0).fill
    say(f"{len(data):,} samples, {fill.tokens:,} tokens an epoch in {fill.batches:,} batches, {fill.share:.2%} full")
    tokens = int(heldout.lengths.sum())
    say(f"{len(held):,} of {len(shards.lengths):,} documents held out, {tokens / (tokens + fill.tokens):.1%} of the tokens")
    evaluation = list(islice(Loader(heldout, run.batching, objective.prepare, run.training.seed).evaluation(), _EVALUATED))
    model = assemble(run, tokenizer, objective).to(device)
    watch = Watch(
        evaluate=lambda: averages(objective, evaluation, device, ("loss", "accuracy")),
        samples=lambda: predictions(model, heldout),
        rate=gemm_rate(device, torch.float32),
    )
    title, metrics = f"Pretraining {run.family}", ("accuracy", "masked", "mask_token")
    account = find_audit(run.source)
    audit = read_audit(account) if account else None
    trained = carry_out(
        run, folder, objective, loader.open, model, watch, title=title, command=command, metrics=metrics, say=say,
        extra=overview(audit) if audit else (),
    )  # fmt: skip
    if audit:
        describe_corpus(audit, folder / "model")
    return trained


def remember_corpus(run: Pretraining, folder: Path) -> None:
    """Note what the folder's tokenizer and shards are made from; where no run has begun, forget those of other text.

    Raises:
        InputError: there are a tokenizer or shards, and no note of ours says what they were made from.
    """
    if (folder / record.NAME).exists():
        return  # the run's own record decides from here on
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in list_source(run.source).files]
    made_from = json.dumps([_OURS, to_json(run.source), to_json(run.tokenizer), run.encoder.max_length, files], indent=2) + "\n"
    note = folder / _MADE_FROM
    written = note.read_text(encoding="utf-8") if note.exists() else None
    if written == made_from:
        return
    if written is not None and _OURS not in written:
        raise InputError(f"{note}: not written by a run; choose another folder")
    for made in (folder / "tokenizer", folder / "data"):
        if made.exists() and written is None:
            raise InputError(f"{made}: nothing says which text this was made from; remove it or choose another folder")
        shutil.rmtree(made, ignore_errors=True)
    write_text(note, made_from)


def prepare_tokenizer(run: Pretraining, folder: Path, say: Say) -> Tokenizer:
    """The run's tokenizer: given, or trained once and kept in the folder."""
    if isinstance(run.tokenizer, GivenTokenizer):
        tokenizer = Tokenizer.load(Path(run.tokenizer.folder))
    elif (folder / "tokenizer" / "tokenizer.json").exists():
        tokenizer = Tokenizer.load(folder / "tokenizer")
    else:
        say(f"training a tokenizer of {run.tokenizer.vocab_size:,} pieces")
        texts = (document.text for document in read_documents(run.source))
        tokenizer = train_tokenizer(run.tokenizer, texts, run.encoder.max_length)
        with replacing(folder / "tokenizer") as partial:  # a killed process leaves no half of one under its name
            tokenizer.save(partial)
    if tokenizer.vocab_size > run.encoder.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} ids, encoder.vocab_size is {run.encoder.vocab_size}; raise it"
        )
    return tokenizer


def prepare_shards(run: Pretraining, folder: Path, tokenizer: Tokenizer, say: Say) -> Shards:
    """The corpus as token shards, written once."""
    if not (folder / "data" / "manifest.json").exists():
        say("tokenising the corpus")
        write_shards(read_documents(run.source), tokenizer, folder / "data")
    return Shards(folder / "data", tokenizer)


def build(run: Pretraining, tokenizer: Tokenizer) -> MaskedLanguageModeling:
    """The objective with fresh weights, a function of the seed."""
    encoder = Encoder(run.encoder)
    head = MaskedLm(run.head, run.encoder.hidden_size, run.encoder.vocab_size, run.encoder.embedding.size)
    objective = MaskedLanguageModeling(encoder, head, run.masking, Vocabulary.of(tokenizer))
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
