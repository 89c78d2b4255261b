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
from bothways.families.convert import Reader
from bothways.files import write_text
from bothways.layers.heads import Pooling

_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
# the names that sentence-transformers has given the settings of its first step
_TRANSFORMER_FILES = [
    f"sentence_{name}_config.json" for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
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
        similarity: how others are to compare the vectors; kept as it came.
        declared: whether the folder says all this, or these are the defaults (mean, not normalised).
    """

    pooling: Pooling = "mean"
    normalize: bool = False
    max_seq_length: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    include_prompt: bool = True
    similarity: str = "cosine"
    declared: bool = False


def read_settings(folder: Path) -> EmbeddingSettings:
    """The settings of a sentence-transformers folder; the defaults where it is none.

    Raises:
        InputError: a step or a pooling that is not supported, a file that is missing or damaged, a value of the
            wrong kind; the message names it.
    """
    steps = _steps(folder)
    if not steps:
        return EmbeddingSettings()
    pooling: Pooling = "mean"
    include_prompt = True
    if "Pooling" in steps:
        pooling, include_prompt = _pooling(steps["Pooling"] / "config.json")
    general = _reader(folder / "config_sentence_transformers.json")
    transformer = _transformer(steps)
    limit = transformer.get("max_seq_length", 0)
    if limit < 0:
        raise InputError(f"{transformer.where}: max_seq_length={limit} should be at least 1")
    return EmbeddingSettings(
        pooling=pooling,
        normalize="Normalize" in steps,
        max_seq_length=limit or None,
        prompts=_prompts(general),
        default_prompt=general.get("default_prompt_name", "") or None,
        include_prompt=include_prompt,
        similarity=general.get("similarity_fn_name", "cosine"),
        declared=True,
    )


def lowercases(folder: Path) -> bool:
    """Whether a sentence-transformers folder wants its texts in lower case, whatever its tokenizer does.

    Raises:
        InputError: a damaged file, or a value of the wrong kind.
    """
    steps = _steps(folder)
    return bool(steps) and _transformer(steps).get("do_lower_case", False)


def write_settings(settings: EmbeddingSettings, folder: Path, dimension: int, max_length: int) -> None:
    """Write the sentence-transformers files of a model folder.

    Raises:
        InputError: one cannot be written; an older one is left as it was.
    """
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
            "similarity_fn_name": settings.similarity,
        },
    )


def _steps(folder: Path) -> dict[str, Path]:
    """The folder of each step by its kind; none where there is no list of steps."""
    file = folder / "modules.json"
    modules = _read(file) if file.exists() else []
    if not isinstance(modules, list):
        raise InputError(f"{file}: expected a list of modules")
    steps: dict[str, Path] = {}
    for number, module in enumerate(modules):
        if not isinstance(module, dict) or not all(isinstance(module.get(key), str) for key in ("type", "path")):
            raise InputError(f"{file}: module {number} should say its 'type' and its 'path'")
        kind = module["type"].rpartition(".")[2]
        if kind not in _KNOWN_MODULES:
            raise InputError(f"{file}: the module {kind} is not supported; supported: {', '.join(_KNOWN_MODULES)}")
        steps[kind] = folder / module["path"]
    return steps


def _transformer(steps: Mapping[str, Path]) -> Reader:
    """The settings of the first step, under whichever name; none where it has no file, or is not there."""
    files = [steps["Transformer"] / name for name in _TRANSFORMER_FILES] if "Transformer" in steps else []
    file = next((file for file in files if file.exists()), None)
    return Reader({}, "") if file is None else _reader(file)


def _prompts(general: Reader) -> dict[str, str]:
    prompts = general.get("prompts", {})
    if not all(isinstance(text, str | None) for text in prompts.values()):
        raise InputError(f"{general.where}: prompts should give a text for each name")
    return {name: text for name, text in prompts.items() if text}


def _pooling(file: Path) -> tuple[Pooling, bool]:
    if not file.exists():
        raise InputError(f"{file}: not there, though modules.json names it; it says how tokens are pooled: fetch it again")
    reader = _reader(file)
    data = reader.data
    modes = [name for name, flag in _FLAGS.items() if data.get(flag)]
    named = data.get("pooling_mode")
    chosen = named if named and isinstance(named, list) else [named] if named else modes or ["mean"]
    if len(chosen) != 1 or chosen[0] not in get_args(Pooling):
        raise InputError(
            f"{file}: pooling {'+'.join(map(str, chosen))} is not supported; supported: {', '.join(get_args(Pooling))}"
        )
    return cast("Pooling", chosen[0]), reader.get("include_prompt", True)


def _reader(file: Path) -> Reader:
    data = _read(file) if file.exists() else {}
    if not isinstance(data, dict):
        raise InputError(f"{file}: expected a JSON object")
    return Reader(data, str(file))


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON: {error}") from None


def _write(file: Path, data: object) -> None:
    write_text(file, json.dumps(data, indent=2) + "\n")
