"""Replaced token detection: a small generator fills in masked tokens, and the model tells which tokens it changed.

ELECTRA (arXiv 2003.10555) and DeBERTa v3 (2111.09543). Both networks read one packed batch: the generator the masked text,
the discriminator the text itself with the generator's tokens at the masked places. No gradient passes from one to the other but
through tables that they share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn

from bothways.config import config
from bothways.data.hashing import draw, keys, uniform
from bothways.data.masking import Masking, Vocabulary
from bothways.data.sample import Epochs, Sample
from bothways.encoder.encoder import Encoder
from bothways.encoder.enhanced_mask_decoder import EnhancedMaskDecoder, MaskDecoderHead
from bothways.encoder.generator import Generator, Narrowed
from bothways.layers.heads import MaskedLm
from bothways.layers.ranges import Positive
from bothways.layers.replaced_token import ReplacedToken, ReplacedTokenHead
from bothways.layers.shifted import ShiftedEmbedding
from bothways.objectives.masked_lm import MaskedInputs, PrepareMasked
from bothways.objectives.objective import Objective
from bothways.objectives.sharing import Sharing, WholeEmbedding, share
from bothways.ops.cross_entropy import See
from bothways.ops.sampling import draw_tokens
from bothways.ragged import Batch

_OF_PREDICTED: tuple[str, ...] = ("generator", "generator_accuracy", "mask_token")
_OF_ALL: tuple[str, ...] = ("replaced", "discriminator_accuracy", "masked", "share_replaced", "share_flagged", "share_found")
# Tells the numbers that tokens are drawn by from those that places are chosen by
_DRAWN = 0x525444
# Between the numbers of a place that comes several times: no text is as long
_AGAIN = 1 << 40


@config
class ReplacedTokens:
    """How replaced tokens are made, and told.

    Attributes:
        generator: the network that fills in masked tokens; its masked-language head is the run's `head`.
        head: the discriminator's.
        sharing: what both networks have in common.
        weight: of the discriminator's loss beside the generator's, 50 in both papers (the released code of DeBERTa v3 has 10).
        temperature: the generator's logits are divided by it before a token is drawn.
        disallow_correct: a token is never replaced by itself.
        generator_lr: what the learning rate of all that the generator's loss alone moves is multiplied by.
        decoder: between the generator and its masked-language head: DeBERTa's enhanced mask decoder, or None: nothing.
        clipping: `apart`: gradients of all that the generator's loss alone moves are clipped by their own norm, and those of the
            discriminator by theirs, as of two trainers (DeBERTa v3's code). None: all by the norm of all.
        start: the folder or repository of a model whose weights the generator begins with; `generator`, `decoder` and the run's
            `head` are of that model's shapes. None: fresh weights.
    """

    generator: Generator = Narrowed()
    head: ReplacedTokenHead = ReplacedTokenHead()
    sharing: Sharing = WholeEmbedding()
    weight: Positive = 50.0
    temperature: Positive = 1.0
    disallow_correct: bool = False
    generator_lr: Positive = 1.0
    decoder: MaskDecoderHead | None = None
    clipping: Literal["apart"] | None = None
    start: str | None = None


@dataclass(frozen=True, eq=False)
class ReplacedInputs:
    """A masked batch, and for each predicted row the number in [0, 1) by which its token will be drawn, float32 [predicted]."""

    masked: MaskedInputs
    uniforms: Float[Tensor, " predicted"]

    @property
    def tokens(self) -> int:
        return self.masked.tokens

    @property
    def original(self) -> Int[Tensor, " tokens"]:
        """The text before it was masked."""
        return self.replaced(self.masked.labels)

    def replaced(self, tokens: Int[Tensor, " predicted"]) -> Int[Tensor, " tokens"]:
        """The text with these tokens at the predicted rows.

        A row that comes several times (`Masking.repeats`) gets the mean of its tokens' ids, rounded down: a token that has
        nothing to do with them, where they differ. ELECTRA's code does so, whatever its comment says (`scatter_update`).
        """
        ids, rows = self.masked.batch.ids, self.masked.rows
        times = torch.zeros_like(ids).index_add_(0, rows, torch.ones_like(tokens))
        total = torch.zeros_like(ids).index_add_(0, rows, tokens)
        return torch.where(times > 0, total // times.clamp(min=1), ids)

    def to(self, device: torch.device | str) -> ReplacedInputs:
        return replace(self, masked=self.masked.to(device), uniforms=self.uniforms.to(device))


@dataclass(frozen=True)
class PrepareReplaced:
    """Packs and masks samples, and draws a number for each masked token by (seed, epoch, sample, position).

    A position that comes several times has a number for each.
    """

    masked: PrepareMasked

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> ReplacedInputs:
        masked = self.masked(samples, seed, epoch)
        return ReplacedInputs(masked, numbers_to_draw_by(masked.batch, masked.rows, seed, epoch))


def numbers_to_draw_by(batch: Batch, rows: Int[Tensor, " predicted"], seed: int, epoch: Epochs) -> Float[Tensor, " predicted"]:
    """For each of these ascending rows a number in [0, 1), float32, by (seed, epoch, sample, position, times it came before)."""
    owners = keys(seed, epoch, _DRAWN, items=np.array(batch.samples, dtype=np.int64))
    places = rows.numpy()
    again = np.arange(len(places)) - np.searchsorted(places, places)
    drawn = draw(owners[batch.ragged.segments[rows].numpy()], batch.ragged.positions[rows].numpy() + again * _AGAIN)
    # 24 bits are what float32 holds exactly, so none becomes 1
    return torch.from_numpy((np.floor(uniform(drawn) * 2.0**24) * 2.0**-24).astype(np.float32))


class ReplacedTokenDetection(Objective[ReplacedInputs]):
    """Cross-entropy of the generator over masked tokens, and of the discriminator over all tokens, special ones included.

    Sums: the losses `generator` and `replaced` in nats; `generator_accuracy`, `masked` and `mask_token` as in masked language
    modelling; `discriminator_accuracy`; and, of all tokens, `share_replaced` (are another than the text's), `share_flagged` (are
    taken for one), `share_found` (both).

    Attributes:
        encoder: the discriminator, which is the model that is trained.
        names: of all sums.
    """

    names = (*_OF_PREDICTED, *_OF_ALL)

    def __init__(
        self,
        encoder: Encoder,
        head: ReplacedToken,
        generator: Encoder,
        generator_head: MaskedLm,
        settings: ReplacedTokens,
        masking: Masking,
        vocabulary: Vocabulary,
    ) -> None:
        super().__init__()
        share(settings.sharing, generator, encoder)
        self.encoder = encoder
        self.head = head
        self.generator = generator
        self.generator_head = generator_head
        self.decoder = EnhancedMaskDecoder(settings.decoder, generator.config) if settings.decoder else None
        self.settings = settings
        self.weights: Mapping[str, float] = {"generator": 1.0, "replaced": settings.weight}
        self.prepare = PrepareReplaced(PrepareMasked(masking, vocabulary))

    def counts(self, inputs: ReplacedInputs) -> dict[str, Num[Tensor, ""]]:
        predicted, tokens = torch.tensor(len(inputs.masked.labels)), torch.tensor(inputs.tokens)
        return dict.fromkeys(_OF_PREDICTED, predicted) | dict.fromkeys(_OF_ALL, tokens)

    def forward(self, inputs: ReplacedInputs) -> dict[str, Num[Tensor, ""]]:
        generated, drawn = self.generate(inputs)
        return generated | self.discriminate(inputs, drawn)

    def generate(self, inputs: ReplacedInputs) -> tuple[dict[str, Num[Tensor, ""]], Int[Tensor, " predicted"]]:
        """The generator's sums, and the token it draws for each predicted row."""
        masked = inputs.masked
        see, drawn = drawing(self.settings, masked.labels, inputs.uniforms)
        encoded, table = self.generator(masked.batch, keep=self.decoder is not None), self.generator.embedding.tokens.weight
        hidden = encoded.hidden if self.decoder is None else self.decoder(self.generator, encoded)
        loss, right = self.generator_head.loss(hidden[masked.rows], table, masked.labels, see)
        count, hidden_tokens = torch.tensor(len(masked.labels)), torch.tensor(masked.hidden)
        return {"generator": loss, "generator_accuracy": right, "masked": count, "mask_token": hidden_tokens}, drawn

    def discriminate(self, inputs: ReplacedInputs, drawn: Int[Tensor, " predicted"]) -> dict[str, Num[Tensor, ""]]:
        """The discriminator's sums on the text with these tokens at the predicted rows."""
        batch = inputs.masked.batch.with_ids(inputs.replaced(drawn))
        encoded = self.encoder(batch)
        return told_apart(self.head(encoded.hidden, encoded.ragged), batch.ids != inputs.original)

    def of_generator(self) -> frozenset[nn.Parameter]:
        """The parameters that the generator's loss alone moves: its own, and the bases of shifted tables."""
        return generators_own((self.encoder,), (self.generator, self.on_generator))

    @property
    def on_generator(self) -> nn.Module:
        """What stands on the generator."""
        return self.generator_head if self.decoder is None else nn.ModuleList([self.generator_head, self.decoder])

    def flops(self, inputs: ReplacedInputs) -> float:
        ragged, table = inputs.masked.batch.ragged, self.generator.embedding.tokens.weight
        of_generator = self.generator.flops(ragged) + self.generator_head.flops(len(inputs.masked.labels), table)
        of_generator += self.decoder.flops(self.generator, ragged) if self.decoder else 0.0
        return of_generator + self.encoder.flops(ragged) + self.head.flops(inputs.tokens)


def drawing(
    settings: ReplacedTokens, labels: Int[Tensor, " predicted"], uniforms: Float[Tensor, " predicted"]
) -> tuple[See, Int[Tensor, " predicted"]]:
    """What a generator's loss shows its odds to, and the ids that are drawn by them, which are there when the loss is."""
    drawn = torch.empty_like(labels)

    def see(odds: Tensor, rows: slice) -> None:
        excluded = labels[rows] if settings.disallow_correct else None
        drawn[rows] = draw_tokens(odds, uniforms[rows], settings.temperature, excluded)

    return see, drawn


def told_apart(logits: Float[Tensor, " tokens"], truth: Bool[Tensor, " tokens"]) -> dict[str, Num[Tensor, ""]]:
    """The sums of telling replaced tokens from others: `truth` says which are replaced."""
    logits = logits.float()
    flagged = logits > 0
    return {
        "replaced": F.binary_cross_entropy_with_logits(logits, truth.float(), reduction="sum"),
        "discriminator_accuracy": (flagged == truth).sum(),
        "share_replaced": truth.sum(),
        "share_flagged": flagged.sum(),
        "share_found": (flagged & truth).sum(),
    }


def generators_own(discriminator: Iterable[nn.Module], generator: Iterable[nn.Module]) -> frozenset[nn.Parameter]:
    """The parameters that the generator's loss alone moves: its own, and the bases of shifted tables."""
    parts = [part for one in discriminator for part in one.modules()]
    bases = {part.base.weight for part in parts if isinstance(part, ShiftedEmbedding)}
    theirs = {parameter for part in parts for parameter in part.parameters()}
    return frozenset({parameter for one in generator for parameter in one.parameters()} - (theirs - bases))


def detection(figures: Mapping[str, float]) -> dict[str, float]:
    """`recall` and `precision` of replaced tokens, from mean shares; absent where nothing was replaced, or flagged."""
    found = figures["share_found"]
    parts = {"recall": figures["share_replaced"], "precision": figures["share_flagged"]}
    return {name: found / whole for name, whole in parts.items() if whole}
