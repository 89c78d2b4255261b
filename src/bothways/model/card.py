"""The card of a model folder: README.md, for people and for the hub.

A card of ours ends with a hash of itself. It is written anew while it is as it was written; once somebody has changed
it, it is theirs. Other parts of the house may put a line of their own into any card, between marks.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from bothways.errors import InputError
from bothways.files import replacing, reported, write_text
from bothways.model.model import Model

CARD = "README.md"
_SEAL = re.compile(r"(?:\r?\n)*<!-- bothways: written by the library; sha256 ([0-9a-f]{64}) -->\s*\Z")
_MARKED = r"<!-- bothways (?P<key>{key}) -->\r?\n.*?\r?\n<!-- end of bothways (?P=key) -->"
_LINE = rf"\n*{_MARKED}\n?"
# the kinds of `transformers` models for the hub's tasks
_AUTO = {
    "text-ranking": "ForSequenceClassification",
    "text-classification": "ForSequenceClassification",
    "fill-mask": "ForMaskedLM",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write_card(model: Model, folder: Path) -> None:
    """Write the card, or leave one that somebody has written or changed.

    Raises:
        InputError: it cannot be written.
    """
    file = folder / CARD
    if _is_ours(file):
        text = _text(model)
        write_text(file, f"{text}\n\n<!-- bothways: written by the library; sha256 {_hash(text)} -->\n")


def add_line(folder: Path, key: str, text: str) -> None:
    """Put a line into a folder's card, in place of the one under the same key; all else stays as it is. No card, no line.

    A card that is written anew by `Model.save` loses it: what it said was said of other weights.

    Args:
        key: letters, digits and dashes.

    Raises:
        InputError: the card cannot be read or written, or a key of other characters.
    """
    add_section(folder, key, " ".join(text.split()))


def add_section(folder: Path, key: str, text: str) -> None:
    """As `add_line`, for Markdown of several lines."""
    if not re.fullmatch(r"[\w-]+", key):
        raise InputError(f"a key of a card's line has letters, digits and dashes; {key!r} has others")
    file = folder / CARD
    if not file.is_file():
        return
    card = _read(file, as_it_is=True)
    end = "\r\n" if "\r\n" in card else "\n"
    line = end.join(
        (f"<!-- bothways {key} -->", *text.replace("<!--", "&lt;!--").strip().splitlines(), f"<!-- end of bothways {key} -->")
    )
    pattern = re.compile(_MARKED.format(key=re.escape(key)), re.DOTALL)
    seal = _SEAL.search(card)
    if pattern.search(card):
        card = pattern.sub(lambda _: line, card, count=1)
    elif seal:
        card = card[: seal.start()] + 2 * end + line + end + card[seal.start() :]
    else:
        apart = (end if card.endswith("\n") else 2 * end) if card else ""
        card = card + apart + line + end
    with replacing(file) as temporary:
        temporary.write_bytes(card.encode())


def license_of(folder: Path) -> str | None:
    """The license that a folder states: in its card's front matter, else the first line of its LICENSE."""
    from huggingface_hub import metadata_load  # slow to import, and seldom wanted

    try:
        stated = (metadata_load(folder / CARD) or {}).get("license") if (folder / CARD).is_file() else None
    except Exception:  # whatever stands at the head of the card, it states no license that can be read
        stated = None
    if stated:
        return ", ".join(map(str, stated)) if isinstance(stated, list) else str(stated)
    file = folder / "LICENSE"
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.is_file() else []
    return next((line.strip() for line in lines if line.strip()), None)


def _is_ours(file: Path) -> bool:
    """Whether a card is as we wrote it, or not there; lines added between marks do not count."""
    if not file.exists():
        return True
    card = re.sub(_LINE.format(key=r"[\w-]+"), "", _read(file), flags=re.DOTALL)
    seal = _SEAL.search(card)
    return _hash(card[: seal.start()]) == seal[1] if seal else not card.strip()


