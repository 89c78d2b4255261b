"""The published runs: their papers' figures, what a size changes, and that a model keeps what its fresh weights came from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import bothways
from bothways.config import from_json, to_json
from bothways.data.masking import ALBERT, BERT, DEBERTA_V3, ELECTRA, MODERNBERT, NEOBERT, RETROMAE, ROBERTA, Masking
from bothways.data.sentence_blocks import WholeSentences
from bothways.data.sentence_pairs import NextSentence, SentenceOrder
from bothways.data.source import TextFiles
from bothways.encoder.config import EncoderConfig
from bothways.encoder.encoder import Encoder
from bothways.encoder.generator import generator_of
from bothways.families import FAMILIES
from bothways.families.family import Heads, Spec
from bothways.layers.heads import MaskedLm, MaskedLmHead
from bothways.layers.position import Rotary
from bothways.layers.replaced_token import ReplacedToken
from bothways.model.model import Model
from bothways.recipes.published import RECIPES
from bothways.recipes.recipe import Size, divided
from bothways.recipes.runs import Pretraining, SentencePairs, Staged
from bothways.training.optimizer import AdamW, BertAdam, Lamb, StableAdamW
from bothways.training.ramp import EqualUpdates, micro_batches
from bothways.training.schedule import Elapsed, Hours, Steps, Tokens, factor, units

SOURCE = TextFiles(paths=("texts",))
BILLION = 10**9


def stages(name: str, size: Size = "base") -> tuple[Pretraining, ...]:
    run = RECIPES[name](SOURCE, None, size)
    return run.runs if isinstance(run, Staged) else (run,)


def update(run: Pretraining) -> int:
    """Tokens of a full step."""
    return run.batching.tokens * run.training.accumulate


def rate(run: Pretraining, share: float) -> float:
    """The learning rate when this share of the budget is spent."""
    budget = run.training.budget
    assert not isinstance(budget, Hours)
    return run.training.optimizer.lr * factor(run.training.schedule, share * budget.count, budget.count)  # type: ignore[arg-type]


def thetas(encoder: EncoderConfig) -> set[tuple[bool, float]]:
    """Whether a layer has a window, and its rotary base."""
    return {(one.window is not None, one.position.theta) for one in encoder.attentions if isinstance(one.position, Rotary)}


# -- what is to be had of the papers --------------------------------------------------------------

# encoder and head; BERT and RoBERTa as transformers counts them, the others as test_counts.py does; ModernBERT's head adds
# 768² + 768 + 50,368 to 149,014,272. cramming: 16 · (4 · 768² + 3 · 768 · 1536 + 4 · 768) + 32768 · 768, norms of 4 · 768 around
# them but for the first layer's, and the head's 768² + 2 · 768 + 32,768.
COUNTS = {
    "bert": 109_514_298,
    "bert_next_sentence": 109_514_298,
    # 24 layers of 4 (1024² + 1024), 2 · 4096 · 1024 + 5120 and two norms; the tables and theirs; the head
    "cubert": 24 * 12_596_224 + (50_048 + 512 + 2) * 1024 + 2048 + (1024**2 + 1024 + 2048 + 50_048),
    "albert": 11_221_680,
    "tunbert": 109_514_298,
    "roberta": 124_697_433,
    "gottbert": 124_697_433 + (52_000 - 50_265) * 769,
    "mosaicbert": 137_400_384,
    "modernbert": 149_655_232,
    "modernbert_short": 149_655_232,
    "speedrun": 149_655_232,
    "rexbert": 149_655_232,
    "ettin": 16_913_600,
    "neobert": 245_136_954,
    # with the head for replaced tokens, a matrix and a row of the hidden size and their biases; DeBERTa's has a norm before them
    "electra": 109_483_009,
    "electra_small": 13_549_057,
    "deberta_v3": 183_831_552 + 768**2 + 4 * 768 + 1,
    "modernbert_rtd": 149_014_272 + 768**2 + 768 + 1,
    # a table of 33 rows for 12 heads in the place of two rows of token types
    "ernie_gram": 109_514_298 - 2 * 768 + 33 * 12,
    "retromae": 109_514_298,
    # of 12 layers: 4 matrices of attention, 3 of the MLP, two norms without biases; two tables, and the last norm
    "biphasic": 12 * (4 * 768**2 + 3 * 768 * 3072 + 2 * 768) + 2 * 128_256 * 768 + 768,
    "cramming": 16 * (4 * 768**2 + 3 * 768 * 1536 + 4 * 768) + 32768 * 768 + 2 * 768 + (768**2 + 2 * 768 + 32768),
}
# family, tokens a full step, highest rates, share masked, tokens a text, and the budget of each stage
FIGURES = {
    "bert_next_sentence": ("bert", [131_072], [1e-4], [0.15], [512], [Steps(count=1_000_000)]),
    "cubert": ("bert", [131_072], [1e-4], [0.15], [512], [Steps(count=1_000_000)]),
    "albert": ("albert", [4096 * 512], [0.00176], [0.15], [512], [Steps(count=125_000)]),
    "bert": ("bert", [131_072], [1e-4], [0.15], [512], [Steps(count=1_000_000)]),
    "tunbert": ("bert", [128 * 128], [1e-4], [0.15], [128], [Steps(count=616_000)]),
    "roberta": ("roberta", [2048 * 512], [5e-4], [0.15], [512], [Steps(count=125_000)]),
    "gottbert": ("roberta", [8192 * 512], [4e-4], [0.15], [512], [Steps(count=100_000)]),
    "mosaicbert": ("mosaicbert", [4096 * 128], [5e-4], [0.3], [128], [Steps(count=70_000)]),
    "neobert": (
        "neobert", [2_097_152] * 2, [6e-4, 6e-5], [0.2, 0.2], [1024, 4096], [Steps(count=1_000_000), Steps(count=50_000)],
    ),
    "modernbert": (
        "modernbert", [4608 * 1024] * 3, [8e-4, 3e-4, 3e-4], [0.3] * 3, [1024, 8192, 8192],
        [Tokens(count=billions * BILLION) for billions in (1719, 250, 50)],
    ),
    "ettin": (
        "modernbert", [4608 * 1024, 4608 * 8192, 4608 * 8192], [3e-3, 3e-3, 1.5e-3], [0.3, 0.3, 0.15], [1024, 7999, 7999],
        [Tokens(count=billions * BILLION) for billions in (1700, 250, 50)],
    ),
    "electra": ("electra", [256 * 512], [2e-4], [0.15], [512], [Steps(count=766_000)]),
    "electra_small": ("electra", [128 * 128], [5e-4], [0.15], [128], [Steps(count=1_000_000)]),
    "ernie_gram": ("ernie_gram", [256 * 512], [1e-4], [0.15], [512], [Steps(count=1_000_000)]),
    "deberta_v3": ("deberta-v2", [256 * 512], [1e-4], [0.15], [512], [Steps(count=1_000_000)]),
    "speedrun": ("modernbert", [32 * 1024], [0.02], [0.4], [1024], [Hours(hours=1.0)]),
    "retromae": ("bert", [256 * 512], [1e-4], [0.3], [512], [Tokens(count=35 * BILLION)]),
    "biphasic": ("eurobert", [512 * 2048] * 2, [5e-4] * 2, [0.4] * 2, [2048] * 2, [Tokens(count=50 * BILLION)] * 2),
    "cramming": ("modernbert", [8192 * 128], [1e-3], [0.25], [128], [Elapsed(hours=24.0)]),
}  # fmt: skip

# masks; the optimizer, its betas, eps and decay, and the limit of gradients, as the papers or their code have them. MosaicBERT's
# decay of 1e-5 is decoupled from its rate of 5e-4
UPDATES = {
    "bert": (BERT, BertAdam, (0.9, 0.999), 1e-6, 0.01, 1.0),
    "roberta": (ROBERTA, AdamW, (0.9, 0.98), 1e-6, 0.01, None),
    "gottbert": (ROBERTA, AdamW, (0.9, 0.98), 1e-6, 0.01, None),
    "albert": (ALBERT, Lamb, (0.9, 0.999), 1e-6, 0.01, 1.0),
    "electra": (ELECTRA, BertAdam, (0.9, 0.999), 1e-6, 0.01, 1.0),
    "electra_small": (ELECTRA, BertAdam, (0.9, 0.999), 1e-6, 0.01, 1.0),
    "deberta_v3": (DEBERTA_V3, AdamW, (0.9, 0.999), 1e-6, 0.01, 1.0),
    "mosaicbert": (Masking(rate=0.3), AdamW, (0.9, 0.98), 1e-6, 0.02, None),
    "modernbert": (MODERNBERT, StableAdamW, (0.9, 0.98), 1e-6, 1e-5, None),
    "neobert": (NEOBERT, AdamW, (0.9, 0.95), 1e-8, 0.1, 1.0),
    "retromae": (RETROMAE, AdamW, (0.9, 0.999), 1e-8, 0.01, 1.0),
    "cramming": (Masking(rate=0.25), AdamW, (0.9, 0.98), 1e-12, 0.01, 0.5),
}


def head_of(run: Pretraining) -> nn.Module:
    """What stands on the encoder while it is trained."""
    size = run.encoder.hidden_size
    if run.replaced_tokens is not None and run.ngrams is None:
        return ReplacedToken(run.replaced_tokens.head, size)
    return MaskedLm(run.head, size, run.encoder.vocab_size, run.encoder.embedding.size)


@pytest.mark.parametrize("name", RECIPES)
def test_parameters_of_the_paper(name: str) -> None:
    (first, *_) = stages(name)
    with torch.device("meta"):
        encoder = Encoder(first.encoder)
        head = head_of(first)
    assert sum(parameter.numel() for module in (encoder, head) for parameter in module.parameters()) == COUNTS[name]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_the_paper(name: str) -> None:
    family, updates, rates, masked, lengths, budgets = FIGURES[name]
    runs = stages(name)
    assert [update(run) for run in runs] == updates
    assert all(run.batching.tokens <= 16384 for run in runs)  # what a device can hold
    assert [run.training.optimizer.lr for run in runs] == pytest.approx(rates)
    assert [run.masking.rate for run in runs] == masked
    assert [run.max_length for run in runs] == lengths
    assert [run.training.budget for run in runs] == budgets
    assert {run.family for run in runs} == {family}


@pytest.mark.parametrize("name", UPDATES)
def test_masks_and_updates_of_the_paper(name: str) -> None:
    """Nothing that a neighbouring recipe has by mistake: its masks, its optimizer, its limit of gradients."""
    (run, *_) = stages(name)
    masking, optimizer, betas, eps, decay, clip = UPDATES[name]
    assert run.masking == masking
    used = run.training.optimizer
    assert isinstance(used, optimizer)
    assert (used.betas, used.eps, used.weight_decay, run.training.clip) == (betas, eps, decay, clip)  # type: ignore[union-attr]


def test_samples_of_roberta_are_whole_sentences() -> None:
    """Of one document after another; GottBERT's are broken anywhere."""
    assert (stages("roberta")[0].blocks, stages("gottbert")[0].blocks) == (WholeSentences(), None)


