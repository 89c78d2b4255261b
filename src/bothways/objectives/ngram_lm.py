"""Explicit n-gram masked language modelling: ERNIE-Gram's first two objectives (arXiv 2010.12148).

An n-gram is hidden behind one mask, so that the text is shorter, and predicted as one identity among tokens and n-grams. With
comprehensive prediction its tokens are predicted as well: by masks that stand beside the text, see it and themselves, and are
seen by nothing, so that neither each other nor the n-gram helps them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int, Num
from torch import Tensor

from bothways.config import config
from bothways.data.lexicon import CountedLexicon, LexiconSource
from bothways.data.masking import Masking
from bothways.data.ngram_masking import MaskedNGrams, check_ngram_masking, mask_ngrams
from bothways.data.sample import Epochs, Sample
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.encoder import Encoder
from bothways.encoder.extended import check_extended, encode_extended
from bothways.layers.heads import MaskedLm
from bothways.layers.ngrams import NGramTable
from bothways.layers.ranges import Positive
from bothways.objectives.objective import Objective
from bothways.ops.beside import Beside
from bothways.ragged import Batch, Ragged

_OF_PREDICTED: tuple[str, ...] = ("loss", "accuracy", "ngrams", "mask_token")
_OF_PIECES: tuple[str, ...] = ("fine", "fine_accuracy")
_OF_ALL: tuple[str, ...] = ("masked", "shortened")


@config
class ExplicitNGrams:
    """N-grams that are masked as one and predicted as one.

    Attributes:
        lexicon: which there are.
        fine: the weight of predicting their tokens as well, beside that of the n-grams, 1; None: they are not.
    """

    lexicon: LexiconSource = CountedLexicon()
    fine: Positive | None = 1.0


@dataclass(frozen=True, eq=False)
class NGramInputs:
    """A shortened batch and, where tokens of n-grams are predicted, masks for them beside it.

    Ids are of tokens, then n-grams, then the symbols of masks for tokens.

    Attributes:
        batch: each sequence, and behind it the masks that belong to it, at the positions of what they are of.
        beside: which tokens are of the sequence and which only look on; None: there are no masks for tokens.
        rows: of the masked n-grams and single tokens, ascending.
        labels: what they are.
        pieces: what stood at the masks for tokens, in their order.
        hidden: how many of `rows` show the mask token.
        ngrams: how many of `labels` are n-grams.
        tokens: of the text before it was shortened, which budgets count.
    """

    batch: Batch
    beside: Beside | None
    rows: Int[Tensor, " predicted"]
    labels: Int[Tensor, " predicted"]
    pieces: Int[Tensor, " pieces"]
    hidden: int
    ngrams: int
    tokens: int

    @property
    def text(self) -> Batch:
        """The shortened text alone."""
        if self.beside is None:
            return self.batch
        return replace(self.batch, ids=self.batch.ids[self.beside.seen.rows], ragged=self.beside.seen.ragged)

    @property
    def text_rows(self) -> Int[Tensor, " predicted"]:
        """`rows`, as numbers of `text`."""
        return self.rows if self.beside is None else torch.searchsorted(self.beside.seen.rows, self.rows)

    def showing(self, ids: Int[Tensor, " predicted"]) -> NGramInputs:
        """With other tokens or n-grams at `rows`."""
        return replace(self, batch=self.batch.with_ids(self.batch.ids.index_copy(0, self.rows, ids)))

    def to(self, device: torch.device | str) -> NGramInputs:
        return replace(
            self,
            batch=self.batch.to(device),
            beside=None if self.beside is None else self.beside.to(device),
            rows=self.rows.to(device),
            labels=self.labels.to(device),
            pieces=self.pieces.to(device),
        )


@dataclass(frozen=True)
class PrepareNGrams:
    """Packs samples and masks n-grams in them, each by (seed, epoch, its number).

    Attributes:
        first: the id of the first n-gram: the rows of the table of tokens.
        fine: whether there are masks for their tokens.

    Raises:
        InputError: as `check_ngram_masking`.
    """

    masking: Masking
    vocabulary: Vocabulary
    first: int
    fine: bool

    def __post_init__(self) -> None:
        check_ngram_masking(self.masking, self.vocabulary)

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> NGramInputs:
        whole = Batch.of([sample.sequences[0] for sample in samples], samples=[sample.id for sample in samples])
        lengths, numbers = np.array(whole.ragged.lengths, dtype=np.int64), np.array(whole.samples, dtype=np.int64)
        masked = mask_ngrams(self.masking, self.vocabulary, whole.ids.numpy(), lengths, numbers, seed, epoch, self.first)
        batch, beside, rows = _batch(masked.ids, masked.lengths, whole), None, masked.positions
        if self.fine:
            batch, beside, rows = self._packed(masked, whole)
        return NGramInputs(
            batch=batch,
            beside=beside,
            rows=torch.from_numpy(rows),
            labels=torch.from_numpy(masked.labels),
            pieces=torch.from_numpy(masked.pieces if self.fine else masked.pieces[:0]),
            hidden=int((masked.ids[masked.positions] == self.vocabulary.mask_id).sum()),
            ngrams=int((masked.labels >= self.first).sum()),
            tokens=whole.tokens,
        )

    def _packed(self, masked: MaskedNGrams, whole: Batch) -> tuple[Batch, Beside, Int[np.ndarray, " predicted"]]:
        """The batch with the masks for tokens behind each sequence, and the new rows of what is predicted."""
        assert self.vocabulary.lexicon is not None, "`check_ngram_masking` has been asked"
        owners = np.repeat(np.arange(len(masked.lengths)), masked.lengths)
        places = np.arange(len(owners)) - np.repeat(np.cumsum(masked.lengths) - masked.lengths, masked.lengths)
        of_pieces = np.repeat(masked.positions, masked.sizes)
        number = np.arange(len(of_pieces)) - np.repeat(np.cumsum(masked.sizes) - masked.sizes, masked.sizes)
        symbols = self.first + len(self.vocabulary.lexicon) + number
        # stable: of each sequence, its own tokens stay before the masks beside it
        order = np.argsort(np.concatenate((owners, owners[of_pieces])), kind="stable")
        asking = order >= len(owners)
        counts = np.bincount(owners[of_pieces], minlength=len(masked.lengths))
        batch = _batch(np.concatenate((masked.ids, symbols))[order], masked.lengths + counts, whole)
        positions = torch.from_numpy(np.concatenate((places, places[of_pieces]))[order])
        batch = replace(batch, ragged=replace(batch.ragged, positions=positions))
        return batch, Beside.of(asking, batch.ragged), np.flatnonzero(~asking)[masked.positions]


def _batch(ids: Int[np.ndarray, " tokens"], lengths: Int[np.ndarray, " sequences"], whole: Batch) -> Batch:
    return Batch(torch.from_numpy(ids), Ragged.of(lengths.tolist()), samples=whole.samples)


class NGramLanguageModeling(Objective[NGramInputs]):
    """Cross-entropy in nats of masked n-grams and single tokens, and of their tokens.

    Sums: `loss` and `accuracy` over what is masked, `fine` and `fine_accuracy` over its tokens; `ngrams` and `mask_token` (of
    what is masked, what are n-grams, and what shows the mask token); `masked` and `shortened` (masks, and tokens that there are
    no more, of all tokens of the text).

    Attributes:
        head: of tokens, which is saved with the model.
        ngrams: what it lacks of n-grams, which is not.
        names: of all sums.
    """

    names: tuple[str, ...] = (*_OF_PREDICTED, *_OF_PIECES, *_OF_ALL)

    def __init__(
        self, encoder: Encoder, head: MaskedLm, settings: ExplicitNGrams, masking: Masking, vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        tokens, fine = encoder.embedding.tokens.weight, settings.fine is not None
        check_extended(encoder.config, fine, "ngrams")
        self.prepare = PrepareNGrams(masking, vocabulary, len(tokens), fine)
        assert vocabulary.lexicon is not None, "`check_ngram_masking` has been asked"
        self.encoder = encoder
        self.head = head
        symbols = vocabulary.lexicon.longest if fine else 0
        self.ngrams = NGramTable(len(vocabulary.lexicon), tokens.shape[1], symbols, head.config.bias)
        self.weights: Mapping[str, float] = {"loss": 1.0} | ({} if settings.fine is None else {"fine": settings.fine})

    def counts(self, inputs: NGramInputs) -> dict[str, Num[Tensor, ""]]:
        predicted, pieces, tokens = (torch.tensor(one) for one in (len(inputs.labels), len(inputs.pieces), inputs.tokens))
        found = dict.fromkeys(_OF_PREDICTED, predicted) | dict.fromkeys(_OF_ALL, tokens)
        return found | (dict.fromkeys(_OF_PIECES, pieces) if "fine" in self.weights else {})

    def forward(self, inputs: NGramInputs) -> dict[str, Num[Tensor, ""]]:
        return self.read(self.encode(inputs), inputs)

    def encode(self, inputs: NGramInputs) -> Tensor:
        """The encoder's pass, [tokens, hidden_size]."""
        table = self.ngrams.table(self.encoder.embedding.tokens.weight)
        return encode_extended(self.encoder, inputs.batch, table, inputs.beside)

    def read(self, hidden: Tensor, inputs: NGramInputs) -> dict[str, Num[Tensor, ""]]:
        """The sums, of a batch that has been encoded."""
        tokens = self.encoder.embedding.tokens.weight
        loss, right = self.ngrams.loss(self.head, hidden[inputs.rows], tokens, inputs.labels)
        predicted = len(inputs.labels)
        sums = {
            "loss": loss,
            "accuracy": right,
            "ngrams": torch.tensor(inputs.ngrams),
            "mask_token": torch.tensor(inputs.hidden),
            "masked": torch.tensor(predicted),
            "shortened": torch.tensor(inputs.tokens - len(inputs.text.ids)),
        }
        if inputs.beside is None:
            return sums
        fine, fine_right = self.head.loss(hidden[inputs.beside.asking.rows], tokens, inputs.pieces)
        return sums | {"fine": fine, "fine_accuracy": fine_right}

    def flops(self, inputs: NGramInputs) -> float:
        """As if masks beside the text were a part of it."""
        tokens, predicted = self.encoder.embedding.tokens.weight, len(inputs.labels)
        heads = self.head.flops(predicted + len(inputs.pieces), tokens) + self.ngrams.flops(predicted)
        return self.encoder.flops(inputs.batch.ragged) + heads
