"""From raw text to a pretrained encoder: tokenizer, shards, training, a folder others load, a report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bothways.config import to_json
from bothways.data.added_tokens import cut, is_known
from bothways.data.lexicon import Lexicon
from bothways.data.loader import Loader
from bothways.data.tally import Tally
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import train_tokenizer
from bothways.data.vocabulary import Vocabulary
from bothways.errors import InputError
from bothways.files import replacing, write_text
from bothways.model.model import Model
from bothways.objectives.masked_lm import PrepareMasked
from bothways.objectives.sharing import refold
from bothways.recipes import detecting, general_text
from bothways.recipes.assembling import EVALUATED, assemble, build, check_objective, figures, measured_objective, metrics
from bothways.recipes.audit import find_audit
from bothways.recipes.carrying_out import Say, Trained, carry_out, claim
from bothways.recipes.continuing import Objectives
from bothways.recipes.corpus import Opened, Text, by_length, files_of, given, open_corpus, samples_of, texts_of
from bothways.recipes.forgetting import Forgetting
from bothways.recipes.general_text import GeneralText, check_general
from bothways.recipes.gramming import LEXICON, prepare_lexicon
from bothways.recipes.masks import opener, scheduled, vocabulary_of
from bothways.recipes.predictions import predictions
from bothways.recipes.runs import GivenTokenizer, Pretraining
from bothways.recipes.word_vectors import VECTORS, Vectors, begin_with, prepare_word_vectors
from bothways.training import record
from bothways.training.checkpoint import position
from bothways.training.loop import Result
from bothways.training.optimizer import Group
from bothways.training.sections import Table
from bothways.training.settings import Watch
from bothways.training.speed import gemm_rate
from bothways.training.team import team
from bothways.training.trainable import OpenStream, State

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
        tokenizer, shards, lexicon = prepare(run, folder, say)
        vectors = prepare_word_vectors(run, folder, tokenizer, shards, say)
    parts = set_up(run, tokenizer, shards, chosen(device), say, lexicon, vectors)
    watch, plotted, general = parts.watch(run, machine_rate(parts)), metrics(parts.objective), None
    if run.general is not None:
        with team().in_turn():
            general = GeneralText.read(run, folder, tokenizer, parts.vocabulary, say)
        watch, plotted = general.beside(watch, parts.objective, str(parts.model.device)), (*plotted, *general_text.METRICS)

    def sections(result: Result) -> list[Table]:
        told = [] if general is None else [Forgetting.of(folder, general.predicted).table]
        return [*told, account(parts.text.tally(parts.loader.plan, stream_state(result)), say)]

    trained = carry_out(
        run, folder, parts.objective, parts.opener(run, folder), parts.model, watch,
        title=f"Pretraining {run.family}", command=command, metrics=plotted, say=say,
        audit=find_audit(files_of(run.source)), extra=sections,
        groups=parts.groups(run), finish=parts.finish, beside=parts.beside,
    )  # fmt: skip
    forgotten = None if general is None else Forgetting.of(folder, general.predicted)
    if forgotten and team().first:
        forgotten.describe(folder / "model")
    return replace(trained, epochs=trained.result.tokens / parts.epoch_tokens, forgetting=forgotten)


@dataclass(frozen=True, eq=False)
class Parts:
    """What a run trains, and on what.

    Attributes:
        model: on the very modules of the objective, but for tables that `finish` brings up to date.
        filling: the model that predicts masked tokens, which may be another one.
        beside: other models to save, by name.
    """

    objective: Objectives
    model: Model
    loader: Loader[Any]
    text: Text
    vocabulary: Vocabulary
    filling: Model
    beside: Mapping[str, Model]

    @property
    def epoch_tokens(self) -> int:
        """The tokens of one pass over all the text that is learned from."""
        return pass_tokens(self.text)

    def opener(self, run: Pretraining, folder: Path, state: State | None = None) -> OpenStream[Any]:
        """Opens the streams of a run that begins at a state of its text, or at the text's beginning."""
        prepare = self.objective.prepare
        if not isinstance(prepare, PrepareMasked):
            return self.loader.open
        origin = 0 if state is None or run.masking.schedule is None else self.loader.tokens_before(state)
        return opener(run, self.loader, prepare, folder, origin)

    def groups(self, run: Pretraining) -> tuple[Group, ...] | None:
        """Which parameters get which learning rate; None: as ever."""
        one = self.objective
        return detecting.detection_groups(one, run.training.optimizer) if isinstance(one, detecting.WithGenerator) else None

    def finish(self) -> None:
        """Make the model what was trained."""
        refold(self.objective.encoder, self.model.encoder)

    def watch(self, run: Pretraining, rate: float) -> Watch:
        """Held-out figures, and predictions, of the model; `rate` is the machine's."""
        device, heldout = str(self.model.device), self.text.heldout
        prepare: Any = measured_objective(run, self.vocabulary).prepare
        measured: Loader[Any] = Loader(heldout, run.batching, prepare, run.training.seed, order=self.text.heldout_order)
        evaluation = list(islice(measured.evaluation(), EVALUATED))
        return Watch(
            evaluate=lambda: figures(self.objective, evaluation, device),
            samples=(lambda: predictions(self.filling, heldout)) if "masked_lm" in self.filling.heads else None,
            rate=rate,
        )


