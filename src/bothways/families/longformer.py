"""Longformer (arXiv 2004.05150): RoBERTa whose tokens see a window, and some of them everything.

`attention_window` is the width w of a layer's window, w/2 tokens to each side and the token itself, so
w + 1 keys; one for all layers, or one for each. Global tokens have query, key and value projections of
their own (`query_global`, ...). Its tables of weights and its heads are RoBERTa's. The classifier looks
at the first token, and makes it a global one; otherwise the batch says which tokens are. (The HF class
pads rows to a multiple of the window; here nothing is padded.)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from bothways.encoder.config import EncoderConfig
from bothways.errors import InputError
from bothways.families import roberta
from bothways.families.bert import write_encoder
from bothways.families.convert import Fuse, Reader, Rename, Rule
from bothways.families.family import INERT, Family, Heads, Inexpressible, Spec, attention_of, class_name
from bothways.layers.heads import ClassifierHead
from bothways.layers.position import Learned


def longformer(
    vocab_size: int = 50265,
    hidden_size: int = 768,
    num_layers: int = 12,
    heads: int = 12,
    intermediate_size: int = 3072,
    max_length: int = 4096,
    windows: int | Sequence[int] = 512,
    initializer_range: float = 0.02,
) -> EncoderConfig:
    """Longformer's encoder; the defaults are longformer-base-4096. `windows` are full widths: one, or one a layer.

    Raises:
        InputError: a width that is odd or below 2, or as many widths as there are no layers.
    """
    encoder = roberta.roberta(
        vocab_size, hidden_size, num_layers, heads, intermediate_size, max_length, initializer_range=initializer_range
    )
    return windowed(encoder, windows, "longformer: windows")


def windowed(encoder: EncoderConfig, windows: int | Sequence[int], where: str) -> EncoderConfig:
    """A RoBERTa-shaped encoder with windows of these widths and global tokens; `where` is named in errors.

    Raises:
        InputError: a width that is odd or below 2, or as many widths as there are no layers.
    """
    widths = [windows] * encoder.num_layers if isinstance(windows, int) else list(windows)
    if len(widths) != encoder.num_layers:
        raise InputError(f"{where} has {len(widths)} widths for {encoder.num_layers} layers; give one, or one for each")
    for width in widths:
        if isinstance(width, bool) or not isinstance(width, int) or width < 2 or width % 2:
            raise InputError(f"{where}: {width!r} should be an even whole number, at least 2")
    period = next(n for n in range(1, len(widths) + 1) if all(w == widths[i % n] for i, w in enumerate(widths)))
    layer = encoder.layer(0)
    mixers = [replace(layer.mixer, window=width // 2, global_tokens=True) for width in widths[:period]]
    return replace(encoder, layers=tuple(replace(layer, mixer=mixer) for mixer in mixers))


SIZES = {
    "base": longformer(),
    "large": longformer(hidden_size=1024, num_layers=24, heads=16, intermediate_size=4096),
}


def global_first(heads: Heads, dropout: float) -> Heads:
    """RoBERTa's heads, whose classifier makes the first token a global one and drops as the layers do."""

    def change(head: ClassifierHead) -> ClassifierHead:
        return replace(head, dropout=dropout, input_dropout=dropout, global_first=True)

    return heads if heads.classifier is None else replace(heads, classifier=change(heads.classifier))


def _read(reader: Reader, heads: Collection[str]) -> Spec:
    reader.only("attention_mode", "longformer")
    reader.only("ignore_attention_mask", False)
    spec = roberta.read(reader, heads)
    widths = reader.get("attention_window") or 512
    if isinstance(widths, bool) or not isinstance(widths, int | list):
        raise InputError(f"{reader.where}: attention_window={widths!r} should be a whole number, or a list of them")
    encoder = windowed(spec.encoder, widths, f"{reader.where}: attention_window")
    return replace(spec, encoder=encoder, heads=global_first(spec.heads, encoder.embedding.dropout))


def _write(spec: Spec) -> dict[str, Any]:
    encoder = spec.encoder
    if not isinstance(encoder.embedding.position, Learned):
        raise Inexpressible("longformer", "encoder's embedding.position")
    config = write_encoder(spec, "longformer", encoder.embedding.position.offset)
    config.pop("classifier_dropout", None)  # the class drops as in the layers
    return {"bos_token_id": 0, "eos_token_id": 2, "sep_token_id": 2, **config, "attention_window": _widths(encoder)}


def _widths(encoder: EncoderConfig) -> list[int]:
    """The full width of each layer's window."""
    windows = [attention_of(encoder.layer(i)).window for i in range(encoder.num_layers)]
    for i, window in enumerate(windows):
        if not window:
            raise Inexpressible("longformer", f"encoder's layers.{i}.mixer.window")
    return [2 * window for window in windows if window]


def _rules(spec: Spec, prefix: str) -> list[Rule]:
    ours, theirs = "encoder.layers.{i}.mixer.everywhere.", f"{prefix}encoder.layer.{{i}}.attention.self."
    rules = roberta.rules(spec, prefix)
    for part in ("weight", "bias"):
        rules.append(Rename(f"{ours}query.{part}", f"{theirs}query_global.{part}"))
        rules.append(Fuse(f"{ours}key_value.{part}", (f"{theirs}key_global.{part}", f"{theirs}value_global.{part}")))
    return rules


FAMILY = Family(
    name="longformer",
    inert=(*INERT, "onnx_export"),
    marks=roberta.FAMILY.marks,
    prefix="longformer.",
    read=_read,
    write=_write,
    architecture=partial(class_name, "Longformer"),
    rules=_rules,
)
