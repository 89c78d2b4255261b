"""How a folder wants its sentences embedded, in the files of sentence-transformers.

`modules.json` lists the steps; `1_Pooling/config.json` has two schemas (booleans up to version 5.3,
one `pooling_mode` since), of which other servers know one or the other: both are read, both written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from bothways.errors import InputError
from bothways.layers.heads import Pooling

_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class EmbeddingSettings:
    """How texts become vectors.

    Attributes:
        pooling: of the token vectors.
        normalize: whether vectors are scaled to length 1.
        max_seq_length: tokens of a text that are read, special tokens included; None is the encoder's.
        prompts: texts put before the input, by name (`query`, `document`).
        default_prompt: the name of the prompt that plain `encode` uses.
        include_prompt: whether the prompt's tokens are pooled too.
        declared: whether the folder says all this, or these are the defaults (mean, not normalised).
    """

    pooling: Pooling = "mean"
    normalize: bool = False
    max_seq_length: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    include_prompt: bool = True
    declared: bool = False


def read_settings(folder: Path) -> EmbeddingSettings:
    """The settings of a sentence-transformers folder; the defaults where it is none.

    Raises:
        InputError: a step or a pooling that is not supported; the message names it.
    """
    if not (folder / "modules.json").exists():
        return EmbeddingSettings()
    modules = cast("list[dict[str, Any]]", _read(folder / "modules.json"))
    kinds = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules}
    for kind in kinds:
        if kind not in _KNOWN_MODULES:
            raise InputError(
                f"{folder / 'modules.json'}: the module {kind} is not supported; supported: {', '.join(_KNOWN_MODULES)}"
            )
    pooling: Pooling = "mean"
    include_prompt = True
    if "Pooling" in kinds:
        file = folder / kinds["Pooling"] / "config.json"
        pooling, include_prompt = _pooling(_read(file), file)
    general = _read(folder / "config_sentence_transformers.json")
    transformer = _read(folder / kinds.get("Transformer", "") / "sentence_bert_config.json")
    return EmbeddingSettings(
        pooling=pooling,
        normalize="Normalize" in kinds,
        max_seq_length=transformer.get("max_seq_length"),
        prompts={name: text for name, text in (general.get("prompts") or {}).items() if text},
        default_prompt=general.get("default_prompt_name"),
        include_prompt=include_prompt,
        declared=True,
    )


def write_settings(settings: EmbeddingSettings, folder: Path, dimension: int, max_length: int) -> None:
    """Write the sentence-transformers files of a model folder."""
    names = ["Transformer", "Pooling", *(["Normalize"] if settings.normalize else [])]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(names)
    ]
    flags = {flag: name == settings.pooling for name, flag in _FLAGS.items()}
    _write(folder / "modules.json", modules)
    _write(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": dimension,
            **flags,
            "embedding_dimension": dimension,
            "pooling_mode": settings.pooling,
            "include_prompt": settings.include_prompt,
        },
    )
    if settings.normalize:
        (folder / "2_Normalize").mkdir(exist_ok=True)
    _write(
        folder / "sentence_bert_config.json", {"max_seq_length": settings.max_seq_length or max_length, "do_lower_case": False}
    )
    _write(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "prompts": dict(settings.prompts),
            "default_prompt_name": settings.default_prompt,
            "similarity_fn_name": "cosine",
        },
    )


def _pooling(data: Mapping[str, Any], file: Path) -> tuple[Pooling, bool]:
    modes = [name for name, flag in _FLAGS.items() if data.get(flag)]
    named = data.get("pooling_mode")
    chosen = [named] if isinstance(named, str) else list(named) if named else modes or ["mean"]
    if len(chosen) != 1 or chosen[0] not in get_args(Pooling):
        raise InputError(f"{file}: pooling {'+'.join(chosen)} is not supported; supported: {', '.join(get_args(Pooling))}")
    return cast("Pooling", chosen[0]), bool(data.get("include_prompt", True))


def _read(file: Path) -> Any:
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON: {error}") from None


def _write(file: Path, data: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
