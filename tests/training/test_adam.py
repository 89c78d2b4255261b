"""Adam's relatives against steps worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from bothways.training.optimizer import (
    AdamW,
    BertAdam,
    Lamb,
    Optimizer,
    StableAdamW,
    build,
    default_groups,
    parameter_table,
    set_lr,
)


class Two(nn.Module):
    """A matrix, which is decayed, and a vector, which is not."""

    def __init__(self, matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor(matrix))
        self.vector = nn.Parameter(torch.tensor(vector))


def stepped(settings: Optimizer, module: Two, gradients: Sequence[tuple[Tensor, Tensor, float]]) -> torch.optim.Optimizer:
    """Steps of given gradients and learning rates."""
    optimizer = build(settings, module, parameter_table(module, default_groups(settings, module)))
    for matrix, vector, lr in gradients:
        module.matrix.grad, module.vector.grad = matrix.clone(), vector.clone()
        set_lr(optimizer, lr)
        optimizer.step()
    return optimizer


def test_bert_adam_by_hand() -> None:
    """Gradients 0.5 and -1, the second step at half the rate; no correction of the means.

    Step 1: m = 0.05, v = 0.00025, 0.05 / (0.01581139 + 1e-6) = 3.1620777; the matrix adds 0.01 * 1; times 0.1.
    Step 2: m = -0.055, v = 0.00124975, -0.055 / (0.03535180 + 1e-6) = -1.5557464; the matrix adds 0.01 * 0.6827922; times 0.05.
    torch's AdamW would have moved by 0.1 in step 1, not by 0.316.
    """
    settings = BertAdam(lr=0.1, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.01)
    half, one = torch.full((1, 1), 0.5), torch.full((1,), 0.5)
    module = Two([[1.0]], [1.0])
    stepped(settings, module, [(half, one, 0.1)])
    assert module.matrix.item() == pytest.approx(1 - 0.1 * 3.1720777, abs=2e-7)
    assert module.vector.item() == pytest.approx(1 - 0.1 * 3.1620777, abs=2e-7)
    module = Two([[1.0]], [1.0])
    stepped(settings, module, [(half, one, 0.1), (-2 * half, -2 * one, 0.05)])
    assert module.matrix.item() == pytest.approx(0.6827922 - 0.05 * (-1.5557464 + 0.006827922), abs=5e-7)
    assert module.vector.item() == pytest.approx(0.6837922 + 0.05 * 1.5557464, abs=5e-7)


def test_lamb_by_hand() -> None:
    """|p| = 5 and gradient (1, 1): both corrected means are 1, so u = (1, 1) + 0.01 * (3, 4), and |u| = 1.463728.

    The matrix moves by 0.1 * 5 / 1.463728 * u, the vector by Adam's step: 0.1.
    """
    module = Two([[3.0, 4.0]], [3.0, 4.0])
    stepped(Lamb(lr=0.1, weight_decay=0.01), module, [(torch.ones(1, 2), torch.ones(2), 0.1)])
    trust = 5 / 1.463728
    assert module.matrix.tolist()[0] == pytest.approx([3 - 0.1 * trust * 1.03, 4 - 0.1 * trust * 1.04], abs=2e-6)
    assert module.vector.tolist() == pytest.approx([2.9, 3.9], abs=1e-6)


def test_lamb_moves_a_matrix_of_zeros() -> None:
    module = Two([[0.0, 0.0]], [0.0])
    stepped(Lamb(lr=0.1, weight_decay=0.01), module, [(torch.ones(1, 2), torch.zeros(1), 0.1)])
    assert module.matrix.tolist()[0] == pytest.approx([-0.1, -0.1], abs=1e-6)
    assert module.vector.item() == 0.0


def test_lamb_without_correction_takes_a_longer_first_step_for_vectors() -> None:
    module = Two([[1.0]], [1.0])
    settings = Lamb(lr=0.1, betas=(0.9, 0.999), corrected=False)
    stepped(settings, module, [(torch.full((1, 1), 0.5), torch.full((1,), 0.5), 0.1)])
    assert module.vector.item() == pytest.approx(1 - 0.1 * 3.1620777, abs=2e-7)
    assert module.matrix.item() == pytest.approx(1 - 0.1, abs=1e-6)  # |p| / |u| * u is p's own length


GRADIENTS = torch.tensor([[0.3, -0.2, 0.1], [0.05, 0.4, -0.6]]), torch.tensor([0.2, -0.1])
BETAS = (0.9, 0.98)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_stable_adamw_with_one_outlier_is_adamw_scaled(decay: float) -> None:
    """Five steps of one gradient, then a hundredfold one of the matrix alone.

    v = 0.98 * (1 - 0.98^5) g² + 0.02 * (100 g)², corrected by 1 - 0.98^6: 1752.78 g², so rms = 100 / 41.866 = 2.38856.
    The outlier's step, decay included, is AdamW's at 1 / rms of the learning rate, for its tensor alone.
    """
    matrix, vector = GRADIENTS
    steps = [(matrix, vector, 0.01)] * 5
    expected = 0.98 * (1 - 0.98**5) + 0.02 * 100**2
    rms = 100 / (expected / (1 - 0.98**6)) ** 0.5
    assert rms == pytest.approx(2.38856, abs=1e-5)
    stable, plain, slower = (Two([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.2]], [1.0, 1.0]) for _ in range(3))
    stepped(StableAdamW(lr=0.01, betas=BETAS, weight_decay=decay), stable, [*steps, (100 * matrix, vector, 0.01)])
    adamw = AdamW(lr=0.01, betas=BETAS, weight_decay=decay)
    stepped(adamw, plain, [*steps, (100 * matrix, vector, 0.01)])
    stepped(adamw, slower, [*steps, (100 * matrix, vector, 0.01 / rms)])
    torch.testing.assert_close(stable.matrix, slower.matrix, rtol=0, atol=2e-6)
    torch.testing.assert_close(stable.vector, plain.vector, rtol=0, atol=2e-6)
    assert (stable.matrix - plain.matrix).abs().max() > 1e-3


@pytest.mark.parametrize(("fully", "left"), [(True, 1 - 0.5 * 0.01), (False, 1 - 0.05 * 0.01)])
def test_decay_of_stable_adamw(fully: bool, left: float) -> None:
    """At half of the highest learning rate, 0.1, with gradients of 0, which alone move nothing."""
    module = Two([[1.0]], [1.0])
    settings = StableAdamW(lr=0.1, weight_decay=0.01, fully_decoupled=fully)
    stepped(settings, module, [(torch.zeros(1, 1), torch.zeros(1), 0.05)])
    assert module.matrix.item() == pytest.approx(left, abs=1e-7)
    assert module.vector.item() == 1.0


@pytest.mark.parametrize("settings", [StableAdamW(lr=0.1), Lamb(lr=0.1), BertAdam(lr=0.1)], ids=lambda one: one.type)
def test_a_parameter_without_gradient_stays(settings: Optimizer) -> None:
    module = Two([[1.0]], [1.0])
    optimizer = build(settings, module, parameter_table(module, default_groups(settings, module)))
    module.matrix.grad = torch.ones(1, 1)
    optimizer.step()
    assert module.vector.item() == 1.0
    assert module.matrix.item() != 1.0
    assert list(optimizer.state) == [module.matrix]
