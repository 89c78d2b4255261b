"""Published families: a file each, and the reversible conversion they share."""

from __future__ import annotations

from bothways.families import bert, deberta, deberta_v2, modernbert, neobert, roberta
from bothways.families.family import Family

FAMILIES: tuple[Family, ...] = (
    bert.FAMILY,
    roberta.FAMILY,
    roberta.XLM_FAMILY,
    modernbert.FAMILY,
    neobert.FAMILY,
    deberta.FAMILY,
    deberta_v2.FAMILY,
)