def set_up(
    run: Pretraining,
    tokenizer: Tokenizer,
    opened: tuple[Opened, ...],
    device: str,
    say: Say,
    lexicon: Lexicon | None = None,
    vectors: Vectors | None = None,
) -> Parts:
    """Put the parts of a run together, with the weights that it begins with."""
    text = prepare_samples(run, tokenizer, opened, say)
    vocabulary = replace(vocabulary_of(run.masking, tokenizer, opened, say), lexicon=lexicon)
    objective = build(replace(run, masking=scheduled(run, text)), vocabulary, say)
    if vectors is not None:
        begin_with(vectors, objective)
    fixed = run.training.compile
    loader = Loader(text.data, run.batching, objective.prepare, run.training.seed, run.workers, text.order, fixed)
    fill = loader.plan.epoch(0).fill
    say(f"{fill.samples:,} samples, {fill.tokens:,} tokens an epoch in {fill.batches:,} batches, {fill.share:.2%} full")
    if loader.capacity is not None:
        shape = f"{loader.capacity.tokens:,} tokens in {loader.capacity.slots:,} slots"
        say(f"every batch is brought to {shape} by filler, {1 - fill.share:.2%} of all that is processed")
    model, filling = (one.to(device) for one in assemble(run, tokenizer, objective))
    beside = {} if filling is model else {"generator": filling}
    return Parts(objective, model, loader, text, vocabulary, filling, beside)


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
    sources = [run.source] if run.general is None else [run.source, run.general]
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for source in sources for path in files_of(source)]
    texts = "".join(map(to_json, sources))
    said = [_OURS, texts, to_json(run.tokenizer), run.encoder.max_length, files]
    if run.ngrams is not None:
        said.append(to_json(run.ngrams.lexicon))
    made_from = json.dumps(said, indent=2) + "\n"
    note = folder / _MADE_FROM
    written = note.read_text(encoding="utf-8") if note.exists() else None
    if written == made_from:
        return
    if written is not None and _OURS not in written:
        raise InputError(f"{note}: not written by a run; choose another folder")
    for made in (folder / "tokenizer", folder / "data", folder / LEXICON, folder / VECTORS, folder / general_text.FOLDER):
        if made.exists() and written is None:
            raise InputError(f"{made}: nothing says which text this was made from; remove it or choose another folder")
        if made.is_file():
            made.unlink()
        shutil.rmtree(made, ignore_errors=True)
    write_text(note, made_from)


def prepare(run: Pretraining, folder: Path, say: Say) -> tuple[Tokenizer, tuple[Opened, ...], Lexicon | None]:
    """What a run is to read its text with, and the text as token shards; each is made once and kept in the folder."""
    tokenizer = prepare_tokenizer(run, folder, say)
    shards = prepare_shards(run, folder, tokenizer, say)
    lexicon = None if run.ngrams is None else prepare_lexicon(run.ngrams.lexicon, folder, tokenizer, shards, say)
    return tokenizer, shards, lexicon


def prepare_tokenizer(run: Pretraining, folder: Path, say: Say) -> Tokenizer:
    """The run's tokenizer: given, or trained once and kept in the folder."""
    if isinstance(run.tokenizer, GivenTokenizer):
        tokenizer = given(run.tokenizer)
        if run.tokenizer.added:
            _tell_added(run.tokenizer, say)
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
    if run.blocks is not None:
        run.blocks.rule(tokenizer)  # told of before all the text is tokenised
    return tokenizer


def _tell_added(asked: GivenTokenizer, say: Say) -> None:
    old = given(replace(asked, added=None))
    new = [word for word in asked.added or () if not is_known(old, word)]
    pieces, known = sum(len(cut(old, word)) for word in new), len(asked.added or ()) - len(new)
    were = f", each of which was {pieces / len(new):.1f} pieces on average" if new else ""
    say(f"{len(new):,} tokens added{were}" + (f"; {known:,} were tokens already" if known else ""))


def prepare_shards(run: Pretraining, folder: Path, tokenizer: Tokenizer, say: Say) -> tuple[Opened, ...]:
    """The sources of the run as token shards, written once."""
    return open_corpus(run.source, folder / "data", tokenizer, say)


def prepare_samples(run: Pretraining, tokenizer: Tokenizer, opened: tuple[Opened, ...], say: Say) -> Text:
    """The samples to learn from, in their order, and those to measure on."""
    opened = by_length(opened, run.by_length) if run.by_length else opened
    made = run.blocks if run.pairs is None else run.pairs.task
    return samples_of(
        opened, tokenizer, run.max_length, run.held_out, run.training.seed, run.batching, run.length_warmup, say, made
    )


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


def check(run: Pretraining) -> None:
    """Raises InputError where the run contradicts itself."""
    if run.max_length > run.encoder.max_length:
        raise InputError(f"max_length {run.max_length} exceeds encoder.max_length {run.encoder.max_length}")
    if run.max_length > run.batching.tokens:
        raise InputError(f"max_length {run.max_length} exceeds batching.tokens {run.batching.tokens}: a sample must fit a batch")
    check_objective(run)
    check_general(run)
