"""The text of a run, whatever it is made of: token folders opened or written, samples, their order, what is held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from bothways.config import from_json
from bothways.data.added_tokens import with_tokens
from bothways.data.curation.finish import AUDIT
from bothways.data.curation.pages import HTML_SUFFIXES, WARC_SUFFIXES
from bothways.data.curation.sources import paths_of
from bothways.data.mixture import Corpus, Joined, Mixture, Part, TokenFolder, mixed
from bothways.data.order import Order, Shuffled
from bothways.data.packing import Plan, TokenBudget
from bothways.data.rows import TABLE_KINDS
from bothways.data.sample import Samples
from bothways.data.sentence_blocks import SentenceBlocks, WholeSentences
from bothways.data.sentence_pairs import NextSentence, PairData, SentenceOrder
from bothways.data.shard_writer import write_shards
from bothways.data.shards import MANIFEST, Manifest, Shards
from bothways.data.source import TEXT_SUFFIXES, Column, TextFiles, list_source, open_source, read_documents
from bothways.data.tally import Tally, tally
from bothways.data.token_data import TokenData, hold_out, of_length
from bothways.data.tokenizer import Tokenizer
from bothways.data.warmup import LengthWarmup, Shortened, growing
from bothways.errors import InputError
from bothways.model.folder import resolve
from bothways.recipes.carrying_out import Say
from bothways.recipes.runs import ByLength, GivenTokenizer, Pretraining

# Tokens held out below which a loss says little: 15 in 100 of them are predicted
_FEW = 2_000
SourceData: TypeAlias = TokenData | SentenceBlocks | PairData
"""The samples of one source."""


@dataclass(frozen=True, eq=False)
class Opened:
    """One source of a run, tokenised.

    Attributes:
        documents: the numbers of those that the run asks for.
    """

    name: str
    weight: float
    shards: Shards
    documents: Int[np.ndarray, " chosen"]


@dataclass(frozen=True, eq=False)
class Text:
    """What a run learns from and is measured on, as loaders take them.

    Attributes:
        order, heldout_order: None: all samples of one source.
        names: of the sources.
        overlapping: whether one document may be of several of them.
    """

    data: Samples
    order: Order | None
    heldout: Samples
    heldout_order: Order | None
    names: tuple[str, ...]
    weights: tuple[float, ...]
    parts: tuple[SourceData, ...]
    specials: int
    overlapping: bool = False

    def tally(self, plan: Plan, state: dict[str, int]) -> list[Tally]:
        """What was taken of each source up to a state of the plan's stream."""
        return tally(plan, state, self._sources, self.names, self.weights, self.parts, self.specials)

    def _sources(self, numbers: Int[np.ndarray, " samples"]) -> Int[np.ndarray, " samples"]:
        whole = self.data.whole(numbers) if isinstance(self.data, Shortened) else numbers
        return np.searchsorted(np.cumsum([len(part) for part in self.parts]), whole, side="right")


@dataclass(frozen=True)
class Found:
    """What was found at a path; and, where its text is tokenised, the tokenizer of it."""

    source: TextFiles | Column | TokenFolder | Mixture
    tokenizer: Path | None


def open_text(path: Path, column: str = "text") -> Found:
    """The corpus at a path: text, a table, a folder of token shards or of curated documents, or a mixture written as JSON.

    Raises:
        InputError: nothing there, or nothing that can be read.
    """
    source: TextFiles | Column | TokenFolder | Mixture
    if (path / MANIFEST).is_file() and (path / AUDIT).is_file():  # by `bothways curate`, which has a manifest, too
        source = open_source(path / "data", column)
    elif (path / MANIFEST).is_file():
        source = TokenFolder(folder=str(path))
    elif path.suffix == ".json" and path.is_file():
        source = from_json(Mixture, path.read_text(encoding="utf-8"), str(path))
    else:
        source = open_source(path, column)
    folders = [Path(part.source.folder) for part in parts_of(source) if isinstance(part.source, TokenFolder)]
    return Found(source, next((folder / "tokenizer" for folder in folders if (folder / "tokenizer").is_dir()), None))


def given(tokenizer: GivenTokenizer) -> Tokenizer:
    """The tokenizer of a run that is given one, with the tokens that are added to it."""
    return with_tokens(Tokenizer.load(resolve(tokenizer.folder)), tokenizer.added or ())


