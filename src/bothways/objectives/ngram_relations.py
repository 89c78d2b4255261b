"""Enhanced n-gram relation modelling: ERNIE-Gram's third objective (arXiv 2010.12148).

A small generator predicts masked n-grams, and what is drawn of its odds stands in the place of the masks. The model predicts
the n-grams that stood there, and their tokens, and tells which of them are another's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from bothways.data.sample import Epochs, Sample
from bothways.encoder.encoder import Encoder
from bothways.encoder.extended import check_extended, encode_extended
from bothways.layers.heads import MaskedLm
from bothways.layers.ngrams import NGramTable
from bothways.layers.replaced_token import ReplacedToken
from bothways.layers.shifted import ShiftedEmbedding
from bothways.objectives.ngram_lm import NGramInputs, NGramLanguageModeling, PrepareNGrams
from bothways.objectives.objective import Objective
from bothways.objectives.replaced_token import ReplacedTokens, drawing, generators_own, numbers_to_draw_by, told_apart
from bothways.objectives.sharing import DisentangledTables, NothingShared, share

_OF_PREDICTED: tuple[str, ...] = ("generator", "generator_accuracy")
_OF_TEXT: tuple[str, ...] = ("replaced", "discriminator_accuracy", "share_replaced", "share_flagged", "share_found")


@dataclass(frozen=True, eq=False)
class RelatedInputs:
    """Masked n-grams, and for each the number in [0, 1) by which what replaces it will be drawn, float32 [predicted]."""

    masked: NGramInputs
    uniforms: Float[Tensor, " predicted"]

    @property
    def tokens(self) -> int:
        return self.masked.tokens

    def to(self, device: torch.device | str) -> RelatedInputs:
        return replace(self, masked=self.masked.to(device), uniforms=self.uniforms.to(device))


@dataclass(frozen=True)
class PrepareRelated:
    """Masks n-grams, and draws a number for each by (seed, epoch, sample, position)."""

    masked: PrepareNGrams

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: Epochs) -> RelatedInputs:
        masked = self.masked(samples, seed, epoch)
        return RelatedInputs(masked, numbers_to_draw_by(masked.batch, masked.rows, seed, epoch))


class NGramRelationModeling(Objective[RelatedInputs]):
    """The losses of `NGramLanguageModeling` on a text with a generator's n-grams, of the generator, and of telling them apart.

    Sums: those of `NGramLanguageModeling`; `generator` and `generator_accuracy` over what is masked; those of replaced token
    detection over all of the shortened text, in which an n-gram that stands as one is one token.

    Attributes:
        masked: the model that is trained.
        detector: tells what is replaced; it is not saved.
        names: of all sums.
    """

    names: tuple[str, ...] = (*NGramLanguageModeling.names, *_OF_PREDICTED, *_OF_TEXT)

    def __init__(
        self,
        masked: NGramLanguageModeling,
        detector: ReplacedToken,
        generator: Encoder,
        generator_head: MaskedLm,
        settings: ReplacedTokens,
    ) -> None:
        super().__init__()
        check_extended(generator.config, False, "replaced_tokens.generator")
        count, width = len(masked.ngrams.rows.weight), generator.embedding.tokens.weight.shape[1]
        of_generator = NGramTable(count, width, bias=generator_head.config.bias)
        share(settings.sharing, generator, masked.encoder)
        match settings.sharing:
            case NothingShared():
                pass
            case DisentangledTables():
                assert isinstance(of_generator.rows, nn.Embedding)
                masked.ngrams.rows = ShiftedEmbedding(of_generator.rows)
            case _:
                of_generator.rows = masked.ngrams.rows
        self.masked = masked
        self.detector = detector
        self.generator = generator
        self.generator_head = generator_head
        self.generator_ngrams = of_generator
        self.settings = settings
        self.weights: Mapping[str, float] = {**masked.weights, "generator": 1.0, "replaced": settings.weight}
        assert isinstance(masked.prepare, PrepareNGrams)
        self.prepare = PrepareRelated(masked.prepare)

    @property
    def encoder(self) -> Encoder:
        return self.masked.encoder

    @property
    def head(self) -> MaskedLm:
        return self.masked.head

    def counts(self, inputs: RelatedInputs) -> dict[str, Num[Tensor, ""]]:
        found = self.masked.counts(inputs.masked)
        text = torch.tensor(len(inputs.masked.text.ids))
        return found | dict.fromkeys(_OF_PREDICTED, found["loss"]) | dict.fromkeys(_OF_TEXT, text)

    def forward(self, inputs: RelatedInputs) -> dict[str, Num[Tensor, ""]]:
        generated, drawn = self.generate(inputs)
        return generated | self.relate(inputs, drawn)

    def generate(self, inputs: RelatedInputs) -> tuple[dict[str, Num[Tensor, ""]], Int[Tensor, " predicted"]]:
        """The generator's sums, and the token or n-gram it draws for each masked one."""
        masked = inputs.masked
        see, drawn = drawing(self.settings, masked.labels, inputs.uniforms)
        tokens = self.generator.embedding.tokens.weight
        hidden = encode_extended(self.generator, masked.text, self.generator_ngrams.table(tokens))[masked.text_rows]
        loss, right = self.generator_ngrams.loss(self.generator_head, hidden, tokens, masked.labels, see)
        return {"generator": loss, "generator_accuracy": right}, drawn

    def relate(self, inputs: RelatedInputs, drawn: Int[Tensor, " predicted"]) -> dict[str, Num[Tensor, ""]]:
        """The model's sums on the text with these tokens and n-grams in the place of the masks."""
        shown, original = inputs.masked.showing(drawn), inputs.masked.showing(inputs.masked.labels)
        hidden = self.masked.encode(shown)
        of_text = hidden if shown.beside is None else hidden[shown.beside.seen.rows]
        logits = self.detector(of_text, shown.text.ragged)
        return self.masked.read(hidden, shown) | told_apart(logits, shown.text.ids != original.text.ids)

    def of_generator(self) -> frozenset[nn.Parameter]:
        """The parameters that the generator's loss alone moves."""
        own = (self.generator, self.generator_head, self.generator_ngrams)
        return generators_own((self.masked, self.detector), own)

    def flops(self, inputs: RelatedInputs) -> float:
        text, predicted = inputs.masked.text.ragged, len(inputs.masked.labels)
        head = self.generator_head.flops(predicted, self.generator.embedding.tokens.weight)
        of_generator = self.generator.flops(text) + head + self.generator_ngrams.flops(predicted)
        return of_generator + self.masked.flops(inputs.masked) + self.detector.flops(text.tokens)
