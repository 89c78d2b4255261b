"""Documents of one domain, chosen by a classifier that was distilled from a few hundred labels (RexBERT's way, arXiv 2602.04605).

Labels make a classifier, its threshold is set for a wanted precision or recall, and how well it does is measured on labels that
neither saw. Training is in `domain_training`; what it leaves, a JSON file and one of numbers, is all that choosing needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from bothways.config import config, from_json, to_json
from bothways.data.curation.domain_features import Features, score
from bothways.data.curation.step import Verdict
from bothways.errors import InputError
from bothways.files import replace_together

NAME, WEIGHTS = "domain.json", "domain.safetensors"
Probability = Annotated[float, Field(ge=0, le=1)]
Wanted = Annotated[float, Field(gt=0, le=1)]


@config
class LeastPrecision:
    """At least this share of what is chosen is to be wanted; of the thresholds that reach it, the one of the highest recall."""

    type: Literal["precision"] = "precision"
    least: Wanted = 0.9


@config
class LeastRecall:
    """At least this share of what is wanted is chosen; of the thresholds that reach it, the one of the highest precision."""

    type: Literal["recall"] = "recall"
    least: Wanted = 0.9


@config
class DomainTraining:
    """How a classifier is made of labelled texts.

    Attributes:
        wanted: the labels of the domain; all others are outside it.
        aim: what the threshold is set for, by cross-validated scores of the rows that are learned from.
        held_out: the share of labelled texts that is only measured on; chosen by a hash of the texts, whatever their order.
        strength: how closely the rows are followed, the inverse of the weights' penalty.
    """

    wanted: Annotated[tuple[str, ...], Field(min_length=1)]
    aim: Annotated[LeastPrecision | LeastRecall, Field(discriminator="type")] = LeastPrecision()
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.3
    strength: PositiveFloat = 30.0
    features: Features = Features()


@config
class Share:
    """`part` of `whole`, and Wilson's 95 % interval; all None where the whole is nothing."""

    part: NonNegativeInt
    whole: NonNegativeInt
    value: Probability | None
    low: Probability | None
    high: Probability | None

    def __str__(self) -> str:
        if self.value is None:
            return "of nothing"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}; {self.part} of {self.whole})"


@config
class Scores:
    """How well a threshold chooses: of what is chosen how much is wanted, of what is wanted how much is chosen."""

    rows: PositiveInt
    precision: Share
    recall: Share


@config
class DomainFile:
    """What is saved beside the weights.

    Attributes:
        labels: rows of each label, after those that repeat another's text were left out (`repeated`).
        cross_validated: on the rows that were learned from, each scored by a classifier that did not see it.
        held_out: on rows that neither the classifier nor the threshold saw.
        sha256: of the weights' file.
    """

    format: Literal[1] = 1
    training: DomainTraining
    labels: dict[str, int]
    repeated: NonNegativeInt
    threshold: Probability
    bias: float
    cross_validated: Scores
    held_out: Scores
    sha256: str = ""


@dataclass(frozen=True, eq=False)
class Domain:
    """A classifier of texts: in the domain where `score` is at least `file.threshold`."""

    file: DomainFile
    weights: Float32[np.ndarray, " bins"]

    def score(self, text: str) -> float:
        """The probability that a text belongs to the domain."""
        return score(text, self.file.training.features, self.weights, self.file.bias)

    def save(self, folder: Path) -> None:
        """Write `domain.json` and `domain.safetensors`. Raises InputError where they cannot be written."""
        from safetensors.numpy import save

        data = save({"weights": self.weights})
        file = replace(self.file, sha256=hashlib.sha256(data).hexdigest())
        writers = {folder / WEIGHTS: lambda at: at.write_bytes(data), folder / NAME: lambda at: at.write_text(to_json(file))}
        replace_together(writers, key=folder / NAME)

    @staticmethod
    def load(folder: Path) -> Domain:
        """Read what `save` wrote.

        Raises:
            InputError: a file is missing, or its weights are not those it was saved with.
        """
        from safetensors.numpy import load

        for name in (NAME, WEIGHTS):
            if not (folder / name).is_file():
                raise InputError(f"{folder / name}: no such file; `bothways domain train` writes it")
        file = from_json(DomainFile, (folder / NAME).read_text(encoding="utf-8"), str(folder / NAME))
        data = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise InputError(f"{folder / WEIGHTS}: not the weights that {NAME} was saved with; train the domain again")
        return Domain(file, load(data)["weights"])


@config
class DomainSelection:
    """Keep documents of a domain.

    Attributes:
        folder: what `bothways domain train` wrote.
        threshold: the least score; None takes the one that was chosen in training.
    """

    type: Literal["domain"] = "domain"
    folder: str
    threshold: Probability | None = None

    def files(self) -> tuple[Path, ...]:
        return tuple(Path(self.folder) / name for name in (NAME, WEIGHTS))

    def open(self) -> Selector:
        return Selector(self)


@dataclass(eq=False)
class Selector:
    """`DomainSelection` at work."""

    settings: DomainSelection
    _domain: Domain = field(init=False)
    _threshold: float = field(init=False)

    def __post_init__(self) -> None:
        self._domain = Domain.load(Path(self.settings.folder))
        given = self.settings.threshold
        self._threshold = self._domain.file.threshold if given is None else given

    @property
    def facts(self) -> Mapping[str, Any]:
        """The threshold; and, where it is the one chosen in training, precision and recall on held-out labels."""
        file = self._domain.file
        known = {"wanted": list(file.training.wanted), "labels": dict(file.labels), "threshold": self._threshold}
        if self._threshold != file.threshold:
            return known
        held_out = {"rows": file.held_out.rows, "precision": str(file.held_out.precision), "recall": str(file.held_out.recall)}
        return known | {"held out": held_out}

    def __call__(self, text: str) -> Verdict:
        found = self._domain.score(text)
        tenth = min(int(found * 10), 9)
        counts = {f"score {tenth / 10:.1f} to {(tenth + 1) / 10:.1f}": 1}
        return Verdict(text, None, counts) if found >= self._threshold else Verdict(None, "outside the domain", counts)
