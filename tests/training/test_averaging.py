"""The mean of checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from bothways.errors import InputError
from bothways.training.averaging import average
from bothways.training.checkpoint import FOLDER, WEIGHTS

from .toy import Toy, run


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
