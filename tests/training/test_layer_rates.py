"""Learning rates that fall with the depth: which, under every optimizer, and what has none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.builders import CONFIGS, LAYERS
from torch import nn

from bothways.data.masking import Masking
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.encoder import Encoder
from bothways.errors import InputError
from bothways.layers.heads import MaskedLm, MaskedLmHead
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.training.layer_rates import with_layer_decay
from bothways.training.optimizer import AdamW, Lamb, Muon, Optimizer, build, default_groups, parameter_table, set_lr

from .toy import Toy

DECAY = 0.5
OPTIMIZERS: list[Optimizer] = [AdamW(lr=0.1), Lamb(lr=0.1), Muon(lr=0.2, rest=AdamW(lr=0.1), head_lr=0.05)]


def objective(name: str) -> MaskedLanguageModeling:
    config = CONFIGS[name]
    head = MaskedLm(MaskedLmHead(tied=False, bias=True), config.hidden_size, config.vocab_size, config.embedding.size)
    return MaskedLanguageModeling(Encoder(config), head, Masking(), Vocabulary.unknown(config.vocab_size))


def rates(module: nn.Module, settings: Optimizer, decay: float | None) -> dict[str, float]:
    table = parameter_table(module, default_groups(settings, module))
    return {row.name: row.lr for row in with_layer_decay(table, module, decay)}


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=lambda one: one.type)
def test_golden_rates(settings: Optimizer) -> None:
    """Five layers, halved at each: the highest keeps its rate, and so do heads; embeddings have a 32nd."""
    module = objective("deberta-v2")
    assert LAYERS == 5
    was, now = rates(module, settings, None), rates(module, settings, DECAY)
    factors = {"encoder.embedding.": 1 / 32, "encoder.relative.": 1 / 32, "encoder.convolution.": 1 / 16, "head.": 1.0}
    factors |= {f"encoder.layers.{number}.": factor for number, factor in enumerate((1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0))}
    met = set()
    for name, rate in now.items():
        (prefix,) = (one for one in factors if name.startswith(one))
        assert rate == was[name] * factors[prefix], name
        met.add(prefix)
    assert met == set(factors)
    if isinstance(settings, Muon):  # groups of their own keep their proportions
        assert now["head.decoder.weight"] == pytest.approx(0.25)
        assert now["encoder.layers.4.mixer.qkv.weight"] == 1.0
        assert now["encoder.layers.3.mixer.qkv.weight"] == 0.5


def test_what_stands_behind_the_layers_keeps_its_rate() -> None:
    module = objective("modernbert")
    assert rates(module, AdamW(lr=0.1), DECAY)["encoder.final_norm.weight"] == 1.0


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=lambda one: one.type)
def test_the_optimizer_moves_by_these_rates(settings: Optimizer) -> None:
    """The same gradients: what a step changes is what it would have been, times the factor."""
    moved = []
    for decay in (None, DECAY):
        torch.manual_seed(0)
        module = objective("bert")
        before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
        table = with_layer_decay(parameter_table(module, default_groups(settings, module)), module, decay)
        optimizer = build(settings, module, table)
        draws = torch.Generator().manual_seed(1)
        for parameter in module.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draws)
        set_lr(optimizer, settings.lr)
        optimizer.step()
        moved.append({name: parameter.detach() - before[name] for name, parameter in module.named_parameters()})
    names = [name for name in moved[0] if name.startswith("encoder.layers.1.")]
    assert len(names) > 8
    for name in names:
        torch.testing.assert_close(moved[1][name], moved[0][name] / 8, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(moved[1]["head.decoder.weight"], moved[0]["head.decoder.weight"], rtol=0, atol=0)


def test_shared_layers_and_no_layers_are_refused() -> None:
    shared = objective("albert")
    with pytest.raises(InputError, match=r"encoder\.layers\.0\..* has .* and 4 layers above it at once, since layers share it"):
        rates(shared, AdamW(lr=0.1), DECAY)
    assert set(rates(shared, AdamW(lr=0.1), None).values()) == {1.0}
    with pytest.raises(InputError, match="no layers of an encoder"):
        rates(Toy(), AdamW(lr=0.1), DECAY)


def test_tables_shared_by_encoders_of_one_depth_have_one_rate_and_of_two_none() -> None:
    config = CONFIGS["bert"]
    large, small = Encoder(config), Encoder(config)
    small.embedding = large.embedding
    both = nn.ModuleList([large, small])
    assert rates(both, AdamW(lr=0.1), DECAY)["0.embedding.tokens.weight"] == 1 / 32
    shallow = Encoder(replace(config, num_layers=2))
    shallow.embedding = large.embedding
    with pytest.raises(InputError, match=r"0\.embedding\.tokens\.weight has 2 and 5 layers above it"):
        rates(nn.ModuleList([large, shallow]), AdamW(lr=0.1), DECAY)
