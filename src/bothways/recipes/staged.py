"""Pretraining in stages: each begins with the weights the one before ended with, and all are one run.

    run.json            the whole run
    tokenizer/  data/   of the first stage's text; a stage with text of its own has its data in its folder
    lexicon.safetensors where n-grams are learned: those of the text of all stages
    1-general/          a stage: run.json, log.jsonl, checkpoints/
    2-context/          the next
    model/  report.html

A stage that is finished is not done again, and one that was interrupted goes on where it stood.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from bothways.config import override, to_json
from bothways.data.masking import Vocabulary
from bothways.data.tokenizer import Tokenizer
from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.model.folder import check_expressed
from bothways.recipes.assembling import assemble, metrics, unfilled
from bothways.recipes.audit import find_audit
from bothways.recipes.carrying_out import Say, Trained, claim, deliver
from bothways.recipes.corpus import Opened, files_of, with_tokenizer
from bothways.recipes.gramming import LEXICON, prepare_lexicon
from bothways.recipes.pretraining import (
    Parts,
    check,
    chosen,
    machine_rate,
    pass_tokens,
    prepare_samples,
    prepare_shards,
    prepare_tokenizer,
    remember_corpus,
    set_up,
)
from bothways.recipes.runs import FREE, Pretraining, Stage, Staged
from bothways.recipes.word_vectors import prepare_word_vectors
from bothways.training import checkpoint, log, record
from bothways.training.averaging import average as averages
from bothways.training.loop import Beginning, Result, finished, train
from bothways.training.record import Record
from bothways.training.report import figure
from bothways.training.sections import Table
from bothways.training.team import team
from bothways.training.trainable import State


@dataclass(frozen=True)
class Before:
    """What the stages so far leave to the next.

    Attributes:
        checkpoint: the last of the stage before.
        averaged: the checkpoints whose mean are the weights it ended with, mostly that one alone.
        steps: of all stages.
        read: where each text has been read to, by its config.
    """

    checkpoint: Path | None = None
    averaged: tuple[Path, ...] = ()
    steps: int = 0
    read: tuple[tuple[str, State | None], ...] = ()

    def after(self, folder: Path, run: Pretraining, average: int | None) -> Before:
        """The same, with a stage that is finished."""
        *_, last = saved = checkpoint.complete(folder)
        position = checkpoint.position(last)
        read = (*self.read, (to_json(run.source), position.stream))
        return Before(last, tuple(saved[-(average or 1) :]), self.steps + position.step, read)

    def give(self, module: nn.Module) -> None:
        """The weights that the stages so far ended with, to a module in place."""
        if len(self.averaged) > 1:
            averages(self.averaged, module)
        elif self.checkpoint:
            checkpoint.load_weights(self.checkpoint, module)

    def state(self, run: Pretraining) -> State | None:
        """Where the run's text has been read to; None where it is new."""
        return dict(self.read).get(to_json(run.source))


