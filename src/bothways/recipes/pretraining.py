"""From raw text to a pretrained encoder: tokenizer, shards, training, a folder others load, a report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from bothways.config import to_json
from bothways.data.loader import Loader
from bothways.data.masking import Vocabulary
from bothways.data.sample import Samples
from bothways.data.tally import Tally
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import train_tokenizer
from bothways.encoder.encoder import Encoder
from bothways.encoder.initialisation import initialise
from bothways.errors import InputError
from bothways.families import FAMILIES
from bothways.families.family import Heads, Spec
from bothways.files import replacing, write_text
from bothways.layers.heads import MaskedLm
from bothways.model.folder import resolve
from bothways.model.model import Model
from bothways.objectives.masked_lm import MaskedInputs, MaskedLanguageModeling, PrepareMasked
from bothways.recipes.audit import find_audit
from bothways.recipes.carrying_out import Say, Trained, averages, carry_out, claim
from bothways.recipes.continuing import take_over
from bothways.recipes.corpus import Opened, Text, by_length, files_of, open_corpus, samples_of, texts_of
from bothways.recipes.runs import GivenTokenizer, Pretraining
from bothways.training import record
from bothways.training.checkpoint import position
from bothways.training.loop import Result
from bothways.training.sections import Table
from bothways.training.settings import Watch
from bothways.training.speed import gemm_rate
from bothways.training.team import team

# Micro-batches of held-out text: a fixed sample, always the same masks
EVALUATED = 20
# Train metrics that reports plot
METRICS = ("accuracy", "masked", "mask_token")
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
    check(run)
    claim(run, folder)
    with team().in_turn():
        remember_corpus(run, folder)
        tokenizer = prepare_tokenizer(run, folder, say)
        shards = prepare_shards(run, folder, tokenizer, say)
    parts = set_up(run, tokenizer, shards, chosen(device), say)
    trained = carry_out(
        run, folder, parts.objective, parts.loader.open, parts.model, parts.watch(run, machine_rate(parts)),
        title=f"Pretraining {run.family}", command=command, metrics=METRICS, say=say, audit=find_audit(files_of(run.source)),
        extra=lambda result: [account(parts.text.tally(parts.loader.plan, stream_state(result)), say)],
    )  # fmt: skip
    return replace(trained, epochs=trained.result.tokens / parts.epoch_tokens)


@dataclass(frozen=True, eq=False)
class Parts:
    """What a run trains, and on what.

    Attributes:
        model: on the very modules of the objective.
    """

    objective: MaskedLanguageModeling
    model: Model
    loader: Loader[MaskedInputs]
    text: Text
    vocabulary: Vocabulary

    @property
    def epoch_tokens(self) -> int:
        """The tokens of one pass over all the text that is learned from."""
        return pass_tokens(self.text)

    def watch(self, run: Pretraining, rate: float) -> Watch:
        """Held-out figures, and predictions, of the model; `rate` is the machine's."""
        device, heldout = str(self.model.device), self.text.heldout
        rate_held = run.masking.rate if run.held_out_rate is None else run.held_out_rate
        prepare = PrepareMasked(replace(run.masking, rate=rate_held), self.vocabulary)
        measured = Loader(heldout, run.batching, prepare, run.training.seed, order=self.text.heldout_order)
        evaluation = list(islice(measured.evaluation(), EVALUATED))
        return Watch(
            evaluate=lambda: averages(self.objective, evaluation, device, ("loss", "accuracy")),
            samples=lambda: predictions(self.model, heldout),
            rate=rate,
        )


def set_up(run: Pretraining, tokenizer: Tokenizer, opened: tuple[Opened, ...], device: str, say: Say) -> Parts:
    """Put the parts of a run together, with the weights that it begins with."""
    text = prepare_samples(run, tokenizer, opened, say)
    objective = build(run, tokenizer)
    fixed = run.training.compile
    loader = Loader(text.data, run.batching, objective.prepare, run.training.seed, run.workers, text.order, fixed)
    fill = loader.plan.epoch(0).fill
    say(f"{fill.samples:,} samples, {fill.tokens:,} tokens an epoch in {fill.batches:,} batches, {fill.share:.2%} full")
    if loader.capacity is not None:
        shape = f"{loader.capacity.tokens:,} tokens in {loader.capacity.slots:,} slots"
        say(f"every batch is brought to {shape} by filler, {1 - fill.share:.2%} of all that is processed")
    model = assemble(run, tokenizer, objective).to(device)
    return Parts(objective, model, loader, text, Vocabulary.of(tokenizer))


def machine_rate(parts: Parts) -> float:
    """The matrix products a second of the device that a model is on, in FLOP/s; measuring takes a second."""
    return gemm_rate(parts.model.device, torch.float32)


