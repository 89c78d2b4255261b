"""The certificate passes what is the same, fails what is not, and names the first thing that differs."""

from __future__ import annotations

import json
import math
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.builders import randomise
from tests.cli.conftest import WORDS

import bothways
from bothways.data.tokenizer import Tokenizer
from bothways.data.tokenizer_training import WordPiece, train_tokenizer
from bothways.encoder.encoder import EncoderLayer
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.errors import InputError
from bothways.evaluation.certificate import Certificate, read_certificate, summary, verify, write_certificate
from bothways.evaluation.checks import BFLOAT16, FLOAT32, INT8, Budget, budget_of
from bothways.evaluation.comparison import Rows, closeness, layer_gaps, overlap
from bothways.evaluation.probe import probe_texts
from bothways.families import FAMILIES
from bothways.families.bert import bert, masked_lm_head
from bothways.families.family import Family, Heads, Spec
from bothways.families.modernbert import modernbert
from bothways.layers.heads import ClassifierHead, Transform
from bothways.layers.replaced_token import ReplacedTokenHead
from bothways.model.model import Model
from bothways.model.settings import EmbeddingSettings

LAYERS, SIZE, LONGEST = 4, 24, 32
TEXTS = [
    "the cat sat",
    "a dog ran under the tree",
    "fish swim in the sea",
    "the mat",
    WORDS,
    "fish",
    "a sea",
    " ",
    "cat dog",
    "tree",
]


def family(name: str) -> Family:
    return next(one for one in FAMILIES if one.name == name)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(WordPiece(vocab_size=200), [WORDS])


