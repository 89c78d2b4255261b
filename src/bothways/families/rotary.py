"""Rotary positions in published configs: one place that reads and writes how they are scaled.

`transformers` 4 says `rope_theta` and `rope_scaling`, version 5 says both in `rope_parameters`. Where a file has the
two, `rope_scaling` wins, as there. Of the ways of `transformers`, "dynamic", "longrope" and "proportional" are refused.
"""

from __future__ import annotations

from typing import Any

from bothways.errors import InputError
from bothways.families.convert import Reader
from bothways.layers.position import Rotary
from bothways.layers.scaling import Linear, Llama3, Scaling, Yarn

_KINDS = ("default", "linear", "llama3", "yarn")
_LAYERS = ("full_attention", "sliding_attention")


def read_rotary(reader: Reader, theta: float, max_length: int) -> Rotary:
    """The rotary positions that all layers share; `theta` is the family's default."""
    reader.only("partial_rotary_factor", None, 1.0)
    scaling, parameters = reader.get("rope_scaling", {}), reader.get("rope_parameters", {})
    base = float(reader.get("rope_theta", float(theta)))
    # outside of the parameters, it wins over that inside
    original = reader.get("original_max_position_embeddings", 0)
    where = f"{reader.where}: {'rope_scaling' if scaling else 'rope_parameters'}"
    return read_scaled(Reader(scaling or parameters, where), base, max_length, original)


def read_nested(reader: Reader, kind: str, theta: float, max_length: int) -> Rotary:
    """The rotary positions of one kind of layers; `theta` is what older keys or the family say."""
    both = Reader(reader.get("rope_parameters", {}), f"{reader.where}: rope_parameters")
    one = Reader(both.get(kind, {}), f"{both.where}.{kind}")
    if strange := both.unknown(_LAYERS):
        raise InputError(f"{both.where}: {', '.join(strange)} is not supported")
    # scaling beside the nested parameters is laid over those of both kinds, without its older name "type"
    over = reader.get("rope_scaling", {})
    where = f"{reader.where}: rope_scaling over rope_parameters.{kind}" if over else one.where
    laid = Reader({"rope_type": "default", **one.data, **over}, where)
    rotary = read_scaled(laid, theta, reader.get("max_position_embeddings", max_length))
    if isinstance(rotary.scaling, Yarn) and not rotary.scaling.truncate:
        raise InputError(f"{where}: truncate=False is not supported; transformers does not heed it in nested parameters")
    return rotary


def read_scaled(reader: Reader, theta: float, max_length: int, original: int = 0) -> Rotary:
    """Rotary positions from one object of parameters, whose own base comes before `theta`.

    Args:
        max_length: the original length of a config that names none.
        original: the original length, where the config says it outside of the object.

    Raises:
        InputError: a way that is not supported, a key that it does not have, a number missing.
    """
    reader.only("partial_rotary_factor", None, 1.0)
    theta = float(reader.get("rope_theta", theta))
    # "type" is the older name, and says nothing beside the newer
    old = reader.get("type", "default")
    scaling = _scaling(reader, reader.get("rope_type", old), max_length, original)
    if strange := reader.unknown(()):
        raise InputError(f"{reader.where}: {', '.join(strange)} is not supported")
    return Rotary(theta=theta, scaling=scaling)


def _scaling(reader: Reader, kind: str, max_length: int, original: int) -> Scaling | None:
    if kind == "default":
        return None
    if kind == "dynamic":
        raise InputError(
            f"{reader.where}: rope_type='dynamic' is not supported: its frequencies depend on the longest text of the batch; "
            "yarn, linear or a larger rope_theta read longer texts"
        )
    if kind not in _KINDS:
        raise InputError(f"{reader.where}: rope_type={kind!r} is not supported; supported: {', '.join(_KINDS)}")
    if kind == "linear":
        return Linear(factor=_number(reader, "factor"))
    length = original or reader.get("original_max_position_embeddings", max_length)
    reader.get("original_max_position_embeddings")
    if kind == "llama3":
        low, high = _number(reader, "low_freq_factor"), _number(reader, "high_freq_factor")
        return Llama3(factor=_number(reader, "factor"), original_length=length, low=low, high=high)
    # a null stands for how much longer the texts are
    factor = max_length / length if "factor" in reader.data and reader.get("factor") is None else _number(reader, "factor")
    return Yarn(
        factor=factor,
        original_length=length,
        # a zero stands for the default, as in `transformers`
        beta_fast=float(reader.get("beta_fast", 32.0)) or 32.0,
        beta_slow=float(reader.get("beta_slow", 1.0)) or 1.0,
        attention_factor=_optional(reader, "attention_factor"),
        mscale=_optional(reader, "mscale") or None,
        mscale_all_dim=_optional(reader, "mscale_all_dim") or None,
        truncate=reader.get("truncate", True),
    )


def _number(reader: Reader, key: str) -> float:
    if reader.data.get(key) is None:
        raise InputError(f"{reader.where}: no '{key}', which this rope_type needs")
    return float(reader.get(key, 1.0))


def _optional(reader: Reader, key: str) -> float | None:
    return None if reader.get(key) is None else float(reader.get(key, 1.0))


def write_rotary(rotary: Rotary) -> dict[str, Any]:
    """The keys of rotary positions that all layers share, in both spellings."""
    parameters = write_scaled(rotary)
    scaling = None if rotary.scaling is None else {key: value for key, value in parameters.items() if key != "rope_theta"}
    said = {"rope_theta": rotary.theta, "rope_scaling": scaling, "rope_parameters": parameters}
    # outside of the parameters it wins, so one of a folder that was loaded may not stay as it was
    length = "original_max_position_embeddings"
    return {**said, length: parameters[length]} if length in parameters else said


def write_scaled(rotary: Rotary) -> dict[str, Any]:
    """One object of parameters."""
    match rotary.scaling:
        case None:
            said: dict[str, Any] = {"rope_type": "default"}
        case Linear(factor=factor):
            said = {"rope_type": "linear", "factor": factor}
        case Llama3() as one:
            said = {"rope_type": "llama3", "factor": one.factor, "low_freq_factor": one.low, "high_freq_factor": one.high}
            said["original_max_position_embeddings"] = one.original_length
        case Yarn() as one:
            said = {"rope_type": "yarn", "factor": one.factor, "original_max_position_embeddings": one.original_length}
            said |= {"beta_fast": one.beta_fast, "beta_slow": one.beta_slow, "truncate": one.truncate}
            ours = {"attention_factor": one.attention_factor, "mscale": one.mscale, "mscale_all_dim": one.mscale_all_dim}
            said |= {key: value for key, value in ours.items() if value is not None}
    return {**said, "rope_theta": rotary.theta}
