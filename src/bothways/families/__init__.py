"""Published families: a file each, and the reversible conversion they share."""

from __future__ import annotations

from bothways.families import albert, bert, distilbert, electra, modernbert, neobert, roberta
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
)