def chosen(device: str | None) -> str:
    """The device to train on: CUDA where there is a GPU, unless told otherwise."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def remember_corpus(run: Pretraining, folder: Path) -> None:
    """Note what the folder's tokenizer and shards are made from; where no run has begun, forget those of other text.

    Raises:
        InputError: there are a tokenizer or shards, and no note of ours says what they were made from.
    """
    if (folder / record.NAME).exists():
        return  # the run's own record decides from here on
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files_of(run.source)]
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
        tokenizer = Tokenizer.load(resolve(run.tokenizer.folder))
    elif (folder / "tokenizer" / "tokenizer.json").exists():
        tokenizer = Tokenizer.load(folder / "tokenizer")
    else:
        say(f"training a tokenizer of {run.tokenizer.vocab_size:,} pieces")
        tokenizer = train_tokenizer(run.tokenizer, texts_of(run.source), run.encoder.max_length)
        with replacing(folder / "tokenizer") as partial:  # a killed process leaves no half of one under its name
            tokenizer.save(partial)
    if tokenizer.vocab_size > run.encoder.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} ids, encoder.vocab_size is {run.encoder.vocab_size}; raise it"
        )
    return tokenizer


def prepare_shards(run: Pretraining, folder: Path, tokenizer: Tokenizer, say: Say) -> tuple[Opened, ...]:
    """The sources of the run as token shards, written once."""
    return open_corpus(run.source, folder / "data", tokenizer, say)


def prepare_samples(run: Pretraining, tokenizer: Tokenizer, opened: tuple[Opened, ...], say: Say) -> Text:
    """The samples to learn from, in their order, and those to measure on."""
    opened = by_length(opened, run.by_length) if run.by_length else opened
    return samples_of(opened, tokenizer, run.max_length, run.held_out, run.training.seed, run.batching, run.length_warmup, say)


def pass_tokens(text: Text) -> int:
    """The tokens of one pass over all the text of a run, special ones among them; of parts that overlap, the largest."""
    totals = [int(part.lengths.sum(dtype=np.int64)) for part in text.parts]
    return max(totals) if text.overlapping else sum(totals)


def stream_state(result: Result) -> dict[str, int]:
    """Where the stream of a finished run stands."""
    state = position(result.checkpoint).stream
    assert state is not None, "a finished run has saved its last step"
    return state


def account(tallies: Sequence[Tally], say: Say) -> Table:
    """What was taken of each source, for the report; repeated text is told of at once."""
    for one in tallies:
        if one.passes > 1:
            say(f"{one.name}: gone through {one.passes:,.2f} times")
    columns = ("source", "declared", "of the tokens", "tokens", "samples", "passes")
    rows = [
        (one.name, f"{one.declared:.1%}", f"{one.share:.1%}", f"{one.tokens:,}", f"{one.samples:,}", f"{one.passes:,.2f}")
        for one in tallies
    ]
    return Table("Data", columns, rows, note="Over one pass, text was seen more than once.")


def build(run: Pretraining, tokenizer: Tokenizer) -> MaskedLanguageModeling:
    """The objective, with fresh weights, a function of the seed, or those of the model it starts from."""
    objective = unfilled(run, Vocabulary.of(tokenizer))
    initialise(objective, run.encoder.initialisation, run.encoder.num_layers, run.training.seed)
    if run.start is not None:
        take_over(objective, run.start, run.family)
    return objective


def unfilled(run: Pretraining, vocabulary: Vocabulary) -> MaskedLanguageModeling:
    """The objective, whose weights are whatever torch makes of them."""
    encoder = Encoder(run.encoder)
    head = MaskedLm(run.head, run.encoder.hidden_size, run.encoder.vocab_size, run.encoder.embedding.size)
    return MaskedLanguageModeling(encoder, head, run.masking, vocabulary)


def assemble(run: Pretraining, tokenizer: Tokenizer, objective: MaskedLanguageModeling) -> Model:
    """The model a user loads, on the very modules that are trained."""
    family = next(one for one in FAMILIES if one.name == run.family)
    spec = Spec(encoder=run.encoder, heads=Heads(masked_lm=run.head), pad_id=tokenizer.pad_id or 0)
    with torch.device("meta"):
        model = Model(family, spec, tokenizer, name=run.family)
    model.encoder = objective.encoder
    model.heads["masked_lm"] = objective.head
    return model


def predictions(model: Model, heldout: Samples, count: int = 4, around: int = 12) -> list[dict[str, str]]:
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


def check(run: Pretraining) -> None:
    """Raises InputError where the run contradicts itself."""
    if run.max_length > run.encoder.max_length:
        raise InputError(f"max_length {run.max_length} exceeds encoder.max_length {run.encoder.max_length}")
    if run.max_length > run.batching.tokens:
        raise InputError(f"max_length {run.max_length} exceeds batching.tokens {run.batching.tokens}: a sample must fit a batch")
