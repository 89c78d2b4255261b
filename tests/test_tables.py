"""The documentation's tables say what the code does."""

from __future__ import annotations

import pytest
from scripts import tables


def test_the_table_of_families_is_up_to_date() -> None:
    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.filled(page, "families", tables.families()) == page, "run: python scripts/tables.py"


def test_modernbert_by_hand() -> None:
    cells = tables.decisions("modernbert", tables.BASES["modernbert"])
    assert cells == (
        "`modernbert`",
        "layer norm, no bias",
        "pre",
        "rotary, theta 160,000 and 10,000",
        "gated, no bias, gelu",
        "12",
        "none, ±64, ±64",
        "22",
        "768",
        "8192",
        "149,014,272",  # the published model's, without its head
    )


def test_a_page_without_the_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the table 'families'"):
        tables.filled("no markers", "families", "")


def test_only_what_lies_between_the_markers_changes() -> None:
    page = "before\n<!-- table: x -->\nold\n<!-- end of table: x -->\nafter\n"
    assert tables.filled(page, "x", "new") == page.replace("old", "new")
