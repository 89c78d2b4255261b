"""Going on from a model: its own head decides what is learned, and nothing that it has is lost without a word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.builders import CONFIGS, randomise

import bothways
from bothways import Model
from bothways.data.masking import DEBERTA_V3, ELECTRA, Masking
from bothways.data.source import TextFiles
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import WordPiece, train_tokenizer
from bothways.data.vocabulary import Vocabulary
from bothways.encoder.config import EncoderConfig
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.encoder.generator import GivenEncoder, generator_of, narrowed
from bothways.errors import InputError
from bothways.families import BY_NAME, electra
from bothways.families.bert import masked_lm_head
from bothways.families.deberta_v2 import deberta_v2
from bothways.families.family import Heads, Spec
from bothways.layers.heads import ClassifierHead
from bothways.layers.replaced_token import ReplacedTokenHead
from bothways.model.settings import EmbeddingSettings
from bothways.objectives.auto_encoding import Denoising
from bothways.objectives.decoded_lm import DecodedLanguageModeling
from bothways.objectives.masked_lm import MaskedLanguageModeling
from bothways.objectives.replaced_token import ReplacedTokenDetection, ReplacedTokens
from bothways.objectives.sharing import DisentangledTables, NothingShared, SharedTables, Sharing, WholeEmbedding
from bothways.recipes.assembling import assemble, build
from bothways.recipes.continuing import adaptation, continued
from bothways.recipes.pretraining import check, pretrain
from bothways.recipes.published import RECIPES
from bothways.recipes.runs import Pretraining, TextVectors
from bothways.training import record
from bothways.training.schedule import Steps

WORDS = "the cat sat on the mat. a dog ran after the cat. " * 60
ONE = Steps(count=1)


@pytest.fixture
def texts(tmp_path: Path) -> TextFiles:
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join([WORDS] * 4))
    return TextFiles(paths=(str(path),), split="paragraph")


@pytest.fixture
def tokenizer() -> Tokenizer:
    return train_tokenizer(WordPiece(vocab_size=101), [WORDS], 32)


def saved(family: str, encoder: EncoderConfig, heads: Heads, tokenizer: Tokenizer, path: Path) -> str:
    model = Model.create(BY_NAME[family], Spec(encoder=encoder, heads=heads), tokenizer)
    randomise(model)
    return str(model.save(path))


def config(family: str) -> EncoderConfig:
    if family == "electra":
        return electra.electra(101, 24, 24, 2, 1, 64, 32)
    if family == "deberta-v2":
        return deberta_v2(101, 24, 2, 3, 64, 32)
    return replace(CONFIGS[family], vocab_size=101, max_length=32)


def objective_of(run: Pretraining) -> object:
    return build(run, Vocabulary.of(bothways.load(str(run.start)).tokenizer))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["electra", "deberta-v2", "albert", "ernie_gram", "bert"])
def test_a_model_of_masked_tokens_goes_on_with_these(family: str, texts: TextFiles, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Whatever the recipes of its family learn from; its own head goes on, and is saved."""
    encoder = config(family)
    start = saved(family, encoder, Heads(masked_lm=masked_lm_head(encoder)), tokenizer, tmp_path / "start")
    run = adaptation(texts, ONE, start)
    objective = objective_of(run)
    assert type(objective) is MaskedLanguageModeling
    assert run.masking == Masking(rate=0.15)
    theirs = bothways.load(start).heads["masked_lm"].state_dict()
    assert all(torch.equal(theirs[name], one) for name, one in objective.head.state_dict().items())
    assert set(assemble(run, tokenizer, objective)[0].heads.keys()) == {"masked_lm"}
    check(replace(run, general=texts))  # what is forgotten can be told