@pytest.fixture(scope="module")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with a masked-language-model head, and settings that are not the defaults."""
    encoder = bert(tokenizer.vocab_size, hidden_size=SIZE, num_layers=LAYERS, heads=3, intermediate_size=20, max_length=LONGEST)
    model = Model.create(family("bert"), Spec(encoder, Heads(masked_lm=masked_lm_head(encoder))), tokenizer)
    model.settings = EmbeddingSettings(pooling="mean", normalize=True, prompts={"query": "fish "}, declared=True)
    randomise(model)
    return model.save(tmp_path_factory.mktemp("certificate") / "a")


@pytest.fixture
def reference(folder: Path) -> Model:
    return bothways.load(folder)


@pytest.fixture
def candidate(folder: Path) -> Model:
    return bothways.load(folder)


def certify(reference: Model, candidate: Model, budget: Budget | None = None, **options: bool) -> Certificate:
    return verify(reference, candidate, TEXTS, budget, rounds=0, **options)


def failing(certificate: Certificate) -> list[str]:
    assert (certificate.verdict == "failed") == bool(certificate.reason)
    names = [check.name for check in certificate.checks if check.passed is False]
    assert bool(names) == (certificate.verdict == "failed")
    return names


def found(certificate: Certificate, name: str) -> str:
    return next(f"{check.found}; {check.note}" for check in certificate.checks if check.name == name)


# -- the same -----------------------------------------------------------------------------------


def test_a_copy_passes(reference: Model, folder: Path, tmp_path: Path) -> None:
    copy = bothways.load(shutil.copytree(folder, tmp_path / "copy"))
    certificate = verify(reference, copy, probe_texts(), rounds=1, command="bothways verify a copy")
    assert failing(certificate) == []
    assert certificate.first_diverging is None
    assert all(layer.difference == 0 for layer in certificate.layers)
    assert [layer.name for layer in certificate.layers] == ["embedding", *(f"layer {i}" for i in range(LAYERS))]
    assert certificate.reference.fingerprint == certificate.candidate.fingerprint == reference.fingerprint
    assert (certificate.texts, certificate.command, certificate.candidate.name) == (130, "bothways verify a copy", copy.name)
    assert certificate.latency is not None
    assert all(seconds > 0 for seconds in (*certificate.latency.one, *certificate.latency.all))
    names = [check.name for check in certificate.checks]
    assert names == [
        *(
            "token ids",
            "pair ids",
            "pooling",
            "normalisation",
            "max_seq_length",
            "prompts",
            "layers",
            "mean cosine",
            "least cosine",
        ),
        *("vectors", "nearest 1", "nearest 10", "logits", "best token"),
    ]


# -- another --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(LAYERS))
@pytest.mark.parametrize(
    "weight",
    [
        lambda layer: layer.mixer.qkv.weight,
        lambda layer: layer.mixer.out.bias,
        lambda layer: layer.mixer_norm.weight,
        lambda layer: layer.mlp.up.weight,
        lambda layer: layer.mlp.down.weight,
        lambda layer: layer.mlp_norm.bias,
    ],
)
def test_one_weight_of_one_layer(
    reference: Model, candidate: Model, number: int, weight: Callable[[EncoderLayer], torch.Tensor]
) -> None:
    with torch.no_grad():
        weight(candidate.encoder.stack[number]).view(-1)[3] += 0.1
    certificate = certify(reference, candidate)
    assert "layers" in failing(certificate)
    assert certificate.first_diverging == f"layer {number}"
    assert certificate.reason.startswith("layers: ")
    assert f"first beyond: layer {number}" in certificate.reason
    assert [layer.name for layer in certificate.layers if layer.difference == 0] == [
        "embedding",
        *(f"layer {i}" for i in range(number)),
    ]


def test_the_embedding(reference: Model, candidate: Model) -> None:
    with torch.no_grad():
        candidate.encoder.embedding.norm.bias[0] += 0.1  # type: ignore[index]
    assert certify(reference, candidate).first_diverging == "embedding"


def test_weights_that_are_not_finite(reference: Model, candidate: Model) -> None:
    with torch.no_grad():
        candidate.encoder.stack[2].mlp.down.bias[0] = math.nan
    certificate = certify(reference, candidate)
    assert {"layers", "mean cosine", "least cosine", "vectors", "logits"} <= set(failing(certificate))
    assert certificate.first_diverging == "layer 2"
    assert "layers: not finite" in certificate.reason
    assert all(check.value is None for check in certificate.checks if check.found == "not finite")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("pooling", {"pooling": "cls"}),
        ("pooling", {"pooling": "max"}),
        ("normalisation", {"normalize": False}),
        ("max_seq_length", {"max_seq_length": 20}),
        ("prompts", {"prompts": {"query": "sea "}}),
        ("prompts", {"default_prompt": "query"}),
        ("prompts", {"include_prompt": False}),
    ],
)
def test_settings(reference: Model, candidate: Model, name: str, settings: dict[str, object]) -> None:
    """They are a failure by themselves, whatever the vectors say, and the layers stay what they are."""
    given = {"normalize": True, "prompts": {"query": "fish "}, "declared": True, **settings}
    candidate.settings = EmbeddingSettings(**given)  # type: ignore[arg-type]
    certificate = certify(reference, candidate, Budget(mean_cosine=0, least_cosine=0, vectors=9, neighbours=0))
    assert failing(certificate) == [name]
    assert certificate.first_diverging is None
    assert "candidate: " in certificate.reason


def test_a_tokenizer_of_other_ids(reference: Model, candidate: Model) -> None:
    swapped = reference.tokenizer
    assert swapped is not None
    vocabulary = json.loads(swapped.backend.to_str())
    words = vocabulary["model"]["vocab"]
    words["cat"], words["mat"] = words["mat"], words["cat"]
    candidate.tokenizer = Tokenizer(swapped.backend.from_str(json.dumps(vocabulary)))
    certificate = certify(reference, candidate)
    names = failing(certificate)
    assert names[0] == "token ids"
    assert "layers" not in names, "layers are compared where the ids are the same"
    cat, mat = (swapped.backend.token_to_id(word) for word in ("cat", "mat"))
    assert "first other: text 1, 'the cat sat', " in found(certificate, "token ids")
    assert f"token 2: {cat} 'cat' / {mat} 'cat'" in found(certificate, "token ids")
    assert failing(certify(reference, candidate, allow_tokenizer=True)) == names[2:]
    loose = Budget(mean_cosine=0, least_cosine=0, vectors=9, neighbours=0)
    assert failing(certify(reference, candidate, loose)) == ["token ids", "pair ids"]
    assert failing(certify(reference, candidate, loose, allow_tokenizer=True)) == []


def test_no_text_in_common(reference: Model, candidate: Model) -> None:
    """Other special tokens around every text: there is nothing to compare layers on."""
    assert reference.tokenizer is not None
    candidate.tokenizer = Tokenizer(reference.tokenizer.backend.from_str(reference.tokenizer.backend.to_str()))
    changed = json.loads(candidate.tokenizer.backend.to_str())
    changed["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [candidate.tokenizer.backend.token_to_id("the")]
    candidate.tokenizer = Tokenizer(reference.tokenizer.backend.from_str(json.dumps(changed)))
    certificate = certify(reference, candidate)
    assert "token ids" in failing(certificate)
    assert "layers" not in failing(certificate)
    for name in ("layers", "logits"):
        assert found(certificate, name) == "not compared; no text has the same token ids"


# -- other shapes and families --------------------------------------------------------------------


def other(tokenizer: Tokenizer, name: str, size: int = SIZE, layers: int = LAYERS, heads_on_it: Heads | None = None) -> Model:
    build = {"bert": bert, "modernbert": modernbert}[name]
    encoder = build(tokenizer.vocab_size, size, layers, heads=3, intermediate_size=20, max_length=LONGEST)
    model = Model.create(family(name), Spec(encoder, heads_on_it or Heads()), tokenizer)
    randomise(model)
    return model


def test_another_family_of_the_same_depth(reference: Model, tokenizer: Tokenizer) -> None:
    certificate = certify(reference, other(tokenizer, "modernbert"))
    assert [layer.name for layer in certificate.layers][-1] == "final norm"
    assert (certificate.candidate.family, certificate.first_diverging) == ("modernbert", "embedding")
    assert found(certificate, "head masked_lm") == "the candidate lacks it; "


def test_another_depth(reference: Model, tokenizer: Tokenizer) -> None:
    certificate = certify(reference, other(tokenizer, "bert", layers=2))
    assert certificate.layers == ()
    assert certificate.first_diverging is None
    assert found(certificate, "layers") == "not compared; the reference has 4, the candidate 2"
    assert "mean cosine" in failing(certificate)


def test_another_width_is_refused(reference: Model, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"vectors have 12 numbers, those of the reference, .*, 24"):
        certify(reference, other(tokenizer, "bert", size=12))


def test_heads(tokenizer: Tokenizer) -> None:
    """A label that flips; another number of labels; a head's bias, which no vector shows."""
    three, two = (Heads(classifier=ClassifierHead(labels=labels, transform=Transform(activation="tanh"))) for labels in (3, 2))
    one, same = (other(tokenizer, "bert", heads_on_it=three) for _ in range(2))
    assert failing(certify(one, same)) == []
    with torch.no_grad():
        same.heads["classifier"].out.bias[0] += 5  # type: ignore[union-attr]
    certificate = certify(one, same)
    assert failing(certificate) == ["outputs", "label flips"]
    assert certificate.first_diverging is None
    assert failing(certify(one, other(tokenizer, "bert", heads_on_it=two)))[-1] == "labels"


