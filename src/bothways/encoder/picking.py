"""A shallower encoder that begins as some of the layers of a trained one (DistilBERT, arXiv 1910.01108)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError


def spread_layers(teacher: int, student: int) -> tuple[int, ...]:
    """The teacher's layer that each of the student's begins as: from the first to the last, evenly, halves to the even number.

    Layer i is round(i · (teacher - 1) / (student - 1)): of twelve layers for six 0, 2, 4, 7, 9, 11, which are DistilBERT's;
    of six for three 0, 2, 5. A single layer is the first.

    Raises:
        InputError: more layers than the teacher has, or none.
    """
    if not 1 <= student <= teacher:
        raise InputError(f"a student of {student} layers cannot begin as layers of a teacher of {teacher}; choose 1 to {teacher}")
    apart = (teacher - 1) / max(student - 1, 1)
    return tuple(round(i * apart) for i in range(student))


def check_layers(config: EncoderConfig, layers: Sequence[int]) -> None:
    """Make sure that an encoder of these layers can begin as them.

    Raises:
        InputError: a number that is no layer, none at all, layers that are shared, or a first layer without a norm elsewhere
            than at the beginning.
    """
    if not layers or not all(0 <= number < config.num_layers for number in layers):
        chosen = ", ".join(map(str, layers)) or "none"
        raise InputError(f"layers: {chosen}, but the teacher's are 0 to {config.num_layers - 1}")
    if config.shared is not None:
        raise InputError(
            "layers: the teacher's are shared between depths, so none can be taken by itself; give the student a config"
        )
    if config.skip_first_norm and [number == 0 for number in layers] != [i == 0 for i in range(len(layers))]:
        raise InputError(
            "layers: the teacher's first layer has no norm before it, so it must be the student's first, and no other"
        )


def picked(state: Mapping[str, Tensor], layers: Sequence[int]) -> dict[str, Tensor]:
    """Copies of a model's weights, of whose layers these alone are left, numbered anew; one that is chosen twice comes twice."""
    copies: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not name.startswith("encoder.layers."):
            copies[name] = tensor.detach().clone()
            continue
        number, rest = name.removeprefix("encoder.layers.").split(".", 1)
        for place, chosen in enumerate(layers):
            if chosen == int(number):
                copies[f"encoder.layers.{place}.{rest}"] = tensor.detach().clone()
    return copies
