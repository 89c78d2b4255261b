"""The documentation's tables say what the code does."""

from __future__ import annotations

import re

import pytest
from scripts import tables

from bothways.families import FAMILIES

GUIDES = tables.ROOT / "docs"


def test_the_table_of_families_is_up_to_date() -> None:
    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.filled(page, "families", tables.families()) == page, "run: python scripts/tables.py"


def test_the_table_of_recipes_is_up_to_date() -> None:
    page = tables.RECIPES_PAGE.read_text(encoding="utf-8")
    assert tables.filled(page, "recipes", tables.recipes()) == page, "run: python scripts/tables.py"


def test_a_recipe_by_hand() -> None:
    cells = tables.figures(tables.RECIPES["neobert"])
    assert cells == (
        "`neobert`",
        "arXiv 2502.19587",
        "250M",
        "general · context",
        "1,024 · 4,096",
        "20%",
        "0.0006 · 6e-05",
        "2,097,152",
        "1,000,000 steps · 50,000 steps",
    )


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


def test_every_family_is_in_the_guides_and_the_readme() -> None:
    readme, index = ((tables.ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/index.md"))
    for family in FAMILIES:
        assert f"`{family.name}`" in index, family.name
        assert f"`{family.name}`" in readme, family.name
    assert f"checkpoints of {len(FAMILIES)} families" in readme
    for page in GUIDES.rglob("*.md"):
        assert page.name == "index.md" or f"({page.relative_to(GUIDES)})" in index, page


def test_links_between_documents_lead_somewhere() -> None:
    for page in (*tables.ROOT.glob("*.md"), *GUIDES.rglob("*.md")):
        prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#\s]+)", prose):
            assert "://" in link or (page.parent / link).exists(), f"{page}: {link}"
