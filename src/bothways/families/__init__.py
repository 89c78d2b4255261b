"""Published families: a file each, and the reversible conversion they share."""

from __future__ import annotations

from bothways.families import bert, m2bert, modernbert, neobert, roberta
from bothways.families.family import Family

FAMILIES: tuple[Family, ...] = (bert.FAMILY, roberta.FAMILY, roberta.XLM_FAMILY, modernbert.FAMILY, neobert.FAMILY, m2bert.FAMILY)
