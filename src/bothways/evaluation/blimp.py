"""BLiMP (arXiv 1912.00582): does a masked language model find the grammatical sentence of a minimal pair likelier?"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bothways.errors import InputError
from bothways.evaluation.pseudo_likelihood import Scoring, pseudo_log_likelihoods
from bothways.evaluation.significance import Interval, bootstrap_shares
from bothways.evaluation.table import Table
from bothways.model.batching import Progress
from bothways.model.model import Model

# In nats. Sums of float32 log-probabilities in another order, or of another batch, differ by less; a model that knows only how
# often words occur must not win by rounding.
TIE = 1e-4
Kept: TypeAlias = Callable[[str, Callable[[], list[float]]], list[float]]
_KEYS = ("sentence_good", "sentence_bad", "UID", "field", "linguistics_term")


@dataclass(frozen=True)
class MinimalPairs:
    """A set of pairs that differ in one point of grammar; its phenomenon, and the field that belongs to."""

    name: str
    field: str
    phenomenon: str
    good: tuple[str, ...]
    bad: tuple[str, ...]

    def first(self, count: int | None) -> MinimalPairs:
        """The set's first pairs."""
        return MinimalPairs(self.name, self.field, self.phenomenon, self.good[:count], self.bad[:count])


@dataclass(frozen=True, eq=False)
class PairScores:
    """A set, and the score of each of its sentences, float64 [pairs]."""

    pairs: MinimalPairs
    good: np.ndarray
    bad: np.ndarray

    @property
    def right(self) -> int:
        """Pairs whose grammatical sentence scores higher; a tie is a failure."""
        return int((self.good - self.bad > TIE).sum())

    @property
    def ties(self) -> int:
        return int((np.abs(self.good - self.bad) <= TIE).sum())

    @property
    def count(self) -> int:
        return len(self.good)


@dataclass(frozen=True, eq=False)
class BlimpScores:
    """The scores of all sets; a share over several sets is the mean of theirs, so that each set weighs the same."""

    sets: tuple[PairScores, ...]
    scoring: Scoring

    @property
    def ties(self) -> int:
        return sum(one.ties for one in self.sets)

    @property
    def overall(self) -> Interval:
        return _share(self.sets)

    @property
    def fields(self) -> dict[str, Interval]:
        return self._by(lambda one: one.field)

    @property
    def phenomena(self) -> dict[str, Interval]:
        return self._by(lambda one: one.phenomenon)

    @property
    def by_set(self) -> dict[str, Interval]:
        return self._by(lambda one: one.name)

    def _by(self, name: Callable[[MinimalPairs], str]) -> dict[str, Interval]:
        names = sorted({name(one.pairs) for one in self.sets})
        return {key: _share([one for one in self.sets if name(one.pairs) == key]) for key in names}


def evaluate_blimp(
    model: Model,
    sets: Sequence[MinimalPairs],
    scoring: Scoring = "token",
    limit: int | None = None,
    progress: Progress | None = None,
    kept: Kept = lambda name, make: make(),
) -> BlimpScores:
    """Score every pair by pseudo-log-likelihood.

    Args:
        limit: read only the first pairs of each set.
        progress: told of each finished set: its sentences, and the tokens of all their masked copies.
        kept: gives a set's scores (the grammatical sentences' first) by its name, from wherever it keeps them, or has them made.

    Raises:
        InputError: as `pseudo_log_likelihoods`.
    """
    scored = []
    for whole in sets:
        pairs, read = whole.first(limit), _Tokens()

        def make(pairs: MinimalPairs = pairs, read: _Tokens = read) -> list[float]:
            return pseudo_log_likelihoods(model, [*pairs.good, *pairs.bad], scoring, progress=read).tolist()

        scores = np.array(kept(pairs.name, make))
        scored.append(PairScores(pairs, *np.split(scores, 2)))
        if progress is not None:
            progress(len(scores), read.count)
    return BlimpScores(tuple(scored), scoring)


def blimp_table(scores: BlimpScores, name: str) -> Table:
    """Per cent of pairs that are right, for each field, phenomenon and set, and overall."""
    groups = (("field", scores.fields), ("phenomenon", scores.phenomena), ("set", scores.by_set))
    found = [
        ("overall", "BLiMP", scores.overall),
        *((kind, key, share) for kind, group in groups for key, share in group.items()),
    ]
    rows = [(kind, key, 100 * share.mean, 100 * share.low, 100 * share.high) for kind, key, share in found]
    pairs = sum(one.count for one in scores.sets)
    how = {"token": "each token masked alone", "word_l2r": "each token masked with the rest of its word"}[scores.scoring]
    ties = f"{scores.ties:,} ties, which count as wrong"
    note = f"{pairs:,} pairs in {len(scores.sets)} sets, {how}; {ties}; 95 % intervals by bootstrap"
    return Table(f"BLiMP: {name}", ("of", "name", "per cent", "low", "high"), rows, note)


def read_blimp(path: str | Path) -> tuple[MinimalPairs, ...]:
    """Read minimal pairs: a folder of JSON lines, a file of them for each set, or a tar archive of such a folder.

    Raises:
        InputError: no such files, a line that is no pair, or a file with pairs of two sets.
    """
    path = Path(path)
    found = [_read_set(where, text) for where, text in _files(path)]
    if not found:
        raise InputError(f"{path}: no .jsonl file in it; BLiMP is a folder, or a tar archive, with one for each set")
    names = [one.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: the set '{twice[0]}' is in two files")
    return tuple(sorted(found, key=lambda one: one.name))


class _Tokens:
    """Counts what a batch tells of."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, sequences: int, tokens: int) -> None:
        self.count += tokens


def _share(sets: Sequence[PairScores]) -> Interval:
    return bootstrap_shares([(one.right, one.count) for one in sets])


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """The set files of a folder or an archive, with where each is."""
    if path.is_dir():
        for file in sorted(path.rglob("*.jsonl")):
            yield str(file), file.read_bytes()
        return
    if not path.is_file():
        raise InputError(f"{path}: nothing there; give BLiMP's folder, or its tar archive")
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                # "._NAME" are notes that macOS leaves in archives
                if member.isfile() and member.name.endswith(".jsonl") and not Path(member.name).name.startswith("._"):
                    content = archive.extractfile(member)
                    assert content is not None, "a file of an archive has contents"
                    yield f"{path}:{member.name}", content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a readable tar archive: {error}") from None


def _read_set(where: str, content: bytes) -> MinimalPairs:
    rows = [_pair(line, f"{where}:{number}") for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    kinds = {row[2:] for row in rows}
    if len(kinds) != 1:
        raise InputError(f"{where}: pairs of {len(kinds)} sets (UID, field, linguistics_term); a file holds those of one")
    name, field, phenomenon = rows[0][2:]
    # the published files spell one of the four fields in two ways
    field = field.replace("/", "_")
    return MinimalPairs(name, field, phenomenon, tuple(row[0] for row in rows), tuple(row[1] for row in rows))


def _pair(line: bytes, where: str) -> tuple[str, ...]:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON: {error}") from None
    fields: dict[str, Any] = row if isinstance(row, dict) else {}
    for key in _KEYS:
        if not isinstance(fields.get(key), str) or not fields[key]:
            raise InputError(f"{where}: no text '{key}'; a minimal pair has {', '.join(_KEYS)}")
    return tuple(fields[key] for key in _KEYS)