def test_a_masked_language_model_head(reference: Model, candidate: Model) -> None:
    with torch.no_grad():
        candidate.heads["masked_lm"].bias[7] += 50  # type: ignore[index]
    assert failing(certify(reference, candidate)) == ["logits", "best token"]


def test_a_head_that_the_candidate_lacks(reference: Model, candidate: Model) -> None:
    bare = candidate.with_heads(Heads())
    assert failing(certify(reference, bare)) == ["head masked_lm"]
    allowed = certify(reference, bare, allow_heads=True)
    assert (failing(allowed), found(allowed, "head masked_lm")) == ([], "not compared; only the reference has it")
    more = certify(bare, candidate)
    assert (failing(more), found(more, "head masked_lm")) == ([], "not compared; only the candidate has it")


OTHER_HEADS = {
    "pooler": Heads(pooler=Transform(activation="tanh")),
    "next_sentence": Heads(next_sentence=ClassifierHead(labels=2)),
    "sentence_order": Heads(sentence_order=ClassifierHead(labels=2)),
    "replaced_token": Heads(replaced_token=ReplacedTokenHead()),
    "mask_decoder": Heads(mask_decoder=MaskDecoderHead()),
}


@pytest.mark.parametrize("name", OTHER_HEADS)
def test_every_head_is_compared_and_named(tokenizer: Tokenizer, name: str) -> None:
    one, same = (other(tokenizer, "bert", heads_on_it=OTHER_HEADS[name]) for _ in range(2))
    passed = certify(one, same)
    assert (failing(passed), found(passed, f"head {name}")) == ([], "0; ")
    with torch.no_grad():
        for parameter in same.heads[name].parameters():
            parameter.mul_(1.1)
    assert failing(certify(one, same)) == [f"head {name}"]
    assert failing(certify(one, one.with_heads(Heads()))) == [f"head {name}"]


def test_a_head_of_another_shape(tokenizer: Tokenizer) -> None:
    two, three = (other(tokenizer, "bert", heads_on_it=Heads(next_sentence=ClassifierHead(labels=labels))) for labels in (2, 3))
    assert failing(certify(two, three)) == ["head next_sentence"]