def with_tokenizer(run: Pretraining, folder: Path) -> Pretraining:
    """The run with a tokenizer that exists, and a vocabulary that has room for it in whole multiples of 64."""
    size = -(-Tokenizer.load(folder).vocab_size // 64) * 64
    return replace(run, tokenizer=GivenTokenizer(folder=str(folder)), encoder=replace(run.encoder, vocab_size=size))


def describe(source: Corpus) -> Iterator[str]:
    """A line for each source: its files and those left out, or its documents and tokens; and what reads what is left out."""
    for part in parts_of(source):
        name = f"{part.name}: " if isinstance(source, Mixture) else ""
        if not isinstance(part.source, TokenFolder):
            listing = list_source(part.source)
            yield f"{name or ', '.join(paths_of(part.source)) + ': '}{listing}"
            if other := sorted(set(listing.skipped) & {*TEXT_SUFFIXES, *TABLE_KINDS, *HTML_SUFFIXES, *WARC_SUFFIXES}):
                yield f"{' '.join(other)}: `bothways curate` reads these together with the rest, into a corpus of one kind"
            continue
        (path,) = _files(part.source)
        manifest = from_json(Manifest, path.read_text(encoding="utf-8"), str(path))
        yield f"{name}{manifest.documents:,} documents, {manifest.tokens:,} tokens"


def parts_of(source: Corpus) -> tuple[Part, ...]:
    """The sources of a run: those of a mixture, or the one."""
    return source.parts if isinstance(source, Mixture) else (Part(name="corpus", weight=1.0, source=source),)


def files_of(source: Corpus) -> list[Path]:
    """The files that a run's text is read from; of token folders, the manifest.

    Raises:
        InputError: there are none.
    """
    return [file for part in parts_of(source) for file in _files(part.source)]


def texts_of(source: Corpus) -> Iterator[str]:
    """All raw text, source after source, to train a tokenizer on.

    Raises:
        InputError: a source that is tokenised already.
    """
    for part in parts_of(source):
        if isinstance(part.source, TokenFolder):
            raise InputError(f"{part.source.folder}: is tokenised already; give its tokenizer: {part.source.folder}/tokenizer")
        for document in read_documents(part.source):
            yield document.text


def open_corpus(source: Corpus, folder: Path, tokenizer: Tokenizer, say: Say) -> tuple[Opened, ...]:
    """The sources of a run as token shards; raw text is tokenised once, into `folder`."""
    mixture, known = isinstance(source, Mixture), dict[Path, Shards]()
    opened = []
    for part in parts_of(source):
        if isinstance(part.source, TokenFolder):
            place = Path(part.source.folder)
        else:
            place = folder / part.name if mixture else folder
            if not (place / MANIFEST).exists():
                say(f"tokenising {part.name}" if mixture else "tokenising the corpus")
                write_shards(read_documents(part.source), tokenizer, place)
        shards = known.setdefault(place, known.get(place) or Shards(place, tokenizer))
        opened.append(Opened(part.name, part.weight, shards, _chosen(part.source, shards, say)))
    return tuple(opened)


def by_length(opened: Sequence[Opened], lengths: Sequence[ByLength]) -> tuple[Opened, ...]:
    """A corpus divided into its documents of so many tokens and more, each with its share of the tokens.

    Raises:
        InputError: a mixture, whose parts have shares already; no document is as long.
    """
    if len(opened) > 1:
        raise InputError("by_length: the text is a mixture already; give its parts at_least, or leave by_length out")
    (whole,) = opened
    tokens = whole.shards.lengths[whole.documents]
    parts = []
    for one in lengths:
        chosen = whole.documents[tokens >= one.at_least]
        if not len(chosen):
            raise InputError(
                f"by_length: no document has {one.at_least:,} tokens, the longest has {int(tokens.max()):,}; "
                "give longer ones, or lower at_least"
            )
        parts.append(replace(whole, name=f"at-least-{one.at_least}", weight=one.weight, documents=chosen))
    return tuple(parts)


def samples_of(
    opened: Sequence[Opened],
    tokenizer: Tokenizer,
    max_length: int,
    held_out: float,
    seed: int,
    batching: TokenBudget,
    warmup: LengthWarmup | None,
    say: Say,
    made: NextSentence | SentenceOrder | WholeSentences | None = None,
) -> Text:
    """Cut opened sources into samples, with a part of each held out.

    A document is on one side in all of a mixture's parts that are chosen from one folder.

    Args:
        made: as of `samples`; of pairs, one copy of those held out.

    Raises:
        InputError: a source whose documents cannot be divided, or too little text.
    """
    paired = isinstance(made, NextSentence | SentenceOrder)
    copies = made.copies if paired else 1
    if made is not None:
        say(f"making pairs of the text, {copies} times over" if paired else "gathering whole sentences")
    training, heldout, measured = list[SourceData](), list[SourceData](), list[float]()
    for one in opened:
        kept, held = (np.intersect1d(side, one.documents) for side in hold_out(len(one.shards.lengths), held_out, seed))
        training.append(samples(one.shards, tokenizer, max_length, kept, made, seed, copies))
        tokens = 0
        if one.shards.lengths[held].sum():
            heldout.append(samples(one.shards, tokenizer, max_length, held, made, seed, 1))
            measured.append(one.weight)
            tokens = int(heldout[-1].lengths.sum())
        share = tokens / (tokens + int(training[-1].lengths.sum(dtype=np.int64)) / copies)
        where = f"{one.name}: " if len(opened) > 1 else ""
        few = (
            f"; few to judge by, hold out more: --set held_out={min(5 * held_out, 0.5):g}"
            if tokens < _FEW and held_out < 0.5
            else ""
        )
        say(f"{where}{len(held):,} of {len(one.documents):,} documents held out, {tokens:,} tokens ({share:.1%}){few}")
    if not heldout:
        raise InputError("no text in the documents held out to measure on; give more, or raise held_out")
    weights = tuple(one.weight for one in opened)
    data, order = _together(training, weights, batching)
    measure, measure_order = _together(heldout, measured, batching)
    if warmup is not None:
        if warmup.stages[-1].max_length >= max_length:
            raise InputError(f"length_warmup: a limit of {warmup.stages[-1].max_length} is not below max_length {max_length}")
        data, order = growing(warmup, order or Shuffled(np.asarray(data.lengths)), data, tokenizer)
    specials = tokenizer.specials_per_pair if paired else tokenizer.specials_per_sequence
    names = tuple(one.name for one in opened)
    folders = {one.shards.folder for one in opened}
    return Text(
        data, order, measure, measure_order, names, weights, tuple(training), specials, overlapping=len(folders) < len(opened)
    )


def samples(
    shards: Shards,
    tokenizer: Tokenizer,
    max_length: int,
    documents: Int[np.ndarray, " chosen"],
    made: NextSentence | SentenceOrder | WholeSentences | None,
    seed: int = 0,
    copies: int = 1,
) -> SourceData:
    """The samples of some documents.

    Args:
        made: what they are made of: pairs, so many copies of them drawn by the seed, or whole sentences; None: stretches.

    Raises:
        InputError: too little text, or as the class.
    """
    match made:
        case None:
            return TokenData(shards, tokenizer, max_length, documents)
        case WholeSentences():
            return SentenceBlocks(shards, tokenizer, max_length, documents, made)
        case _:
            return PairData(shards, tokenizer, max_length, documents, made, seed, copies)


def _together(parts: Sequence[SourceData], weights: Sequence[float], batching: TokenBudget) -> tuple[Samples, Order | None]:
    if len(parts) == 1:
        return parts[0], None
    return Joined(parts), mixed(parts, weights, batching)


def _files(source: TextFiles | Column | TokenFolder) -> list[Path]:
    if not isinstance(source, TokenFolder):
        return list(list_source(source).files)
    manifest = Path(source.folder) / MANIFEST
    if not manifest.is_file():
        raise InputError(f"{source.folder}: no tokenised text (no {MANIFEST}); make it with `bothways tokenize`")
    return [manifest]


def _chosen(source: TextFiles | Column | TokenFolder, shards: Shards, say: Say) -> Int[np.ndarray, " chosen"]:
    if not isinstance(source, TokenFolder) or (source.at_least == 0 and source.at_most is None):
        return np.arange(len(shards.lengths))
    chosen = of_length(shards.lengths, source.at_least, source.at_most)
    bounds = (
        f"{source.at_least:,} tokens or more" if source.at_most is None else f"{source.at_least:,} to {source.at_most:,} tokens"
    )
    if not len(chosen):
        raise InputError(f"{source.folder}: no document has {bounds}; the longest has {int(shards.lengths.max()):,}")
    share = shards.lengths[chosen].sum() / shards.lengths.sum()
    say(f"{source.folder}: {len(chosen):,} of {len(shards.lengths):,} documents have {bounds}, {share:.1%} of the tokens")
    return chosen