def test_a_discriminator_goes_on_as_one(texts: TextFiles, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """By ELECTRA's masks, with a generator a quarter as wide: even where a third would be no equal heads (ELECTRA-large)."""
    head = ReplacedTokenHead()
    encoder = electra.electra(101, 128, 128, 2, 2, 64, 32)
    start = saved("electra", encoder, Heads(replaced_token=head), tokenizer, tmp_path / "start")
    run = adaptation(texts, ONE, start)
    objective = objective_of(run)
    assert isinstance(objective, ReplacedTokenDetection)
    assert run.masking == ELECTRA
    assert objective.generator.config == narrowed(encoder, 1 / 4)
    theirs = bothways.load(start).heads["replaced_token"].state_dict()
    assert all(torch.equal(theirs[name], one) for name, one in objective.head.state_dict().items())
    with pytest.raises(InputError, match="general: what is forgotten is told by masked tokens alone"):
        check(replace(run, general=texts))
    with pytest.raises(InputError, match="not 5 equal heads"):
        narrowed(electra.SIZES["large"], 1 / 3)
    narrowed(electra.SIZES["large"], 1 / 4)


def test_a_mixtures_discriminator_goes_on_as_one(texts: TextFiles, tokenizer: Tokenizer, tmp_path: Path) -> None:
    heads = Heads(replaced_token=ReplacedTokenHead())
    start = saved("bothways", config("modernbert"), heads, tokenizer, tmp_path / "start")
    assert isinstance(objective_of(adaptation(texts, ONE, start)), ReplacedTokenDetection)


def with_decoder(tokenizer: Tokenizer, path: Path) -> str:
    encoder = config("deberta")
    return saved("deberta", encoder, Heads(masked_lm=masked_lm_head(encoder), mask_decoder=MaskDecoderHead()), tokenizer, path)


def test_an_enhanced_mask_decoder_goes_on(texts: TextFiles, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The head was trained behind it: both go on, and are saved."""
    start = with_decoder(tokenizer, tmp_path / "start")
    run = adaptation(texts, ONE, start)
    assert run.decoder == MaskDecoderHead()
    objective = objective_of(run)
    assert isinstance(objective, DecodedLanguageModeling)
    theirs = bothways.load(start).heads["mask_decoder"].state_dict()
    assert all(torch.equal(theirs[name], one) for name, one in objective.decoder.state_dict().items())
    told: list[str] = []
    folder = pretrain(run, tmp_path / "run", told.append).folder
    assert set(bothways.load(folder / "model", strict=True).heads.keys()) == {"masked_lm", "mask_decoder"}
    assert not any(start in line for line in told)


def test_what_is_left_behind_is_told(texts: TextFiles, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Heads that the run does not save, those that begin fresh, and how texts become vectors."""
    encoder, told = config("bert"), list[str]()
    heads = Heads(masked_lm=masked_lm_head(encoder), next_sentence=_next_sentence())
    start = saved("bert", encoder, heads, tokenizer, tmp_path / "start")
    run = adaptation(texts, ONE, start)
    vocabulary = Vocabulary.of(tokenizer)
    build(run, vocabulary, told.append)
    assert told == [f"{start}: its next_sentence will not be in the model that is saved"]
    told.clear()
    build(replace(run, vectors=TextVectors(task=Denoising())), vocabulary, told.append)
    assert told == [f"{start}: its masked_lm, next_sentence will not be in the model that is saved"]
    told.clear()
    model = Model.create(BY_NAME["bert"], Spec(encoder=encoder), tokenizer)
    model.settings = EmbeddingSettings(declared=True)
    bare = str(model.save(tmp_path / "bare"))
    build(adaptation(texts, ONE, bare), vocabulary, told.append)
    assert told == [
        f"{bare}: has no masked_lm; the run's begins with fresh weights",
        f"{bare}: how its texts become vectors (pooling, prompts) is not carried over",
    ]


def _next_sentence() -> ClassifierHead:
    pairs = RECIPES["bert_next_sentence"](TextFiles(paths=("x",)), ONE, "toy").pairs  # type: ignore[union-attr]
    assert pairs is not None
    return pairs.head


def pair_of(encoder: EncoderConfig, generator: EncoderConfig, tokenizer: Tokenizer, folder: Path, alike: bool) -> tuple[str, str]:
    """A discriminator and a generator on the same embedding, or on two."""
    model = Model.create(BY_NAME["electra"], Spec(encoder=encoder, heads=Heads(replaced_token=ReplacedTokenHead())), tokenizer)
    small = Model.create(
        BY_NAME["electra"], Spec(encoder=generator, heads=Heads(masked_lm=masked_lm_head(generator, "gelu"))), tokenizer
    )
    for seed, one in enumerate((model, small)):
        randomise(one, seed)
    if alike:
        ours = small.encoder.embedding.state_dict()
        theirs = model.encoder.embedding.state_dict()
        shared = {name: theirs[name] for name in ours if name.split(".")[0] in ("tokens", "positions", "types", "norm")}
        small.encoder.embedding.load_state_dict({**ours, **shared})
    return str(model.save(folder / "model")), str(small.save(folder / "generator"))


SHARINGS = [WholeEmbedding(), SharedTables(), DisentangledTables(), NothingShared()]


@pytest.mark.parametrize("sharing", SHARINGS, ids=lambda one: one.type)
def test_a_generator_goes_on_beside(sharing: Sharing, texts: TextFiles, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Both networks are what the folders hold, at the first step, whatever they share."""
    encoder = electra.electra(101, 24, 48, 2, 2, 64, 32)
    start, small = pair_of(encoder, narrowed(encoder, 1 / 2), tokenizer, tmp_path, alike=True)
    base = RECIPES["electra"](texts, ONE, "toy")
    assert isinstance(base, Pretraining)
    run = continued(replace(base, replaced_tokens=ReplacedTokens(sharing=sharing)), start, (), small)
    assert run.replaced_tokens is not None
    assert run.replaced_tokens.generator == GivenEncoder(encoder=narrowed(encoder, 1 / 2))
    objective = objective_of(run)
    for model, folder in zip(assemble(run, tokenizer, objective), (start, small), strict=True):  # type: ignore[arg-type]
        theirs = bothways.load(folder).state_dict()
        ours = model.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(theirs[name], one) for name, one in ours.items()), folder
    trained = pretrain(run, tmp_path / "run")
    assert trained.result.step == 1


def test_disentangled_tables_differ_from_the_generators(texts: TextFiles, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A discriminator that has gone its own way keeps it as a difference; tables that are one cannot be two."""
    encoder = electra.electra(101, 24, 48, 2, 2, 64, 32)
    start, small = pair_of(encoder, narrowed(encoder, 1 / 2), tokenizer, tmp_path, alike=False)
    base = RECIPES["electra"](texts, ONE, "toy")
    assert isinstance(base, Pretraining)

    def run(sharing: Sharing) -> Pretraining:
        return continued(replace(base, replaced_tokens=ReplacedTokens(sharing=sharing)), start, (), small)

    apart = run(DisentangledTables())
    objective = objective_of(apart)
    assert isinstance(objective, ReplacedTokenDetection)
    for model, folder in zip(assemble(apart, tokenizer, objective), (start, small), strict=True):
        theirs = bothways.load(folder).encoder.embedding.tokens.weight
        torch.testing.assert_close(model.encoder.embedding.tokens.weight, theirs, atol=1e-6, rtol=0)
    for sharing in (WholeEmbedding(), SharedTables()):
        with pytest.raises(InputError, match=r"replaced_tokens\.start: embedding\..* is not that of .*disentangled_tables"):
            objective_of(run(sharing))


def test_generators_that_cannot_be(texts: TextFiles, tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoder = electra.electra(101, 24, 48, 2, 2, 64, 32)
    start, small = pair_of(encoder, narrowed(encoder, 1 / 2), tokenizer, tmp_path, alike=True)
    with pytest.raises(InputError, match="has no masked-language head, and a generator fills in"):
        adaptation(texts, ONE, start, (), start)
    with pytest.raises(InputError, match="generator: nothing is replaced"):
        adaptation(texts, ONE, small, (), small)
    run = adaptation(texts, ONE, start, (), small)
    with pytest.raises(InputError, match=r"replaced_tokens\.start: .* goes with start"):
        check(replace(run, start=None))


def test_a_generator_of_other_tokens(texts: TextFiles, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """As large a vocabulary is not the same one."""
    encoder = electra.electra(101, 24, 48, 2, 2, 64, 32)
    start, _ = pair_of(encoder, narrowed(encoder, 1 / 2), tokenizer, tmp_path, alike=True)
    other = train_tokenizer(WordPiece(vocab_size=90), ["xylophone quartz vex jumbo " * 40], 32)
    _, small = pair_of(encoder, narrowed(encoder, 1 / 2), other, tmp_path / "other", alike=True)
    with pytest.raises(InputError, match="has not the tokenizer of"):
        adaptation(texts, ONE, start, (), small)


def test_new_tokens_are_both_networks(texts: TextFiles, tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoder = electra.electra(101, 24, 48, 2, 2, 64, 32)
    start, small = pair_of(encoder, narrowed(encoder, 1 / 2), tokenizer, tmp_path, alike=True)
    run = adaptation(texts, ONE, start, ("zeugma", "catdog"), small)
    objective = build(run, Vocabulary.unknown(run.encoder.vocab_size))
    assert isinstance(objective, ReplacedTokenDetection)
    assert objective.generator.embedding.tokens is objective.encoder.embedding.tokens


def test_a_run_of_deberta_v3_goes_on_with_its_generator(texts: TextFiles, tmp_path: Path) -> None:
    """By its own way of sharing, though the two tables have gone apart; and the other parts are the folders'."""
    first = RECIPES["deberta_v3"](texts, Steps(count=2), "toy")
    assert isinstance(first, Pretraining)
    out = pretrain(first, tmp_path / "v3").folder
    start, small = str(out / "model"), str(out / "generator")
    run = adaptation(texts, ONE, start, (), small)
    assert run.masking == DEBERTA_V3
    assert run.replaced_tokens is not None
    assert isinstance(run.replaced_tokens.sharing, DisentangledTables)
    objective = objective_of(run)
    tokenizer = bothways.load(start).tokenizer
    assert tokenizer is not None
    for model, folder in zip(assemble(run, tokenizer, objective), (start, small), strict=True):  # type: ignore[arg-type]
        theirs = bothways.load(folder).state_dict()
        for name, one in model.state_dict().items():
            torch.testing.assert_close(one, theirs[name], atol=1e-6, rtol=0)


def test_layers_of_a_half_deep_generator_have_their_rates(texts: TextFiles, tmp_path: Path) -> None:
    """DeBERTa v3: the shared base is moved by the generator alone, and has its depth; the difference has the discriminator's."""
    run = RECIPES["deberta_v3"](texts, ONE, "toy")
    assert isinstance(run, Pretraining)
    assert run.replaced_tokens is not None
    depth, small = run.encoder.num_layers, generator_of(run.replaced_tokens.generator, run.encoder).num_layers
    assert small < depth
    trained = pretrain(replace(run, training=replace(run.training, layer_decay=0.5)), tmp_path / "run")
    known = record.read(trained.folder)
    assert known is not None
    rates = {name: row.lr for row in known.parameters for name in (row.name, *row.shared)}
    top = max(rates.values())
    assert rates["generator.embedding.tokens.weight"] == pytest.approx(top * 0.5**small)
    assert rates["encoder.embedding.tokens.delta"] == pytest.approx(top * 0.5**depth)
