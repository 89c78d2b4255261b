"""Any family with a vocabulary head is pretrained by the same run, and saved as its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from tests.builders import CONFIGS, mixed

import bothways
from bothways import Model
from bothways.data.packing import TokenBudget
from bothways.data.source import TextFiles
from bothways.data.tokenizer_training import WordPiece, train_tokenizer
from bothways.families import BY_NAME, bert, mixture
from bothways.families.family import Spec
from bothways.recipes.continuing import adaptation
from bothways.recipes.pretraining import pretrain
from bothways.recipes.published import RECIPES
from bothways.recipes.runs import FamilyName
from bothways.training.schedule import Steps


def test_every_family_has_its_name() -> None:
    assert set(get_args(FamilyName)) == set(BY_NAME)


@pytest.mark.parametrize("family", ["albert", "mosaicbert", "m2_bert", "bothways"])
def test_a_family_is_pretrained_and_read_again(family: str, tmp_path: Path) -> None:
    text = tmp_path / "texts.txt"
    text.write_text("the cat sat on the mat.\n\na dog ran after the cat.\n\n" * 60)
    encoder = replace(CONFIGS.get(family) or mixed(), vocab_size=101, max_length=32)
    run = replace(
        RECIPES["bert"](TextFiles(paths=(str(text),), split="paragraph"), Steps(count=2), "tiny"),
        family=family,
        encoder=encoder,
        head=bert.masked_lm_head(encoder),
        tokenizer=WordPiece(vocab_size=101),
        batching=TokenBudget(tokens=256),
        max_length=32,
    )
    folder = pretrain(run, tmp_path / "run").folder
    model = bothways.load(folder / "model", strict=True)
    assert model.family.name == family
    assert model.spec.encoder == encoder
    assert len(model.fill(f"the {model.tokenizer.tokens['mask_token']} sat")[0]) == 5  # type: ignore[union-attr]


def test_a_mixture_without_a_head_goes_on_with_the_runs(tmp_path: Path) -> None:
    """There is no recipe of its family whose head it could have instead."""
    text = tmp_path / "texts.txt"
    text.write_text("the cat sat on the mat.\n\na dog ran after the cat.\n\n" * 60)
    tokenizer = train_tokenizer(WordPiece(vocab_size=101), [text.read_text()], 32)
    encoder = replace(mixed(), vocab_size=101, max_length=32)
    start = Model.create(mixture.FAMILY, Spec(encoder=encoder), tokenizer).save(tmp_path / "start")
    run = adaptation(TextFiles(paths=(str(text),), split="paragraph"), Steps(count=2), str(start))
    model = bothways.load(pretrain(run, tmp_path / "run").folder / "model", strict=True)
    assert model.family is mixture.FAMILY
    assert model.spec.encoder == encoder
    assert "masked_lm" in model.heads
