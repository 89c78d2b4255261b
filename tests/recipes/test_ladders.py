"""The ladders: one change a rung, and what is said to change no number changes none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.builders import gap, random_ids

from bothways.config import to_json
from bothways.data.masking import Masking
from bothways.data.sample import Sample
from bothways.data.source import TextFiles
from bothways.data.vocabulary import Vocabulary
from bothways.errors import InputError
from bothways.families.neobert import neobert
from bothways.layers.norm import LayerNorm, build_norm
from bothways.layers.position import Learned
from bothways.ops import attention
from bothways.recipes.assembling import build
from bothways.recipes.climbing import climb
from bothways.recipes.ladders import LADDERS, MEASURED, Rung, mosaicbert_ladder, neobert_ladder
from bothways.recipes.pretraining import Parts, pretrain
from bothways.recipes.published import RECIPES
from bothways.recipes.runs import Staged
from bothways.training.compare import compare
from bothways.training.schedule import Steps

SOURCE, BETTER = TextFiles(paths=("texts",)), TextFiles(paths=("better",))
TWO = Steps(count=2)
# What each rung changes of the one above it, as paths of a run's JSON
CHANGED = {
    "neobert": {
        "m1": {
            "encoder.embedding.position", "encoder.final_norm", "encoder.layers.0.mixer.position", "encoder.layers.0.mlp",
            "encoder.layers.0.norm",
        },
        "m2": {"source.paths.0"},
        "m3": {"tokenizer"},
        "m4": {"training.optimizer", "training.schedule"},
        "m5": {"masking.rate", "masking.mask", "masking.random", "masking.count"},
        "m7": {"encoder.hidden_size", "encoder.num_layers", "encoder.layers.0.mlp.size"},
        "m8": {"encoder.hidden_size", "encoder.num_layers", "encoder.layers.0.mlp.size"},
    },
    "mosaicbert": {
        "alibi": {"encoder.embedding.position", "encoder.layers.0.mixer.position"},
        "glu": {"encoder.layers.0.mlp"},
        "low-precision-norm": {"encoder.embedding.norm.precision", "encoder.layers.0.norm.precision"},
        "masked-30": {"masking.rate"},
    },
}  # fmt: skip


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two trees differ; a choice of another type differs as a whole."""
    if one == other:
        return
    trees = [dict(enumerate(tree)) if isinstance(tree, list) else tree for tree in (one, other)]
    if all(isinstance(tree, dict) for tree in trees) and trees[0].get("type") == trees[1].get("type"):
        for key in trees[0] | trees[1]:
            yield from differences(trees[0].get(key), trees[1].get(key), f"{path}.{key}".lstrip("."))
    else:
        yield path


@pytest.mark.parametrize("size", ["toy", "tiny", "mini", "base"])
@pytest.mark.parametrize("name", LADDERS)
def test_one_change_a_rung(name: str, size: Any) -> None:
    ladder = LADDERS[name](SOURCE, TWO, size, BETTER)
    runs = {rung.name: json.loads(to_json(rung.run)) for rung in ladder}
    assert [rung.above for rung in ladder[:1]] == [None]
    found = {rung.name: set(differences(runs[rung.above], runs[rung.name])) for rung in ladder if rung.above}
    assert found == CHANGED[name]
    assert all(len({path.split(".")[0] for path in paths}) == 1 for paths in found.values())


def test_the_published_ends() -> None:
    """M7 and M8 of the paper's size, 16 x 1056 and 28 x 768; without a better text there is no M2."""
    by_name = {rung.name: rung.run.encoder for rung in neobert_ladder(SOURCE, TWO, "base", BETTER)}
    shapes = {name: (one.num_layers, one.hidden_size, one.layer(0).mlp.size) for name, one in by_name.items()}
    assert shapes["m1"] == (12, 768, 2048)
    assert shapes["m7"] == (16, 1056, 2816)
    assert shapes["m8"] == (28, 768, 2048)
    above = {rung.name: rung.above for rung in neobert_ladder(SOURCE, TWO)}
    assert above == {"m0": None, "m1": "m0", "m3": "m1", "m4": "m1", "m5": "m4", "m7": "m5", "m8": "m7"}


@pytest.mark.parametrize("size", ["toy", "tiny", "mini", "base"])
def test_the_last_rung_is_neobert(size: Any) -> None:
    """Its network, head, masks and optimizer are the recipe's: the rungs above it leave no difference that none of them names."""
    ladder = {rung.name: rung.run for rung in neobert_ladder(SOURCE, TWO, size)}
    first, last = ladder["m0"].encoder, ladder["m8"].encoder
    recipe = RECIPES["neobert"](SOURCE, TWO, size)
    assert isinstance(recipe, Staged)
    heads = first.attentions[0].heads
    assert last == neobert(
        first.vocab_size, first.hidden_size, round(first.num_layers * 28 / 12), heads, first.layer(0).mlp.size,
        first.max_length, initializer_range=recipe.base.encoder.initialisation.spread,
    )  # fmt: skip
    assert {run.head for run in ladder.values()} == {recipe.base.head}
    assert ladder["m8"].masking == recipe.base.masking
    assert ladder["m8"].training.optimizer == recipe.base.training.optimizer
    assert ladder["m8"].training.schedule == recipe.base.training.schedule


