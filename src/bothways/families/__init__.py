"""Published families: a file each, and the reversible conversion they share."""

from __future__ import annotations

from bothways.families import bert, eurobert, llama, modernbert, neobert, roberta
from bothways.families.family import Family

FAMILIES: tuple[Family, ...] = (
    bert.FAMILY,
    roberta.FAMILY,
    roberta.XLM_FAMILY,
    roberta.CAMEMBERT_FAMILY,
    modernbert.FAMILY,
    neobert.FAMILY,
    eurobert.FAMILY,
    llama.FAMILY,
    llama.MISTRAL_FAMILY,
    llama.QWEN2_FAMILY,
    llama.QWEN3_FAMILY,
)
