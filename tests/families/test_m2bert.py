"""M2-BERT's folders: released names and keys, pickles that hold a tensor under several names, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests import references
from tests.builders import LONGEST, gap, random_ids
from tests.references import CASES

import bothways
from bothways.errors import InputError
from bothways.layers.heads import pool
from bothways.ragged import Batch


def folder_of(path: Path, case: str = "m2_bert-masked_lm", **changes: Any) -> Path:
    """A folder of the reference, its config changed; None takes a key out."""
    references.save(references.build(next(one for one in CASES if str(one) == case)), path)
    config = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return path


def pickled(path: Path, **more: torch.Tensor) -> Path:
    """The weights as the published class's state dict has them: a shared tensor under each of its names, buffers beside them."""
    weights = load_file(path / "model.safetensors")
    for name in [name for name in weights if name.endswith("implicit_filter.1.freq")]:
        start = name.removesuffix("implicit_filter.1.freq")
        for copy in ("implicit_filter.3", "implicit_filter.5", *(f"implicit_filter_rev.{i}" for i in (1, 3, 5))):
            weights[f"{start}{copy}.freq"] = weights[name]
    weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    weights["bert.embeddings.position_ids"] = torch.arange(LONGEST)[None]
    torch.save(weights | more, path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    return path


# the keys of the published configs: those of BERT, of the class's own config, and of the yaml of the retrieval models
RELEASED = {
    "alibi_starting_size": 512, "attention_pooling": False, "attention_probs_dropout_prob": 0.0, "classifier_dropout": None,
    "expand_positional_embeddings": False, "gather_sentence_embeddings": True, "gradient_checkpointing": False,
    "hidden_dropout_prob": 0.1, "hyena_filter_dropout": 0.2, "hyena_lr_pos_emb": 1e-05, "hyena_w_mod": 1, "hyena_wd": 0.1,
    "initializer_range": 0.02, "long_conv_kernel_learning_rate": 0.001, "num_attention_heads": 12,
    "performing_BEIR_evaluation": True, "position_embedding_type": "absolute", "sequence_token_planting": False,
    "use_cache": True, "use_flash_fft": False, "use_flash_mm": False, "use_normalized_embeddings": False,
}  # fmt: skip


def test_a_pickled_checkpoint_with_all_released_keys(tmp_path: Path) -> None:
    expected = bothways.load(folder_of(tmp_path / "plain"), strict=True)
    model = bothways.load(pickled(folder_of(tmp_path / "released", **RELEASED)), strict=True)
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in model.state_dict().items())
    kept = json.loads((model.save(tmp_path / "ours") / "config.json").read_text())
    assert kept["hyena_lr_pos_emb"] == 1e-5


def test_an_older_config_that_calls_itself_bert(tmp_path: Path) -> None:
    """With the key that MosaicBERT is told from BERT by, as released, or without."""
    for name, size in (("with", 512), ("without", None)):
        folder = folder_of(tmp_path / name, model_type="bert", alibi_starting_size=size)
        assert bothways.load(folder, strict=True).family.name == "m2_bert"


def test_sines_of_different_frequencies_are_refused(tmp_path: Path) -> None:
    other = {"bert.encoder.layer.2.attention.filter_fn2.implicit_filter_rev.5.freq": torch.zeros(1, 16)}
    with pytest.raises(InputError, match=r"implicit_filter_rev.5.freq differs from .*implicit_filter.1.freq"):
        bothways.load(pickled(folder_of(tmp_path / "odd"), **other))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_monarch_mlp": None}, "use_monarch_mlp is not true"),
        ({"monarch_mixer_sequence_mixing": False}, "monarch_mixer_sequence_mixing is not true"),
        ({"use_glu_mlp": False}, "use_glu_mlp=False is not supported"),
        ({"hyena_w_mod": 2}, "hyena_w_mod=2 is not supported"),
        ({"hyena_emb_dim": 4}, "features: 4 is no odd number"),
        ({"use_flash_mm": True}, "use_flash_mm=True is not supported"),
        ({"sequence_token_planting": True}, "sequence_token_planting=True is not supported"),
        ({"attention_pooling": True}, "attention_pooling=True is not supported"),
        ({"long_conv_l_max": 128}, "length: 128 positions are fewer than max_length 256"),
        ({"monarch_mlp_nblocks": 3}, "blocks: 3 does not divide"),
        ({"pad_token_id": 101}, "filler: 101 is no token"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        bothways.load(folder_of(tmp_path / "model", **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mean_pooler_without_its_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pool_all=True is supported for a classifier on the pooler"):
        bothways.load(folder_of(tmp_path / "model", "m2_bert-bare", pool_all=True))


def test_the_variant_at_a_texts_own_length_is_said_in_the_config(tmp_path: Path) -> None:
    """And is what the published code computes of a text alone, if its caller does not pad."""
    model = bothways.load(folder_of(tmp_path / "own", pad_to_full_length=False), strict=True)
    assert model.spec.encoder.filler is None
    assert bothways.load(model.save(tmp_path / "again"), strict=True).spec.encoder.filler is None
    case = next(one for one in CASES if str(one) == "m2_bert-masked_lm")
    theirs = references.build(case).bert
    theirs.config = {**theirs.config, "max_position_embeddings": 40}
    (ids,) = random_ids([40])
    with torch.no_grad():
        rows = torch.from_numpy(ids)[None]
        expected = theirs(rows, torch.ones_like(rows), torch.zeros_like(rows)).last_hidden_state[0]
        assert gap(model.encoder(Batch.of([ids])).hidden, expected) <= 1e-5


def test_the_published_embedding_is_the_poolers(tmp_path: Path) -> None:
    """The vector that the retrieval models' code returns, by the parts of ours."""
    case = next(one for one in CASES if str(one) == "m2_bert-classifier")
    model, theirs = bothways.load(folder_of(tmp_path / "retrieval", "m2_bert-classifier")), references.build(case).bert
    (ids,) = random_ids([40])
    rows = torch.from_numpy(np.pad(ids, (0, LONGEST - 40)))[None]
    with torch.no_grad():
        expected = theirs(rows, (torch.arange(LONGEST) < 40).long()[None], torch.zeros_like(rows)).pooler_output
        encoded = model.encoder(Batch.of([ids]))
        assert gap(model.heads["classifier"].transform(pool("cls", encoded.hidden, encoded.ragged)), expected) <= 1e-5