def test_what_classes_mean(tokenizer: Tokenizer) -> None:
    """The same weights with names swapped, or read as another kind of problem, are another classifier."""
    heads = Heads(classifier=ClassifierHead(labels=2))
    one = other(tokenizer, "bert", heads_on_it=heads)
    named = one.with_heads(heads, labels=("no", "yes"))
    assert failing(certify(named, one.with_heads(heads, labels=("yes", "no")))) == ["class names"]
    assert failing(certify(named, one)) == ["class names"]
    assert failing(certify(one, one.with_heads(heads, labels=("LABEL_0", "LABEL_1")))) == []
    assert failing(certify(one, one.with_heads(heads, problem="single_label_classification"))) == []
    assert "problem" in failing(certify(one, one.with_heads(heads, problem="regression")))


def test_token_types(reference: Model, candidate: Model, tokenizer: Tokenizer) -> None:
    """Only pairs of texts show the second one's type."""
    with torch.no_grad():
        candidate.encoder.embedding.types.weight[1, 0] += 5  # type: ignore[union-attr]
    for certificate in (certify(reference, candidate), verify(reference, candidate, ["the cat"], rounds=0)):
        assert "layers" in failing(certificate)
        assert certificate.first_diverging == "embedding"
    heads = Heads(classifier=ClassifierHead(labels=2))
    one, same = (other(tokenizer, "bert", heads_on_it=heads) for _ in range(2))
    with torch.no_grad():
        same.encoder.embedding.types.weight[1, 0] += 5  # type: ignore[union-attr]
    loose = Budget(layers=99, flips=1)
    assert failing(certify(one, same, loose)) == ["outputs"]


def test_pairs_joined_in_another_way(reference: Model, candidate: Model) -> None:
    """Ids of single texts are the same; a pair's token types are not."""
    assert reference.tokenizer is not None
    backend = reference.tokenizer.backend
    changed = json.loads(backend.to_str())
    for part in changed["post_processor"]["pair"]:
        next(iter(part.values()))["type_id"] = 0
    candidate.tokenizer = Tokenizer(backend.from_str(json.dumps(changed)))
    assert failing(certify(reference, candidate)) == ["pair ids"]
    assert failing(certify(reference, candidate, allow_tokenizer=True)) == []


def test_a_masked_language_model_head_that_reads_nothing(reference: Model, candidate: Model) -> None:
    randomise(candidate.heads, 5)
    certificate = verify(reference, candidate, [""], rounds=0)
    assert found(certificate, "logits") == "not compared; no text has a token to mask"
    assert "best token" not in [check.name for check in certificate.checks]


# -- figures --------------------------------------------------------------------------------------


def test_closeness_by_hand() -> None:
    a = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], np.float32)
    b = np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]], np.float32)
    close = closeness(a, b)
    assert (close.mean_cosine, close.least_cosine, close.worst) == (pytest.approx(2 / 3), 0.0, 1)
    assert (close.largest, close.relative) == (2.0, 0.5)


def test_neighbours_by_hand() -> None:
    angles = np.array([0, 10, 30, 60, 100]) * math.pi / 180
    a = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert overlap(a, a, 1) == overlap(a, a, 10) == 1.0
    b = a.copy()
    b[1] = -a[1]  # its own neighbours, and those of 0 and 2, are others now
    assert overlap(a, b, 1) == pytest.approx(2 / 5)
    # two texts with the same vector stand for each other
    assert overlap(np.repeat(a, 2, axis=0), np.repeat(a, 2, axis=0)[::-1][::-1] + 1e-9, 1) == 1.0
    assert overlap(a[:1], a[:1], 1) is None


def test_layer_gaps_are_relative(reference: Model, candidate: Model) -> None:
    sequences = [np.arange(5, 12), np.arange(5, 30), np.arange(0)]
    with torch.no_grad():
        candidate.encoder.stack[-1].mlp_norm.bias[0] += 0.25  # type: ignore[index]
    (*same, (name, gap)) = layer_gaps(reference.encoder, candidate.encoder, Rows.of(sequences))
    assert {value for _, value in same} == {0.0}
    hidden = reference.hidden_states(sequences[:2])
    assert (name, gap) == ("layer 3", pytest.approx(0.25 / max(np.abs(one).max() for one in hidden), rel=1e-5))


def test_the_probe() -> None:
    texts = probe_texts()
    assert len(texts) == len(set(texts)) == 130
    assert all(texts)
    assert {len(text) for text in texts} >= {1, 2}
    assert max(map(len, texts)) > 2000
    scripts = "CYRILLIC ARABIC HEBREW DEVANAGARI BENGALI TAMIL THAI MYANMAR GEORGIAN ARMENIAN ETHIOPIC CJK HIRAGANA HANGUL GREEK"
    there = {unicodedata.name(letter, "?").split()[0] for text in texts for letter in text}
    assert set(scripts.split()) <= there


