"""Muon: what it makes of a matrix, and which parameter goes to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.builders import CONFIGS
from torch import Tensor, nn

from bothways.encoder.matrices import hidden_matrices
from bothways.errors import InputError
from bothways.training.optimizer import AdamW, Group, Muon, build, default_groups, parameter_table, set_lr
from bothways.training.optimizers import muon
from bothways.training.optimizers.muon import orthogonalise

from .small import Small
from .toy import Toy

SETTINGS = Muon(lr=0.02, rest=AdamW(lr=0.003))
SHAPES = [(64, 64), (64, 200), (200, 64), (1, 30), (24, 24)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_singular_values_are_near_one(shape: tuple[int, int], size: float) -> None:
    """About 0.7 to 1.2: five rounds of the published polynomial take all of [0.002, 1] into [0.6818, 1.2024], and no more.

    What is smaller than 0.002 of the whole (1 % of the values of square random matrices), they cannot lift so far.
    """
    matrices = size * random(5, *shape, seed=sum(shape))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    before = torch.linalg.svdvals(matrices)
    visible = before / matrices.norm(dim=(-2, -1))[:, None] > 2e-3
    assert visible.float().mean() > 0.95
    assert values[visible].min() > 0.6818 - 1e-4
    assert values[visible].max() < 1.2024 + 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_a_transposed_matrix_gives_the_transposed_result(shape: tuple[int, int]) -> None:
    matrices = random(2, *shape)
    torch.testing.assert_close(orthogonalise(matrices.mT), orthogonalise(matrices).mT, rtol=0, atol=2e-5)


def test_singular_vectors_stay() -> None:
    """U S V' commutes with any turning of rows and columns."""
    left, right = (torch.linalg.qr(random(20, 20, seed=seed))[0] for seed in (1, 2))
    matrix = random(1, 20, 20)
    torch.testing.assert_close(orthogonalise(left @ matrix @ right), left @ orthogonalise(matrix) @ right, rtol=0, atol=1e-4)


def test_zeros_stay_zeros() -> None:
    assert not orthogonalise(torch.zeros(1, 3, 5)).any()


def moved(parameter: nn.Parameter, parts: tuple[int, ...], gradients: list[Tensor], **options: Any) -> Tensor:
    """By how much one parameter moves in steps of learning rate 1."""
    before = parameter.detach().clone()
    optimizer = muon.Muon([{"params": [parameter]}], {parameter: parts}, lr=1.0, **options)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return before - parameter.detach()


@pytest.mark.parametrize("scale", ["spectral", "rms"])
def test_two_steps_are_torchs_muon(scale: muon.Scale) -> None:
    """torch's own, which computes in bfloat16, whose step near 1 is 2^-8; errors of five iterations of it add up."""
    gradients = [random(24, 10, seed=seed) for seed in (1, 2)]
    ours, theirs = (nn.Parameter(random(24, 10)) for _ in range(2))
    change = moved(ours, (24,), gradients, scale=scale)
    adjust = {"spectral": "original", "rms": "match_rms_adamw"}[scale]
    reference = torch.optim.Muon([theirs], lr=1.0, weight_decay=0.0, momentum=0.95, adjust_lr_fn=adjust)
    for gradient in gradients:
        theirs.grad = gradient.clone()
        reference.step()
    expected = random(24, 10) - theirs.detach()
    assert (change - expected).abs().max() < 0.02 * expected.abs().max()


def test_each_map_of_a_fused_parameter_is_orthogonal_by_itself() -> None:
    """Queries, keys and values move as they would as parameters of their own; as one matrix they would not."""
    gradient = random(30, 12)
    fused = moved(nn.Parameter(torch.zeros(30, 12)), (12, 9, 9), [gradient])
    apart = [moved(nn.Parameter(torch.zeros_like(one)), (len(one),), [one]) for one in gradient.split((12, 9, 9))]
    torch.testing.assert_close(fused, torch.cat(apart), rtol=0, atol=1e-5)
    whole = moved(nn.Parameter(torch.zeros(30, 12)), (30,), [gradient])
    assert (fused - whole).abs().max() > 0.05


def test_each_block_of_a_block_diagonal_parameter_is_orthogonal_by_itself() -> None:
    gradient = random(3, 8, 5)
    blocks = moved(nn.Parameter(torch.zeros(3, 8, 5)), (8,), [gradient])
    apart = [moved(nn.Parameter(torch.zeros(8, 5)), (8,), [one]) for one in gradient]
    torch.testing.assert_close(blocks, torch.stack(apart), rtol=0, atol=1e-5)


def test_momentum_rises_over_its_warm_up() -> None:
    """Over two steps: 0.85, 0.9, then 0.95. The buffer of a constant gradient of 1 is 0.15, then 0.235, then 0.27325."""
    parameter = nn.Parameter(torch.zeros(1, 1))
    optimizer = muon.Muon([{"params": [parameter]}], {parameter: (1,)}, lr=1.0, warmup=2)
    kept = []
    for _ in range(3):
        parameter.grad = torch.ones(1, 1)
        optimizer.step()
        kept.append(optimizer.state[parameter]["momentum_buffer"].item())
    assert kept == pytest.approx([0.15, 0.9 * 0.15 + 0.1, 0.95 * 0.235 + 0.05], abs=1e-6)


