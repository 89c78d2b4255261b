"""Lines of a model card are replaced, and nothing else of it is touched."""

from __future__ import annotations

from pathlib import Path

from bothways.model.card import add_line


def test_a_line_is_added_then_replaced(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    add_line(tmp_path, "speed", "fast")
    assert not card.exists()
    card.write_text("# Mine\n\n<!-- bothways:other -->\nkept\n<!-- bothways:other -->\n\nThe end.\n")
    before = card.read_text()
    add_line(tmp_path, "speed", r"fast \1")
    assert card.read_text() == before + "\n<!-- bothways:speed -->\nfast \\1\n<!-- bothways:speed -->\n"
    card.write_text(card.read_text() + "\nMore.\n")
    add_line(tmp_path, "speed", "slow")
    add_line(tmp_path, "other", "changed")
    assert card.read_text() == (
        "# Mine\n\n<!-- bothways:other -->\nchanged\n<!-- bothways:other -->\n\nThe end.\n\n"
        "<!-- bothways:speed -->\nslow\n<!-- bothways:speed -->\n\nMore.\n"
    )
