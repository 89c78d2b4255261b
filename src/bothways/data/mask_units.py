"""The parts of a `Masking`: what is selected together (words, spans, n-grams), or by frequency; how much of a batch; when."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import numpy as np
from jaxtyping import Float64
from pydantic import Field, PositiveInt

from bothways.config import config

Share = Annotated[float, Field(ge=0.0, le=1.0)]

Replaced: TypeAlias = Literal["each_piece", "together"]
"""Whether each piece is hidden, replaced or kept on its own, or all that is selected together shares one fate; a random
token is drawn for each piece in both cases."""


@config
class PerBatch:
    """Tokens are drawn from all of a batch: masks then are a function of the seed, the epoch and the samples of the batch.

    Batches follow from the data, the batching and the seed, so this does not depend on workers, processes or interruptions.

    Attributes:
        rows: so many tokens in every batch, whatever the rate: the predicted rows have one shape. Fewer where the batch has
            no more, or (of whole words) where none is left that fits. None: the rate times the batch's tokens, rounded up
            (DistilBERT's code).
    """

    type: Literal["per_batch"] = "per_batch"
    rows: PositiveInt | None = None


@config
class RateLine:
    """A rate that moves in a straight line from `Masking.rate` to another, and stays there.

    It is a function of the tokens of the stream before a batch, which follow from the position in the stream (epoch, window,
    batch): so it does not depend on workers or processes, and goes on exactly after an interruption. All samples of a batch
    have one rate. Held-out text is masked with `Masking.rate`, or with the run's `held_out_rate`.

    Attributes:
        tokens: within so many. None: within the budget of the run (or of the stage); of hours, as soon as they have been turned
            into tokens.
    """

    type: Literal["line"] = "line"
    to: Share
    tokens: PositiveInt | None = None


@config
class WholeWords:
    """Words with all their pieces (the whole-word option of BERT's code). They are counted in pieces: a word for which there
    is no more room is passed over, so that the count is exact wherever a shorter word is left."""

    type: Literal["whole_words"] = "whole_words"
    replaced: Replaced = "each_piece"


@config
class Spans:
    """Spans of whole words (SpanBERT, arXiv 1907.10529), which begin at the word of any token not yet selected.

    A span may run on into one that was selected before. The last is cut where the count is reached, between two words (the
    published code cuts within one).

    Attributes:
        p: a span has n words with a chance in proportion to (1 - p) ** (n - 1).
        longest: the most words of a span. Spans of p 0.2 and at most 10 words have 3.8 on average.
    """

    type: Literal["spans"] = "spans"
    p: Annotated[float, Field(gt=0, lt=1)] = 0.2
    longest: PositiveInt = 10
    replaced: Replaced = "together"

    @property
    def chances(self) -> Float64[np.ndarray, " longest"]:
        """Of the lengths 1, 2, ... words."""
        raw = (1 - self.p) ** np.arange(self.longest)
        return raw / raw.sum()


@config
class NGrams:
    """One to `longest` whole words in a row; n of them with a chance in proportion to 1 / n (ALBERT, arXiv 1909.11942).

    One that would have a word of another is not taken, one for which there is no more room is shortened.
    """

    type: Literal["n_grams"] = "n_grams"
    longest: PositiveInt = 3
    replaced: Replaced = "each_piece"

    @property
    def chances(self) -> Float64[np.ndarray, " longest"]:
        """Of the lengths 1, 2, ... words."""
        raw = 1 / np.arange(1, self.longest + 1)
        return raw / raw.sum()


@config
class Windows:
    """One n-gram, as of `NGrams`, in each window of int(1 / rate) words for each of its words (DeBERTa's code).

    Windows follow each other from a sample's beginning until the count is reached. As published: with a rate of 15 % a
    window has 6 words, of which one is more than 15 %, so that the last tenth or so of a sample is never selected.

    Attributes:
        whole_words: else every token is a word. DeBERTa-v3 takes one token of each six.
    """

    type: Literal["windows"] = "windows"
    longest: PositiveInt = 3
    whole_words: bool = True
    replaced: Replaced = "each_piece"

    @property
    def chances(self) -> Float64[np.ndarray, " longest"]:
        """Of the lengths 1, 2, ... words."""
        return NGrams(longest=self.longest).chances


@config
class ByFrequency:
    """Single tokens, drawn one after the other with chances in proportion to how often they occur to the power of -`power`.

    DistilBERT's rule (its code; arXiv 1910.01108), which draws from a whole batch: `count` of `PerBatch` does so too.
    """

    type: Literal["by_frequency"] = "by_frequency"
    power: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.7


WordUnits: TypeAlias = WholeWords | Spans | NGrams | Windows
Units: TypeAlias = Annotated[WordUnits | ByFrequency, Field(discriminator="type")]
