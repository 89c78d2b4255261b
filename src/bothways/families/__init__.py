"""Published families: a file each, and the reversible conversion they share; and one for what is of none."""

from __future__ import annotations

from bothways.families import (
    albert,
    bert,
    deberta,
    deberta_v2,
    distilbert,
    electra,
    ernie_gram,
    eurobert,
    llama,
    longformer,
    m2bert,
    mixture,
    modernbert,
    mosaicbert,
    mpnet,
    neobert,
    nomic,
    roberta,
)
from bothways.families.family import Family

FAMILIES: tuple[Family, ...] = (
    bert.FAMILY,
    roberta.FAMILY,
    roberta.XLM_FAMILY,
    albert.FAMILY,
    distilbert.FAMILY,
    electra.FAMILY,
    modernbert.FAMILY,
    neobert.FAMILY,
    mpnet.FAMILY,
    ernie_gram.FAMILY,
    mosaicbert.FAMILY,
    nomic.FAMILY,
    longformer.FAMILY,
    m2bert.FAMILY,
    roberta.CAMEMBERT_FAMILY,
    eurobert.FAMILY,
    llama.FAMILY,
    llama.MISTRAL_FAMILY,
    llama.QWEN2_FAMILY,
    llama.QWEN3_FAMILY,
    deberta.FAMILY,
    deberta_v2.FAMILY,
)

# by the name that `model_type` has in `config.json`: the published ones, and last the one that can say anything
BY_NAME = {family.name: family for family in (*FAMILIES, mixture.FAMILY)}
