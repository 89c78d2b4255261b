"""What only version 4 of `transformers` needs in a config, and version 5 lets pass. `make older` runs it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.families import deberta, deberta_v2, modernbert
from bothways.families.convert import Reader
from bothways.families.family import Family, Spec
from bothways.layers.attention import Attention
from bothways.layers.position import Rotary
from bothways.layers.scaling import Linear, Scaling, Yarn

SIZES: dict[str, Any] = {"vocab_size": 50, "hidden_size": 24, "num_layers": 4, "heads": 3, "intermediate_size": 20}
DEBERTAS = {"deberta": (deberta.FAMILY, deberta.deberta), "deberta-v2": (deberta_v2.FAMILY, deberta_v2.deberta_v2)}


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("name", DEBERTAS)
def test_the_released_head_of_deberta_ties_nothing(name: str, legacy: bool) -> None:
    """Version 4 ties the dense layer of the head to the table, if told to tie, and then cannot load it."""
    family, build = DEBERTAS[name]
    config = family.write(Spec(encoder=build(**SIZES), legacy=legacy))
    assert (config["legacy"], config["tie_word_embeddings"]) == (legacy, legacy)
    assert not unknown(family, config)


WRITTEN = {key: value for key, value in deberta.FAMILY.write(Spec(encoder=deberta.deberta(**SIZES))).items() if key != "legacy"}


@pytest.mark.parametrize("said", [{}, {"legacy": True}])
def test_a_legacy_head_of_its_own_is_refused(said: dict[str, bool]) -> None:
    with pytest.raises(InputError, match="tie_word_embeddings"):
        unknown(deberta.FAMILY, {**WRITTEN, "tie_word_embeddings": False, **said})


def unknown(family: Family, config: dict[str, Any]) -> list[str]:
    reader = Reader(config, "config.json")
    family.read(reader, ())
    return reader.unknown(family.inert)


def scaled(*scalings: Scaling | None) -> EncoderConfig:
    """A ModernBERT whose global and local layers are scaled so."""
    base = modernbert.modernbert(**SIZES)
    layers = []
    for layer in base.layers:
        mixer = layer.mixer
        assert isinstance(mixer, Attention)
        position = mixer.position
        assert isinstance(position, Rotary)
        scaling = scalings[0 if mixer.window is None else -1]
        layers.append(replace(layer, mixer=replace(mixer, position=replace(position, scaling=scaling))))
    return replace(base, layers=tuple(layers))


YARN = Yarn(factor=4.0, original_length=64)


@pytest.mark.parametrize(
    ("scalings", "kind"),
    [
        ((YARN,), "yarn"),
        ((Linear(factor=2.0),), "linear"),
        ((None,), None),
        ((YARN, None), None),
        ((YARN, Linear(factor=2.0)), None),
    ],
)
def test_one_scaling_of_modernbert_is_said_once_more(scalings: tuple[Scaling | None, ...], kind: str | None) -> None:
    encoder = scaled(*scalings)
    config = modernbert.FAMILY.write(Spec(encoder=encoder))
    said = config["rope_scaling"]
    assert said is None if kind is None else (said["rope_type"] == kind and "rope_theta" not in said)
    again = modernbert.FAMILY.read(Reader(config, "config.json"), ()).encoder
    assert [again.layer(i).mixer for i in range(4)] == [encoder.layer(i).mixer for i in range(4)]
