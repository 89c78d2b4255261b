"""The mean of checkpoints, and one that moves along with training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from rich.console import Console

from bothways.errors import InputError
from bothways.training.averaging import MovingAverage, average
from bothways.training.checkpoint import FOLDER, MEAN, WEIGHTS, damage, place_of
from bothways.training.distributed import named_once
from bothways.training.settings import Watch

from .toy import STEPS, Toy, run

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four checkpoints of one run."""
    folder = tmp_path_factory.mktemp("run")
    run(folder, changes={"checkpoint_every": 5, "keep": 4})
    return sorted((folder / FOLDER).glob("step-*"))


def test_the_mean_of_each_weight(places: list[Path]) -> None:
    assert [place.name for place in places] == [f"step-00000{step:02}" for step in (5, 10, 15, 20)]
    module = Toy(seed=9)
    average(places, module)
    saved = [safetensors.torch.load_file(place / WEIGHTS) for place in places]
    for name, tensor in module.state_dict().items():
        if name not in saved[0]:
            continue  # another name of a shared tensor
        mean = torch.stack([one[name].double() for one in saved]).mean(dim=0)
        torch.testing.assert_close(tensor.double(), mean, rtol=1e-7, atol=1e-9)
    assert module.decoder.weight is module.embed.weight
    assert not torch.equal(module.embed.weight, saved[-1]["embed.weight"])


def test_the_mean_of_one_is_itself_to_the_bit(places: list[Path]) -> None:
    module = Toy(seed=9)
    average(places[1:2], module)
    assert torch.equal(module.dense.weight, safetensors.torch.load_file(places[1] / WEIGHTS)["dense.weight"])


def test_what_cannot_be_averaged(places: list[Path], tmp_path: Path) -> None:
    module = Toy(seed=9)
    before = module.dense.weight.clone()
    with pytest.raises(InputError, match="name at least one checkpoint"):
        average([], module)
    with pytest.raises(InputError, match=r"step-7.*missing or truncated"):
        average([places[0], tmp_path / "step-7"], module)
    other = torch.nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"no tensor weight; it is another model's checkpoint"):
        average(places, other)
    assert torch.equal(module.dense.weight, before)


EMA = {"moving_average": MovingAverage(decay=0.6)}


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(place_of(folder, step) / WEIGHTS)


def test_a_mean_that_moves_along_worked_by_hand(tmp_path: Path) -> None:
    """The decay is a tenth in the first step, then 2/11, 3/12, 4/13 ... until 0.6 is less."""
    module = Toy(dropout=0.2)
    expected = {name: tensor.double().clone() for name, tensor in named_once(module).items()}
    run(tmp_path, module, changes=EMA | {"checkpoint_every": 1, "keep": STEPS})
    decays = [0.1, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 9 / 18, 10 / 19, 11 / 20, 12 / 21, 13 / 22, *[0.6] * 7]
    for step, decay in enumerate(decays, start=1):
        for name, tensor in weights(tmp_path, step).items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor
    saved = safetensors.torch.load_file(place_of(tmp_path, STEPS) / MEAN)
    assert saved.keys() == expected.keys() - {"calls"}  # which counts, and is no mean
    for name, tensor in saved.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-7)
        assert torch.equal(tensor, module.state_dict()[name])  # what is left in the module
        assert not torch.equal(tensor, weights(tmp_path, STEPS)[name])
    assert module.decoder.weight is module.embed.weight


def test_it_changes_nothing_of_what_is_learned(tmp_path: Path) -> None:
    run(tmp_path / "with", changes=EMA)
    run(tmp_path / "without")
    for name, tensor in weights(tmp_path / "with", STEPS).items():
        assert torch.equal(tensor, weights(tmp_path / "without", STEPS)[name])
    assert not (place_of(tmp_path / "without", STEPS) / MEAN).exists()


def test_a_run_that_goes_on_ends_with_the_same_mean_to_the_bit(tmp_path: Path) -> None:
    whole, again = Toy(dropout=0.2), Toy(dropout=0.2)
    run(tmp_path / "whole", whole, changes=EMA | {"keep": STEPS})
    for step in (9, 12, 15, 18, STEPS):  # as a kill after step 6 would have left it
        shutil.rmtree(place_of(tmp_path / "whole", step).rename(tmp_path / "gone"))
    run(tmp_path / "whole", again, changes=EMA | {"keep": STEPS})
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), again.parameters(), strict=True))
    finished = Toy(seed=9)
    run(tmp_path / "whole", finished, changes=EMA | {"keep": STEPS})
    assert torch.equal(finished.dense.weight, whole.dense.weight)


def test_the_mean_is_what_is_evaluated(tmp_path: Path) -> None:
    module, seen = Toy(dropout=0.2), []

    def evaluate() -> dict[str, float]:
        seen.append(module.dense.weight.clone())
        return {}

    run(tmp_path, module, changes=EMA | {"checkpoint_every": 5, "keep": 4}, watch=Watch(evaluate=evaluate, console=QUIET))
    for step, found in zip((5, 10, 15, 20), seen, strict=True):
        assert torch.equal(found, safetensors.torch.load_file(place_of(tmp_path, step) / MEAN)["dense.weight"])


def test_a_checkpoint_without_its_mean_is_damaged(tmp_path: Path) -> None:
    run(tmp_path, changes=EMA)
    place = place_of(tmp_path, STEPS)
    assert damage(place) is None
    (place / MEAN).unlink()
    assert damage(place) == f"{MEAN}: No such file or directory"