def _read(file: Path, as_it_is: bool = False) -> str:
    """The text of a card; `as_it_is` keeps its ends of lines."""
    with reported(file):
        try:
            return file.read_bytes().decode() if as_it_is else file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: not utf-8 at byte {error.start}; it is left as it was") from None


def _hash(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()


def _text(model: Model) -> str:
    from huggingface_hub import ModelCardData  # brings its network's libraries

    known = _known(model)
    data = ModelCardData(
        language=known.get("language"),
        license=known.get("license"),
        library_name="bothways" if _ours_alone(model) else "sentence-transformers" if model.settings.declared else "transformers",
        tags=_tags(model),
        base_model=model.name if _is_hub_id(model.name) else known.get("base_model"),
        pipeline_tag=_task(model),
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_body(model)}"


def _known(model: Model) -> dict[str, Any]:
    """What the card of the folder or repository that the model came from says; nothing where there is none."""
    from huggingface_hub import ModelCard, try_to_load_from_cache

    file = Path(model.name) / CARD
    if _is_hub_id(model.name):
        found = try_to_load_from_cache(model.name, CARD)
        file = Path(found) if isinstance(found, str) else file
    if not model.name or not file.is_file():
        return {}
    try:
        return ModelCard.load(file, ignore_metadata_errors=True).data.to_dict()
    except Exception:  # somebody's card need not be one: YAML that is none, another encoding
        return {}


def _is_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()


def _tags(model: Model) -> list[str]:
    return [
        "bothways",
        model.family.name,
        *(["feature-extraction"] if model.settings.declared else []),
        *(["sentence-transformers"] if model.settings.declared and not _ours_alone(model) else []),
        *(["fill-mask"] if "masked_lm" in model.heads and not model.settings.declared else []),
    ]


def _ours_alone(model: Model) -> bool:
    """Whether no other library reads the folder, not even by code from elsewhere."""
    return not model.family.in_transformers and "auto_map" not in model.published


def _task(model: Model) -> str:
    """What the hub files the model under."""
    classifier = model.spec.heads.classifier
    if model.settings.declared:
        return "sentence-similarity"
    if classifier is not None:
        ranks = classifier.labels == 1 and model.spec.problem != "regression"
        return "text-ranking" if ranks else "text-classification"
    return "fill-mask" if "masked_lm" in model.heads else "feature-extraction"


def _body(model: Model) -> str:
    config, settings = model.spec.encoder, model.settings
    heads = ", ".join(name.replace("_", " ") for name in model.heads) or "none"
    facts = {
        "family": model.family.name,
        "layers": f"{config.num_layers}",
        "hidden size": f"{config.hidden_size:,}",
        "parameters": f"{model.parameters_count:,}",
        "vocabulary": f"{config.vocab_size:,}",
        "longest sequence": f"{config.max_length:,} tokens",
        "heads": heads,
    }
    if settings.declared:
        facts["sentence vectors"] = f"{settings.pooling} of the tokens" + (", scaled to length 1" if settings.normalize else "")
        facts["read of a text"] = f"{model.max_seq_length:,} tokens"
    if model.spec.labels and model.spec.heads.classifier:
        facts["classes"] = ", ".join(model.spec.labels)
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"# A {model.family.name} encoder\n\n| | |\n|---|---|\n{rows}\n\n{_loading(model)}"


def _loading(model: Model) -> str:
    """How each library loads the folder."""
    here = '"path/to/this/folder"'
    blocks = {"Bothways": f"import bothways\n\nmodel = bothways.load({here})"}
    code = "" if model.family.in_transformers else ", trust_remote_code=True"
    if not _ours_alone(model):
        cls = "AutoModel" + _AUTO.get(_task(model), "")
        blocks["transformers"] = (
            f"from transformers import AutoTokenizer, {cls}\n\n"
            f"tokenizer = AutoTokenizer.from_pretrained({here})\nmodel = {cls}.from_pretrained({here}{code})"
        )
        if model.settings.declared:
            blocks["sentence-transformers"] = (
                f"from sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer({here}{code})"
            )
    return "\n\n".join(f"## In {name}\n```python\n{block}\n```" for name, block in blocks.items())
