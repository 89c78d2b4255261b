"""Runs that train a text's vector beside masked tokens, or by spelling the text out: their objective, figures and settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from bothways.data.vocabulary import Vocabulary
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.heads import MaskedLm
from bothways.model.settings import EmbeddingSettings
from bothways.objectives.auto_encoding import AutoEncoding, Denoising
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.objectives.masked_views import MaskedViews, Views
from bothways.recipes.carrying_out import weighted_averages
from bothways.recipes.runs import Pretraining, TextVectors

WithVectors: TypeAlias = AutoEncoding | MaskedViews


def unfilled_vectors(
    run: Pretraining, settings: TextVectors, encoder: Encoder, head: MaskedLm, vocabulary: Vocabulary
) -> WithVectors:
    """The objective, on modules whose weights are whatever torch makes of them."""
    if isinstance(settings.task, Views):
        masked = MaskedLanguageModeling(encoder, head, run.masking, vocabulary)
        return MaskedViews(masked, settings.task, settings.pooling, settings.weight)
    return AutoEncoding(encoder, head, vocabulary, settings.task, run.masking, settings.pooling, settings.weight)


def vector_metrics(objective: WithVectors) -> tuple[str, ...]:
    """Sums that are no losses, which reports plot."""
    if isinstance(objective, AutoEncoding):
        return ("accuracy",)
    return ("masked_lm/accuracy", "masked_lm/masked", "contrastive/accuracy")


def vector_figures(objective: WithVectors, batches: Sequence[Any], device: str) -> dict[str, float]:
    """Held-out means, with the weighted loss."""
    return weighted_averages(objective, batches, device, vector_metrics(objective))


def fills(run: Pretraining) -> bool:
    """Whether the head learns to fill in masked tokens: that of denoising spells out texts, and is dropped with the decoder."""
    return run.vectors is None or not isinstance(run.vectors.task, Denoising)


def settings_for(run: Pretraining) -> EmbeddingSettings | None:
    """How the model's texts become vectors; None: the run says nothing of it."""
    if run.vectors is None:
        return None
    return EmbeddingSettings(pooling=run.vectors.pooling, max_seq_length=run.max_length, declared=True)


def check_text_vectors(run: Pretraining) -> None:
    """Raises InputError where the vectors' task goes with nothing else of the run."""
    if run.vectors is None:
        return
    others = {"pairs": run.pairs, "decoder": run.decoder, "replaced_tokens": run.replaced_tokens, "ngrams": run.ngrams}
    if beside := [name for name, value in others.items() if value is not None]:
        raise InputError(f"vectors: goes without {beside[0]}; leave one of them out")
    if run.predicts == "next":
        raise InputError("vectors: goes with masked tokens; set predicts to masked, or leave it out")
    if isinstance(run.vectors.task, Views) and (run.training.accumulate > 1 or run.training.ramp is not None):
        raise InputError(
            "vectors.task: views are compared within one batch; set training.accumulate to 1 and training.ramp to null, "
            "and make batching.tokens larger"
        )