def test_nesterov_looks_ahead() -> None:
    """After (1, 0) and then (0, 1): the buffer is 0.95 * 0.05 (1, 0) + 0.05 (0, 1), and the update 0.95 of it and 0.05 (0, 1)."""
    parameter = nn.Parameter(torch.zeros(1, 2))
    first = moved(parameter, (1,), [torch.tensor([[1.0, 0.0]])])
    both = moved(nn.Parameter(torch.zeros(1, 2)), (1,), [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])])
    direction = (both - first)[0]
    assert (direction[1] / direction[0]).item() == pytest.approx((0.95 * 0.05 + 0.05) / (0.95 * 0.95 * 0.05), rel=1e-4)


def test_normalised_rows_are_even_and_as_large_in_all() -> None:
    gradient = random(20, 7)
    plain = moved(nn.Parameter(torch.zeros(20, 7)), (20,), [gradient])
    even = moved(nn.Parameter(torch.zeros(20, 7)), (20,), [gradient], normalised=0.95)
    torch.testing.assert_close(even.norm(dim=1), even.norm(dim=1).mean().expand(20), rtol=1e-4, atol=0)
    assert plain.norm(dim=1).std() > 0.05
    torch.testing.assert_close(even.norm(), plain.norm())


@pytest.mark.parametrize("cautious", [False, True])
def test_weight_decay(cautious: bool) -> None:
    """Of (1, -1), with an update of (1, 1) / sqrt(2) or so: the cautious one shrinks what the update shrinks, the first."""
    parameter = nn.Parameter(torch.tensor([[1.0, -1.0]]))
    optimizer = muon.Muon([{"params": [parameter], "weight_decay": 0.1}], {parameter: (1,)}, lr=0.5, cautious=cautious)
    parameter.grad = torch.ones(1, 2)
    optimizer.step()
    update = 0.5 * orthogonalise(torch.ones(1, 1, 2))[0, 0]
    left = torch.tensor([0.95, -1.0 if cautious else -0.95])
    torch.testing.assert_close(parameter[0].detach(), left - update)


def expected_hidden(name: str) -> bool:
    """By the names of our layers, which the code itself must not go by."""
    inside = name.startswith("encoder.layers.") and name.endswith(".weight")
    return inside and not any(part in name for part in ("norm", ".short."))


@pytest.mark.parametrize("family", sorted(CONFIGS))
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_has_one_optimizer(family: str, tied: bool) -> None:
    module = Small(family, tied=tied)
    settings = Muon(lr=0.02, rest=AdamW(lr=0.003), embedding_lr=0.3, head_lr=0.008, vector_lr=0.04)
    table = parameter_table(module, default_groups(settings, module))
    assert len(table) == len(list(module.parameters()))
    parameters = dict(module.named_parameters(remove_duplicate=False))
    rates = {"hidden": 0.02, "embeddings": 0.3, "heads": 0.008, "vectors": 0.04}
    for row in table:
        assert row.optimizer == ("muon" if expected_hidden(row.name) else "adamw"), row.name
        assert row.lr * settings.lr == pytest.approx(rates[row.group])
        if row.optimizer == "muon":
            assert len(row.shape) >= 2
        elif len(row.shape) < 2:
            assert (row.group, row.weight_decay) == ("vectors", 0.0)
        elif "embedding.tokens" in row.name or "embedding.positions" in row.name:
            assert row.group == "embeddings"
        elif row.name.startswith("head."):
            assert row.group == "heads"
    optimizer = build(settings, module, table)
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len({id(one) for one in held}) == len(table)
    set_lr(optimizer, 0.01)
    for group in optimizer.param_groups:
        names = group["param_names"]
        rows = {row.group for row in table if row.name in names}
        assert len(rows) == 1
        assert group["lr"] == pytest.approx(rates[rows.pop()] / 2)
    for weight, rows_of_maps in hidden_matrices(module).items():
        assert sum(rows_of_maps) == weight.shape[-2]
    fused = {name: hidden_matrices(module)[one] for name, one in parameters.items() if name.endswith("mixer.qkv.weight")}
    assert all(len(maps) == 3 for maps in fused.values())


def test_the_maps_of_modernbert_and_llama() -> None:
    """24 features; queries of 3 heads of 8, keys and values of 1 in llama; both halves of a gated MLP of 20."""
    for family, qkv in (("modernbert", (24, 24, 24)), ("llama", (24, 8, 8))):
        module = Small(family)
        maps = hidden_matrices(module)
        layer: Any = module.encoder.layers[1]
        assert maps[layer.mixer.qkv.weight] == qkv
        assert maps[layer.mlp.up.weight] == (20, 20)
        assert maps[layer.mlp.down.weight] == (24,)


def test_shared_layers_are_moved_once() -> None:
    module = Small("albert", layers=4)
    rows = [row for row in parameter_table(module, default_groups(SETTINGS, module)) if row.optimizer == "muon"]
    assert len(rows) == 2 * 4  # two groups of one layer: qkv, out, up, down


def test_a_module_without_an_encoder_is_refused() -> None:
    with pytest.raises(InputError, match="muon is for the matrices of an encoder's layers"):
        default_groups(SETTINGS, Toy())


def test_groups_for_an_optimizer_that_is_not_there_are_refused() -> None:
    module = Small()
    everything = [Group("all", lambda *_: True, 1.0, 0.0, "muon")]
    with pytest.raises(ValueError, match=r"is for muon, but the optimizer is adamw"):
        build(AdamW(lr=0.1), module, parameter_table(module, everything))
    with pytest.raises(ValueError, match=r"embedding.tokens.weight \(101, 24\) is no matrix of a hidden layer"):
        build(SETTINGS, module, parameter_table(module, everything))