def pretrain_stages(
    run: Staged, folder: Path, say: Say = lambda line: None, command: str = "", device: str | None = None
) -> Trained:
    """Carry out all stages of a run in `folder`, or go on with them: `model/` is the result, `report.html` the account.

    Args, errors: as `pretrain`'s.
    """
    check_stages(run)
    claim(run, folder)
    with team().in_turn():
        remember_corpus(run.base, folder)
        tokenizer = prepare_tokenizer(run.base, folder, say)
        corpora = _corpora(run, folder, tokenizer, say)
        _record(run, folder)
        # of the text of all stages, whose n-grams are the same
        ngrams = run.base.ngrams
        lexicon = None if ngrams is None else prepare_lexicon(ngrams.lexicon, folder, tokenizer, sum(corpora, ()), say)
    with torch.device("meta"):  # before hours of training rather than after; what other stages train is not saved
        final = unfilled(run.runs[-1], replace(Vocabulary.of(tokenizer), lexicon=lexicon))
        check_expressed(assemble(run.runs[-1], tokenizer, final)[0])
    before: Before = Before()
    parts: Parts | None = None
    rate: float | None = None
    for number, (stage, one) in enumerate(zip(run.stages, run.runs, strict=True)):
        place, last = folder / run.folders[number], number == len(run.stages) - 1
        if last or not finished(place, say):
            say(f"stage {number + 1} of {len(run.stages)}: {stage.name}")
            # what is before it gives the weights
            fresh = one if number == 0 else replace(one, start=None, embeddings=None)
            with team().in_turn():
                vectors = prepare_word_vectors(fresh, folder, tokenizer, corpora[number], say)
            parts = set_up(fresh, tokenizer, corpora[number], chosen(device), say, lexicon, vectors)
            rate = rate or machine_rate(parts)
            _stage(one, place, parts, before, stage.moments == "kept", rate)
        before = before.after(place, one, stage.average)
    assert parts is not None, "the last stage is always set up"
    result, notes = _whole(folder, before), ["Epochs: how often the stage read its text."]
    if len(before.averaged) > 1 and team().first:
        result = replace(result, evaluation=_measured(before, parts, run.runs[-1]))
        notes.append(f"The model is the mean of its last {len(before.averaged)} checkpoints: {result.evaluation}.")
        say(notes[-1])
    parts.finish()
    return deliver(
        result, parts.model, folder,
        title=f"Pretraining {run.base.family} in {len(run.stages)} stages", command=command,
        metrics=metrics(parts.objective), say=say,
        extra=[_table(run, folder, corpora, tokenizer, notes)],
        audit=find_audit([file for one in run.runs for file in files_of(one.source)]), beside=parts.beside,
    )  # fmt: skip


def check_stages(run: Staged) -> None:
    """Refuse, before anything is trained, what a later stage could not do.

    Raises:
        InputError: a stage that contradicts itself, or whose weights have other shapes; names given twice; another seed;
            moments kept for another optimizer; a text that is not there.
    """
    if run.base.general is not None:
        raise InputError("general: what is forgotten is told of a run of one stage; leave it out")
    shapes = _shapes(run.base.encoder)
    names = [stage.name for stage in run.stages]
    if len(set(names)) < len(names):
        raise InputError(f"stages: a name is given twice among {', '.join(names)}")
    previous = run.base
    for number, (stage, one) in enumerate(zip(run.stages, run.runs, strict=True)):
        where = f"stages.{number} ({stage.name})"
        try:
            check(one)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        for name, shape in _shapes(one.encoder).items():
            if shapes.get(name) != shape:
                raise InputError(
                    f"{where}: {name} has the shape {shape}, in the stages before {shapes.get(name, 'it is absent')}"
                )
        if one.training.seed != run.base.training.seed:
            raise InputError(f"{where}: training.seed differs; all stages have one seed, since it decides what is held out")
        if stage.moments == "kept" and (number == 0 or one.training.optimizer.type != previous.training.optimizer.type):
            raise InputError(f"{where}: moments: there are none of this optimizer to keep; set it to fresh")
        if (stage.average or 1) > one.training.keep:
            kept = f"training.keep leaves {one.training.keep} checkpoints"
            raise InputError(f"{where}: average is of {stage.average}, but {kept}; raise keep")
        files_of(one.source)
        previous = one


def override_run(run: Pretraining | Staged, assignments: Sequence[str]) -> Pretraining | Staged:
    """`override`, where a path of a stage's own fields changes the base of a run, and every stage that says otherwise.

    `max_length=64` is of all stages; `stages.1.max_length=64` of the second and those behind it that say nothing.

    Raises:
        InputError: as `override`.
    """
    if isinstance(run, Pretraining):
        return override(run, assignments)
    spread: list[str] = []
    for one in assignments:
        field = one.split(".")[0].split("=")[0].strip()
        if field in ("base", "stages"):
            spread.append(one)
            continue
        spread.append(f"base.{one}")
        spread += [f"stages.{i}.{one}" for i, stage in enumerate(run.stages) if getattr(stage, field, None) is not None]
    return override(run, spread)