def test_the_first_rung_has_berts_bricks() -> None:
    """Positions, activation and kind of norm are BERT's; biases but the norms' and the decoder's, dropout and types are not."""
    run = neobert_ladder(SOURCE, TWO, "base")[0].run
    encoder, layer = run.encoder, run.encoder.layer(0)
    assert (encoder.num_layers, encoder.hidden_size, layer.mlp.size, layer.order) == (12, 768, 3072, "pre")
    assert (encoder.embedding.position, encoder.attentions[0].position) == (Learned(), None)
    assert (layer.mlp.type, layer.mlp.activation, layer.norm.type) == ("plain", "gelu", "layer_norm")
    with torch.device("meta"):
        task = build(replace(run, encoder=replace(encoder, num_layers=1)), Vocabulary.unknown(encoder.vocab_size, 5))
    biased = {name for name, _ in task.named_parameters() if name.endswith("bias")}
    assert all("norm" in name or name == "head.bias" for name in biased)
    assert {layer.dropout, encoder.embedding.dropout, encoder.attentions[0].dropout} == {0.0}
    assert encoder.embedding.token_types == 0


# -- what changes no number -------------------------------------------------------------------------


def sums(rung: Rung, groups: Sequence[Sequence[Sample]]) -> dict[str, float]:
    task = build(rung.run, Vocabulary.unknown(rung.run.encoder.vocab_size, 5)).eval()
    with torch.no_grad():
        parts = [task(task.prepare(some, 0, 0)) for some in groups]  # type: ignore[arg-type]
    return {name: sum(float(part[name]) for part in parts) for name in parts[0]}


@pytest.mark.parametrize("number", range(3))
def test_kernels_and_packing_change_no_number(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So FlashAttention and unpadding are no rungs of MosaicBERT's ladder."""
    rung = mosaicbert_ladder(SOURCE, TWO, "toy")[number]
    rows = [Sample(i, (ids.astype("int32"),)) for i, ids in enumerate(random_ids([30, 7, 12, 30]))]
    together, alone = sums(rung, [rows]), sums(rung, [[row] for row in rows])
    monkeypatch.setattr(attention, "BACKENDS", (attention.REFERENCE,))
    defined = sums(rung, [rows])
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert together["loss"] == pytest.approx(defined["loss"], rel=1e-5)


def test_a_norm_in_bfloat16() -> None:
    """Rounded are what enters and the weights; it is one again under autocast, and gradients reach all of it."""
    exact, low = (build_norm(LayerNorm(eps=1e-12, precision=one), 24) for one in (None, "bf16"))
    torch.manual_seed(0)
    for norm in (exact, low):
        norm.load_state_dict({"weight": torch.linspace(0.5, 2, 24), "bias": torch.linspace(-1, 1, 24)})
    x = torch.randn(7, 24, requires_grad=True)
    by_hand = F.layer_norm(x.bfloat16(), (24,), low.weight.bfloat16(), low.bias.bfloat16(), 1e-12).float()  # type: ignore[union-attr]
    assert low(x).dtype == torch.float32
    assert torch.equal(low(x), by_hand)
    assert 1e-4 < gap(low(x), exact(x)) < 0.05
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(low(x), by_hand)
    low(x).square().sum().backward()
    assert all(one.grad is not None and one.grad.any() for one in (x, low.weight, low.bias))  # type: ignore[union-attr]


# -- carried out -------------------------------------------------------------------------------------


@pytest.fixture
def texts(tmp_path: Path) -> tuple[TextFiles, TextFiles]:
    made = []
    for name in ("plain", "better"):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(40):
            (folder / f"{number}.txt").write_text(f"{name} ship {number} waits for the tide that comes in twice a day. " * 4)
        made.append(TextFiles(paths=(str(folder),)))
    return made[0], made[1]


@pytest.mark.slow
def test_every_rung_learns(texts: tuple[TextFiles, TextFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of each; the same call finds them done; texts are prepared once for all rungs that read them."""
    said: list[str] = []
    measured: list[Masking] = []
    watch = Parts.watch
    monkeypatch.setattr(Parts, "watch", lambda parts, run, rate: measured.append(run.masking) or watch(parts, run, rate))
    ladder = neobert_ladder(texts[0], TWO, "toy", texts[1])
    folders = climb(ladder, tmp_path / "out", said.append)
    assert sorted(one.name for one in (tmp_path / "out" / "texts").iterdir()) == ["m0", "m2", "m3"]
    found = compare(folders)
    assert [run.name for run in found.runs] == [rung.name for rung in ladder]
    assert found.held_out
    assert all(run.train[-1]["step"] == 2 for run in found.runs)
    assert "last loss, held out" in [row[0] for row in found.figures.rows]
    assert measured == [MEASURED] * len(ladder)  # whatever masks a run was trained with
    said.clear()
    climb(ladder, tmp_path / "out", said.append)
    assert said == []


def test_another_ladder_is_refused(texts: tuple[TextFiles, TextFiles], tmp_path: Path) -> None:
    climb(mosaicbert_ladder(texts[0], TWO, "toy")[:1], tmp_path / "out")
    with pytest.raises(InputError, match=r"bert/run\.json"):
        climb(mosaicbert_ladder(texts[0], Steps(count=3), "toy")[:1], tmp_path / "out")


def test_a_rung_of_no_family_saves_no_model(texts: tuple[TextFiles, TextFiles], tmp_path: Path) -> None:
    """What `climb` is for: `pretrain` refuses a network that no folder can express."""
    (rung,) = [one for one in mosaicbert_ladder(texts[0], TWO, "toy") if one.name == "low-precision-norm"]
    with pytest.raises(InputError, match="cannot express this encoder"):
        pretrain(rung.run, tmp_path / "run")
    assert not list(climb([replace(rung, above=None)], tmp_path / "out")[0].glob("model"))