def test_the_rate_of_modernbert_over_its_stages() -> None:
    general, context, anneal = stages("modernbert")
    assert units(general.training.schedule.warmup, 1719 * BILLION) == pytest.approx(3 * BILLION)  # type: ignore[union-attr]
    assert [rate(general, share) for share in (0.5, 1.0)] == pytest.approx([8e-4, 8e-4])
    assert [rate(context, share) for share in (0.0, 1.0)] == pytest.approx([3e-4, 3e-4])
    # 0.001 + 0.999 · (1 - sqrt(t))
    assert [rate(anneal, t) / 3e-4 for t in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx(
        [1, 0.5005, 0.2936, 0.1348, 0.001], abs=5e-5
    )
    assert [run.training.optimizer.type for run in (general, context, anneal)] == ["stable_adamw"] * 3
    assert {one.out_dropout for one in general.encoder.attentions} == {0.1}
    assert general.held_out_rate == 0.15
    assert [thetas(run.encoder) for run in (general, context, anneal)] == [
        {(False, 10_000.0), (True, 10_000.0)},
        {(False, 160_000.0), (True, 10_000.0)},
        {(False, 160_000.0), (True, 10_000.0)},
    ]


@pytest.mark.parametrize(("name", "first", "billions"), [("modernbert", 768, 50), ("ettin", 144, 125)])
def test_batches_that_grow(name: str, first: int, billions: int) -> None:
    """From the first size to 4,608 samples of 1,024 tokens, each size for as many updates, within so many tokens."""
    run = stages(name)[0]
    training = run.training
    assert isinstance(training.ramp, EqualUpdates)
    sizes, tokens, step = [], 0, 0
    while not sizes or sizes[-1] < 4608:
        micro = micro_batches(training.ramp, training.accumulate, step, 0, 1)
        sizes.append(micro * run.batching.tokens // 1024)
        tokens, step = tokens + micro * run.batching.tokens, step + 1
    assert (sizes[0], sizes[-1]) == (first, 4608)
    assert len({sizes.count(size) for size in set(sizes) - {4608}}) == 1
    assert tokens == pytest.approx(billions * BILLION, rel=0.01)
    assert all(one.training.ramp is None for one in stages(name)[1:])


def test_ettins_phases() -> None:
    general, context, decay = stages("ettin")
    assert units(general.training.schedule.warmup, 1700 * BILLION) == pytest.approx(4 * BILLION)  # type: ignore[union-attr]
    assert [rate(one, share) for one in (context, decay) for share in (0.0, 1.0)] == pytest.approx([3e-3, 1.5e-3, 1.5e-3, 6e-5])
    assert [run.training.optimizer.weight_decay for run in (general, context, decay)] == [3e-4] * 3
    assert thetas(decay.encoder) == {(False, 160_000.0), (True, 160_000.0)}
    assert thetas(context.encoder) == {(False, 160_000.0), (True, 10_000.0)}


def test_the_clock_of_cramming() -> None:
    """The rate follows the hours that have passed, from a quarter to its height at three quarters; batches grow to 60 %."""
    (run,) = stages("cramming")
    training = run.training
    day = 24 * 3600
    assert [rate(run, share) for share in (0.0, 0.375, 0.75, 0.875, 1.0)] == pytest.approx([2.5e-4, 6.25e-4, 1e-3, 5e-4, 0.0])
    sizes = [micro_batches(training.ramp, training.accumulate, 0, share * day, day) * 128 for share in (0.0, 0.3, 0.59, 0.6, 1.0)]
    assert sizes[0] < sizes[1] < sizes[2] < 8192
    assert sizes[3:] == [8192, 8192]
    assert RECIPES["cramming"](SOURCE, Hours(hours=2.0), "base").training.budget == Elapsed(hours=2.0)  # type: ignore[union-attr]
    assert {one.dropout for one in run.encoder.attentions} == {0.0}
    assert training.clip == 0.5


def test_the_mixture_of_neobert() -> None:
    general, context = stages("neobert")
    assert general.by_length is None
    assert [(one.at_least, one.weight) for one in context.by_length or ()] == [(0, 20), (1024, 40), (2048, 40)]
    assert (general.masking.mask, general.masking.random) == (1.0, 0.0)
    assert [rate(general, 0.002), rate(general, 1.0), rate(context, 0.0), rate(context, 1.0)] == pytest.approx(
        [6e-4, 6e-5, 6e-5, 6e-5]
    )


def test_mosaicbert_loses_the_published_share_of_a_weight() -> None:
    """Its optimizer takes 1e-5 of a weight in a step at the highest rate; AdamW takes lr · weight_decay."""
    (run,) = stages("mosaicbert")
    optimizer = run.training.optimizer
    assert optimizer.lr * optimizer.weight_decay == pytest.approx(1e-5)  # type: ignore[union-attr]
    assert (run.held_out_rate, run.training.schedule.final, run.training.seed) == (0.15, 0.02, 17)  # type: ignore[union-attr]


def test_the_second_tasks() -> None:
    """As published: a tenth of the documents in short pairs, ten and forty copies, a single sentence beside a random one."""
    (first,), (second,) = stages("bert_next_sentence"), stages("albert")
    assert first.pairs == SentencePairs(task=NextSentence(short=0.1, copies=10))
    assert second.pairs is not None
    assert second.pairs.task == SentenceOrder(short=0.1, copies=40, single="random")
    assert second.pairs.head.dropout == 0.1
    assert second.masking == ALBERT
    assert units(second.training.schedule.warmup, 125_000) == pytest.approx(3125)  # type: ignore[union-attr]
    assert replace(first, pairs=None) == stages("bert")[0]
    (code,) = stages("cubert")
    assert code.pairs == SentencePairs(task=NextSentence(short=0.1, copies=10, sentences="lines"))


@pytest.mark.parametrize(
    ("name", "generator", "sharing"),
    [
        ("electra", (256, 12, 4, 1024), "embedding"),
        ("electra_small", (64, 12, 1, 256), "embedding"),
        ("ernie_gram", (256, 12, 4, 1024), "embedding"),
        ("deberta_v3", (768, 6, 12, 3072), "disentangled_tables"),
        ("modernbert_rtd", (192, 22, 3, 288), "embedding"),
    ],
)
def test_the_generators_of_the_papers(name: str, generator: tuple[int, ...], sharing: str) -> None:
    (run,) = stages(name)
    settings = run.replaced_tokens
    assert settings is not None
    small = generator_of(settings.generator, run.encoder)
    layer = small.layer(0)
    assert (small.hidden_size, small.num_layers, layer.mixer.heads, layer.mlp.size) == generator  # type: ignore[union-attr]
    assert (settings.sharing.type, settings.weight, settings.temperature, settings.disallow_correct) == (sharing, 50, 1, False)
    masked = {"deberta_v3": (1.0, 0.0), "ernie_gram": (1.0, 0.0)}.get(name, (0.85, 0.0))
    assert (run.masking.mask, run.masking.random) == masked
    assert (run.masking == DEBERTA_V3) == (settings.clipping == "apart") == (name == "deberta_v3")
    assert (settings.head.beside_first is not None) == (name == "deberta_v3")
    assert (run.masking == DEBERTA_V3) == (name == "deberta_v3")


def test_comments_are_documents_of_a_line() -> None:
    assert stages("tunbert")[0].source.split == "line"  # type: ignore[union-attr]


def test_rexbert_says_what_is_not_published() -> None:
    page = " ".join((RECIPES["rexbert"].make.__doc__ or "").split())
    assert "not published" in page
    assert [stage.name for stage in RECIPES["rexbert"](SOURCE, None).stages] == ["general", "context", "domain"]  # type: ignore[union-attr]


# -- sizes and budgets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "shares", "expected"),
    [
        (Steps(count=20), (1719, 250, 50), [16, 3, 1]),
        (Steps(count=3), (1719, 250, 50), [1, 1, 1]),
        (Tokens(count=2019), (1719, 250, 50), [1719, 250, 50]),
        (Hours(hours=2.0), (3, 1), [1.5, 0.5]),
    ],
)
def test_a_budget_is_divided_by_shares(budget: Steps | Tokens | Hours, shares: tuple[int, ...], expected: list[float]) -> None:
    parts = divided(budget, shares)
    assert [one.hours if isinstance(one, Hours | Elapsed) else one.count for one in parts] == expected
    assert all(type(one) is type(budget) for one in parts)


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_is_json(name: str) -> None:
    for size in ("toy", "tiny", "mini", "base"):
        run = RECIPES[name](SOURCE, Steps(count=9), size)
        assert from_json(type(run), to_json(run), "here") == run


@pytest.mark.parametrize("name", RECIPES)
def test_weights_of_a_narrow_network_are_drawn_larger(name: str) -> None:
    base, tiny = (stages(name, size)[0].encoder for size in ("base", "tiny"))
    assert base.initialisation.spread == 0.02
    # sums of hidden_size terms have the same variance: 768 * 0.02^2 = 128 * 0.04899^2
    assert tiny.initialisation.spread == pytest.approx(0.04898979)


@pytest.mark.parametrize("name", RECIPES)
def test_a_saved_model_keeps_its_initialisation(name: str, tmp_path: Path) -> None:
    run = stages(name, "tiny")[-1]
    family = next(one for one in FAMILIES if one.name == run.family)
    head: MaskedLmHead = run.head
    spec = Spec(encoder=run.encoder, heads=Heads(masked_lm=head), pad_id=int(run.family == "roberta"))
    folder = Model.create(family, spec, None, seed=0).save(tmp_path / "model")
    read = bothways.load(folder, strict=True).spec.encoder
    if name == "speedrun":  # whose layers begin as the identity, for which ModernBERT's folders have no words
        run = stages("modernbert_short", "tiny")[-1]
    assert (read.initialisation, thetas(read), read.max_length) == (
        run.encoder.initialisation, thetas(run.encoder), run.encoder.max_length,
    )  # fmt: skip
