"""What else a model does: hidden states, blanks, predictions, and life without a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests import references
from tests.builders import SIZE, VOCAB, random_ids
from tests.model.conftest import WORDS
from tests.references import CASES

import bothways
from bothways.data.tokenizer_training import ByteLevelBpe, train_tokenizer
from bothways.errors import InputError
from bothways.families.family import Heads, Problem
from bothways.model.model import Model
from bothways.model.overflow import CutWarning, check_lengths
from bothways.model.settings import EmbeddingSettings
from bothways.ragged import Batch

Tiny = Callable[[str], Model]
CLS, SEP, MASK = 2, 3, 4


def test_hidden_states_take_ids_as_they_are(tiny: Tiny) -> None:
    """No special tokens are added, in whatever order the lengths come."""
    model = tiny("modernbert-masked_lm")
    rows = random_ids([7, 1, 30, 0, 7])
    found = model.hidden_states([row.tolist() for row in rows])
    with torch.no_grad():
        for ids, hidden in zip(rows, found, strict=True):
            assert hidden.shape == (len(ids), SIZE)
            assert hidden.dtype == np.float32
            np.testing.assert_allclose(hidden, model.encoder(Batch.of([ids])).hidden.numpy(), atol=1e-4, rtol=1e-5)


def test_hidden_states_of_texts_have_the_special_tokens(tiny: Tiny) -> None:
    model = tiny("bert-masked_lm")
    ids = [CLS, 5, 7, SEP]
    np.testing.assert_array_equal(model.hidden_states(["the cat"])[0], model.hidden_states([ids])[0])


@pytest.mark.parametrize("ids", [[1, VOCAB], [-1, 3]])
def test_ids_outside_the_vocabulary(tiny: Tiny, ids: list[int]) -> None:
    with pytest.raises(InputError, match=r"token ids must lie in 0\.\.100"):
        tiny("bert-masked_lm").hidden_states([[1], ids])


def test_ids_too_many(tiny: Tiny) -> None:
    with pytest.raises(InputError, match="257 tokens, the encoder takes at most 256"):
        tiny("bert-masked_lm").hidden_states([[5] * 257])


def test_no_tokenizer_fails_with_text_alone(tmp_path: object) -> None:
    case = next(case for case in CASES if str(case) == "bert-masked_lm")
    model = bothways.load(references.save(references.build(case), tmp_path))  # type: ignore[arg-type]
    assert model.tokenizer is None
    assert model.hidden_states([[5, 6]])[0].shape == (2, SIZE)
    for use in (lambda: model.encode(["text"]), lambda: model.hidden_states(["text"]), lambda: model.fill("[MASK]")):
        with pytest.raises(InputError, match="has no tokenizer; give token ids"):
            use()


@pytest.mark.parametrize("case", ["bert-masked_lm", "modernbert-masked_lm", "neobert-masked_lm", "roberta-masked_lm"])
def test_fill(tiny: Tiny, case: str) -> None:
    """The probabilities of every blank are the softmax of the logits there, best first.

    The embedding has more rows than the tokenizer has words: what has no word is no guess.
    """
    model = tiny(case)
    guesses = model.fill("the [MASK] sat on [MASK]", top=4)
    assert model.tokenizer is not None
    ids = model.tokenizer.encode(["the [MASK] sat on [MASK]"])[0]
    assert ids.tolist() == [CLS, 5, MASK, 9, 11, MASK, SEP]
    with torch.no_grad():
        expected = model.masked_lm(model.encoder(Batch.of([ids])).hidden).softmax(dim=-1)
    assert [len(blank) for blank in guesses] == [4, 4]
    for row, blank in zip((2, 5), guesses, strict=True):
        best = expected[row][: model.tokenizer.vocab_size].topk(4)
        assert [guess.probability for guess in blank] == pytest.approx(best.values.tolist(), rel=1e-4)
        for guess, token in zip(blank, best.indices.tolist(), strict=True):
            word = model.tokenizer.backend.id_to_token(token)
            place = {2: "the {} sat on [MASK]", 5: "the [MASK] sat on {}"}[row]
            assert (guess.token, guess.text) == (word, place.format(word))


def test_white_space_that_is_filled_in_can_be_read(tiny: Tiny) -> None:
    tokenizer = train_tokenizer(ByteLevelBpe(vocab_size=270, specials="bert"), ["a\n    b\n    c\n    d"] * 20)
    model = tiny("modernbert-masked_lm")
    spec = replace(model.spec, encoder=replace(model.spec.encoder, vocab_size=300))
    fresh = Model.create(model.family, spec, tokenizer)
    tokens = {guess.token for guess in fresh.fill("a [MASK] b", top=270)[0]}
    assert "'\\n'" in tokens
    assert "[PAD]" in tokens
    assert not any("Ċ" in token or "Ġ" in token for token in tokens)


def test_fill_needs_a_blank_and_a_head(tiny: Tiny) -> None:
    with pytest.raises(InputError, match=r"the text has no \[MASK\] to fill"):
        tiny("bert-masked_lm").fill("the cat")
    with pytest.raises(InputError, match="no masked-language-model head"):
        tiny("bert-classifier").fill("[MASK]")


def test_predict(tiny: Tiny) -> None:
    model = tiny("bert-classifier")
    probabilities = model.predict(["the cat sat", "a dog", "the cat sat"])
    assert probabilities.shape == (3, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(probabilities[0], model.predict(["the cat sat"])[0], atol=1e-6)
    encoded = model.encoder(Batch.of([[CLS, 6, 8, SEP]]))
    logits = model.heads["classifier"](encoded.hidden, encoded.ragged)
    np.testing.assert_allclose(probabilities[1], logits.softmax(dim=-1)[0].detach().numpy(), atol=1e-6)
    assert model.predict([]).shape == (0, 3)


def test_predict_pairs(tiny: Tiny) -> None:
    """The second text is of the second type."""
    model = tiny("bert-classifier")
    encoded = model.encoder(Batch.of([[CLS, 5, 7, SEP, 6, SEP]], types=[[0, 0, 0, 0, 1, 1]]))
    expected = model.heads["classifier"](encoded.hidden, encoded.ragged).softmax(dim=-1)
    np.testing.assert_allclose(model.predict([("the cat", "a")]), expected.detach().numpy(), atol=1e-6)


def test_a_longformer_predicts_with_a_global_first_token(tiny: Tiny) -> None:
    """As its class does; embedding has no global tokens."""
    model = tiny("longformer-classifier")
    words = [WORDS[5 + i % 7] for i in range(40)]
    ids = [CLS, *(WORDS.index(word) for word in words), SEP]
    theirs = references.build(next(case for case in CASES if str(case) == "longformer-classifier"))
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits.softmax(dim=-1)
        first = model.encoder(Batch.of([ids])).hidden[0]
    np.testing.assert_allclose(model.predict([" ".join(words)]), expected.numpy(), atol=1e-5)
    model.settings = EmbeddingSettings(pooling="cls")
    np.testing.assert_allclose(model.encode([" ".join(words)])[0], first.numpy(), atol=1e-5)


def test_predict_refuses(tiny: Tiny) -> None:
    model = tiny("bert-classifier")
    with pytest.raises(InputError, match="1 of 2 texts have more than 254 tokens"):
        model.predict(["a", "the " * 255])
    with pytest.raises(InputError, match=r"1 of 1 pairs have more than 253 tokens; the first .* 260; .*overflow='cut' cuts them"):
        model.predict([("the " * 200, "a " * 60)])
    with pytest.raises(InputError, match="has no classifier"):
        tiny("bert-masked_lm").predict(["a"])
    with pytest.warns(CutWarning):
        np.testing.assert_allclose(model.predict(["the " * 300], overflow="cut"), model.predict(["the " * 254]), atol=1e-6)

    with pytest.raises(InputError, match="overflow='chunk' is not supported here"):
        check_lengths([1], 2, "chunk", "texts")
    with pytest.raises(InputError, match="a list of pairs of texts, not both"):
        model.predict(["the cat", ("a", "b")])  # type: ignore[list-item]


def test_pairs_are_cut_at_the_end_of_their_longer_text(tiny: Tiny) -> None:
    model = tiny("bert-classifier")
    with pytest.warns(CutWarning, match=r"1 of 2 pairs were cut to 253 tokens \(7 tokens left out\)"):
        cut = model.predict([("the " * 200, "a " * 60), ("the", "a")], overflow="cut")
    np.testing.assert_allclose(cut, model.predict([("the " * 193, "a " * 60), ("the", "a")]), atol=1e-6)


def test_predict_reads_as_much_as_the_folder_says(tiny: Tiny) -> None:
    model = tiny("bert-classifier")
    model.settings = EmbeddingSettings(max_seq_length=5)
    with pytest.raises(InputError, match="1 of 2 texts have more than 3 tokens"):
        model.predict(["the cat sat", "the cat sat on"])
    with pytest.raises(InputError, match="1 of 1 pairs have more than 2 tokens"):
        model.predict([("the cat", "sat")])


@pytest.mark.parametrize("problem", [None, "regression", "single_label_classification"])
def test_a_single_output_is_given_as_it_is(tiny: Tiny, problem: Problem | None) -> None:
    """As a cross-encoder has it: its softmax would be 1 for any input."""
    model = tiny("bert-classifier")
    head = model.spec.heads.classifier
    assert head is not None
    model = model.with_heads(Heads(classifier=replace(head, labels=1)), problem=problem)
    encoded = model.encoder(Batch.of([[CLS, 6, 8, SEP]]))
    logits = model.heads["classifier"](encoded.hidden, encoded.ragged)
    np.testing.assert_allclose(model.predict(["a dog"]), logits.detach().numpy(), atol=1e-6)


def test_each_of_several_labels_has_its_own_probability(tiny: Tiny) -> None:
    model = tiny("bert-classifier")
    model.spec = replace(model.spec, problem="multi_label_classification")
    encoded = model.encoder(Batch.of([[CLS, 6, 8, SEP]]))
    logits = model.heads["classifier"](encoded.hidden, encoded.ragged)
    np.testing.assert_allclose(model.predict(["a dog"]), logits.sigmoid().detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("use", ["encode", "hidden_states", "predict"])
def test_one_text_is_no_list(tiny: Tiny, use: str) -> None:
    with pytest.raises(InputError, match=f"{use} takes a list of texts; wrap a single one in"):
        getattr(tiny("bert-classifier"), use)("the cat")


def test_the_fingerprint_knows_how_much_is_read(tiny: Tiny) -> None:
    """Where it is the tokenizer alone that says so, too."""
    one, other = tiny("bert-bare"), tiny("bert-bare")
    assert other.tokenizer is not None
    other.tokenizer.max_length = 4
    assert one.settings == other.settings
    assert one.fingerprint != other.fingerprint


def test_equal_fingerprints_embed_alike(tiny: Tiny) -> None:
    one, other = tiny("bert-bare"), tiny("bert-bare")
    assert one.fingerprint == other.fingerprint
    with torch.no_grad():
        other.encoder.layers[2].mixer.out.bias[0] += 1e-3  # type: ignore[union-attr, index, operator]
    assert one.fingerprint != other.fingerprint


def test_a_model_is_ready_to_be_trained_and_set_to_be_used(tiny: Tiny) -> None:
    model = tiny("bert-masked_lm")
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.parameters_count == sum(parameter.numel() for parameter in model.parameters())
    assert model.device.type == "cpu"


def test_fresh_models_are_functions_of_the_seed(tiny: Tiny) -> None:
    spec, family = tiny("modernbert-masked_lm").spec, tiny("modernbert-masked_lm").family
    one, again, other = (Model.create(family, spec, seed=seed) for seed in (1, 1, 2))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert torch.equal(tensor, other.state_dict()[name]) == ("norm" in name or name.endswith("bias"))