# -- budgets and files ----------------------------------------------------------------------------


def test_budgets() -> None:
    assert budget_of([]) == FLOAT32 == Budget()
    assert budget_of(["bfloat16"]) == BFLOAT16
    assert budget_of(["layers=0.5", "int8", "flips=1"]) == Budget(**{**vars(INT8), "layers": 0.5, "flips": 1.0})
    with pytest.raises(InputError, match=r"--budget float8: give one of float32, bfloat16, int8"):
        budget_of(["float8"])
    with pytest.raises(InputError, match=r"--budget layer=1: no field 'layer'; did you mean 'layers'\?"):
        budget_of(["layer=1"])
    with pytest.raises(InputError, match=r"--budget flips=2: flips: input should be less than or equal to 1"):
        budget_of(["flips=2"])


def test_rounded_weights_are_within_the_budget_of_their_type(reference: Model, folder: Path) -> None:
    half = bothways.load(folder)
    half.load_state_dict({name: tensor.bfloat16().float() for name, tensor in half.state_dict().items()})
    assert "layers" in failing(certify(reference, half))
    # these weights are random and large: their neighbours and best tokens hang by a thread
    loose = budget_of(["bfloat16", "neighbours=0.8", "top1=0.8"])
    assert failing(certify(reference, half, loose)) == []


def test_the_file(reference: Model, candidate: Model, folder: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(folder, tmp_path / "b"))
    assert read_certificate(there) is None
    passed = certify(reference, candidate)
    assert write_certificate(passed, there) == there / "certificate.json"
    assert read_certificate(there) == passed
    assert summary(passed) in (there / "README.md").read_text()
    (there / "README.md").unlink()
    write_certificate(passed, there)
    assert not (there / "README.md").exists()
    (there / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    candidate.settings = EmbeddingSettings(pooling="cls", normalize=True, prompts={"query": "fish "}, declared=True)
    for certificate in (passed, certify(reference, candidate), passed):
        write_certificate(certificate, there)
        card = (there / "README.md").read_text()
        assert card.startswith("---\nlicense: mit\n---\n# Mine\n\n<!-- bothways certificate -->\n")
        assert card.count("Parity with" if certificate is passed else "No parity with") == 1
        assert card.count("arity with") == 1
        assert summary(certificate) in card
    bothways.load(there, strict=True)
    for damaged in (b'{"verdict": "passed"}', b"\xff\xfe", b""):
        (there / "certificate.json").write_bytes(damaged)
        with pytest.raises(InputError, match=r"certificate\.json: "):
            read_certificate(there)


def test_what_cannot_be_compared(reference: Model, candidate: Model) -> None:
    with pytest.raises(InputError, match="there are no texts"):
        verify(reference, candidate, [])
    candidate.tokenizer = None
    with pytest.raises(InputError, match="has no tokenizer"):
        certify(reference, candidate)


def test_a_single_text_has_no_neighbours(reference: Model, candidate: Model) -> None:
    certificate = verify(reference, candidate, ["the cat"], rounds=0)
    assert certificate.verdict == "passed"
    assert found(certificate, "nearest 1") == "not compared; a single text"


def test_a_card_keeps_its_bytes(reference: Model, candidate: Model, folder: Path, tmp_path: Path) -> None:
    """All but the line: ends of lines, leading and trailing blank lines; and no line without a certificate."""
    there = Path(shutil.copytree(folder, tmp_path / "b"))
    passed = certify(reference, candidate)
    for card in (b"\n\n# mine\r\ntext\r\n\r\n\r\n", b"\n\n# mine\ntext  ", b"\xef\xbb\xbf# mine\n"):
        (there / "README.md").write_bytes(card)
        for _ in range(2):
            write_certificate(passed, there)
            written = (there / "README.md").read_bytes()
            assert written.startswith(card)
            assert written.count(b"arity with") == 1
            assert (b"\r\n" in card) == (b"-->\r\n" in written)
        (there / "README.md").write_bytes(written + b"\n\nmore\r\n")
        write_certificate(passed, there)
        assert (there / "README.md").read_bytes().endswith(b"-->" + written[-2:].lstrip(b">") + b"\n\nmore\r\n")
    (there / "certificate.json").unlink()
    (there / "certificate.json").mkdir()
    (there / "README.md").write_bytes(b"# mine\n")
    with pytest.raises(InputError, match="cannot write"):
        write_certificate(passed, there)
    assert (there / "README.md").read_bytes() == b"# mine\n"