def read_with(run: Pretraining | Staged, tokenizer: Path) -> Pretraining | Staged:
    """The run, in all its stages, with a tokenizer that exists."""
    if isinstance(run, Pretraining):
        return with_tokenizer(run, tokenizer)
    base = with_tokenizer(run.base, tokenizer)

    def sized(stage: Stage) -> Stage:
        size = base.encoder.vocab_size
        return stage if stage.encoder is None else replace(stage, encoder=replace(stage.encoder, vocab_size=size))

    return replace(run, base=base, stages=tuple(map(sized, run.stages)))


def _stage(run: Pretraining, folder: Path, parts: Parts, before: Before, kept: bool, rate: float) -> None:
    """Train one stage in its folder, or go on with it."""
    before.give(parts.objective)
    state = before.state(run)
    stream = None if state is None else parts.loader.after(state)
    train(
        parts.objective, parts.opener(run, folder, stream), run.training, folder,
        device=str(parts.model.device), run=to_json(run), free=FREE, watch=parts.watch(run, rate), groups=parts.groups(run),
        beginning=Beginning(
            steps=before.steps,
            stream=stream,
            moments=before.checkpoint if kept else None,
        ),
    )  # fmt: skip


def _corpora(run: Staged, folder: Path, tokenizer: Tokenizer, say: Say) -> list[tuple[Opened, ...]]:
    """The shards of every stage, those of one text once; all before the first step, so that a bad line is told of in time."""
    made: dict[str, tuple[Opened, ...]] = {}
    for one, name in zip((run.base, *run.runs), ("", *run.folders), strict=True):
        if to_json(one.source) in made:
            continue
        if name:
            remember_corpus(one, folder / name)
        made[to_json(one.source)] = prepare_shards(one, folder / name, tokenizer, say)
    return [made[to_json(one.source)] for one in run.runs]


def _record(run: Staged, folder: Path) -> None:
    if record.read(folder) is None:
        # counted in one text alone, by a run of one stage that was stopped before it was recorded
        (folder / LEXICON).unlink(missing_ok=True)
        tree = json.loads(to_json(run))
        record.write(folder, Record(tree, record.fingerprint(tree, run.free), budget=None, parameters=(), stages=run.folders))


def _measured(before: Before, parts: Parts, run: Pretraining) -> dict[str, float | None]:
    """Held-out figures of the mean of checkpoints, with which the model is left."""
    before.give(parts.objective)
    parts.objective.eval()
    look = parts.watch(run, 0.0).evaluate
    with torch.no_grad():
        return {name: round(value, 6) for name, value in (look() if look else {}).items()}


def _whole(folder: Path, before: Before) -> Result:
    """The last stage's result, with the steps, tokens and seconds of all."""
    lines = {line["kind"]: line for line in log.read(folder)}
    train, evaluation = lines["train"], lines.get("evaluation", {}).get("metrics", {})
    assert before.checkpoint is not None, "all stages are finished"
    return Result(folder, before.checkpoint, train["step"], train["tokens"], train["seconds"], train["loss"], evaluation)


def _table(run: Staged, folder: Path, corpora: Sequence[tuple[Opened, ...]], tokenizer: Tokenizer, notes: Sequence[str]) -> Table:
    """What each stage did otherwise, how often it read its text, and what came of it."""
    rows = []
    for stage, one, name, opened in zip(run.stages, run.runs, run.folders, corpora, strict=True):
        lines = {line["kind"]: line for line in log.read(folder / name)}
        train, held = lines["train"], lines.get("evaluation", {}).get("metrics", {}).get("loss")
        epoch = pass_tokens(prepare_samples(one, tokenizer, opened, lambda line: None))
        figures = (train["step"], train["tokens"], f"{train['tokens'] / epoch:,.2f}", figure(train["loss"]), figure(held))
        rows.append((stage.name, one.max_length, one.masking.rates, f"{one.training.optimizer.lr:g}", *figures))
    columns = ("stage", "length", "masked", "highest rate", "steps", "tokens", "epochs", "loss", "held-out loss")
    return Table("Stages", columns, rows, note=" ".join(notes))


def _shapes(encoder: EncoderConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Encoder(encoder).state_dict().items()}
