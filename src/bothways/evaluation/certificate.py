"""The parity certificate: is one model the other, within a budget?"""

from __future__ import annotations

import hashlib
import platform
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import tokenizers
import torch
from pydantic import NonNegativeInt

import bothways
from bothways.config import config, from_json, to_json
from bothways.errors import InputError
from bothways.evaluation.checks import Budget, Check
from bothways.evaluation.comparison import latency, quiet
from bothways.evaluation.parity import (
    compare_layers,
    head_checks,
    length_check,
    pair_checks,
    read_texts,
    settings_checks,
    token_check,
    vector_checks,
)
from bothways.evaluation.server import Server
from bothways.files import write_text
from bothways.model.card import add_line
from bothways.model.model import Model
from bothways.retrieval.embedder import tokenizer_of

FILE = "certificate.json"


class CardWarning(UserWarning):
    """A certificate was written, and the model's card does not say so."""


@config
class Party:
    """One of the two. What a server does not tell is None.

    Attributes:
        fingerprint: of the encoder, its tokenizer and its settings.
        heads_fingerprint: of the heads, the names of classes and their kind.
        api: how a server was asked.
    """

    name: str
    fingerprint: str | None = None
    heads_fingerprint: str | None = None
    family: str | None = None
    layers: int | None = None
    hidden_size: int | None = None
    parameters: int | None = None
    api: Literal["openai", "tei"] | None = None


@config
class LayerGap:
    """The largest difference of hidden states after a layer, relative to the reference's largest value; None: not finite."""

    name: str
    difference: float | None


@config
class Latency:
    """Median seconds of the reference and of the candidate, in turns: for one text, and for all texts."""

    one: tuple[float, float]
    all: tuple[float, float]


@config
class Certificate:
    """What `verify` found. `candidate` stands for `reference` where the verdict is `passed`.

    Attributes:
        reason: what is outside the budget, in one line; empty where nothing is.
        first_diverging: the first layer outside the budget.
        texts: how many; `texts_sha256` is of all of them.
        cut: texts longer than was compared.
        layers: in order; empty where they cannot be compared, and then the check of that name says why.
    """

    verdict: Literal["passed", "failed"]
    reason: str
    first_diverging: str | None
    reference: Party
    candidate: Party
    texts: NonNegativeInt
    tokens: NonNegativeInt
    cut: NonNegativeInt
    texts_sha256: str
    checks: tuple[Check, ...]
    layers: tuple[LayerGap, ...]
    latency: Latency | None
    budget: Budget
    allow_tokenizer: bool
    allow_heads: bool = False
    command: str
    created: str
    device: str
    versions: dict[str, str]


def verify(
    reference: Model,
    candidate: Model | Server,
    texts: Sequence[str],
    budget: Budget | None = None,
    *,
    allow_tokenizer: bool = False,
    allow_heads: bool = False,
    rounds: int = 3,
    command: str = "",
    say: Callable[[str], None] = lambda stage: None,
) -> Certificate:
    """Compare a candidate with its reference on texts.

    Args:
        allow_tokenizer: a tokenizer that gives other ids is reported, and not outside the budget by itself.
        allow_heads: a head that the candidate lacks is reported, and not outside the budget.
        rounds: how often speed is measured; 0: not at all.
        command: what to remember as the command.
        say: told of each stage.

    Raises:
        InputError: no texts, no tokenizer, vectors of different sizes, or a server that does not answer with vectors.
    """
    if not texts:
        raise InputError("there are no texts to compare on")
    budget = budget or Budget()
    tokenizer_of(reference)
    vectors = _vectors(reference, candidate, texts, say)
    if isinstance(candidate, Model):
        found = _compare(reference, candidate, vectors, texts, budget, (allow_tokenizer, allow_heads), say)
    else:
        found = _compare_server(reference, vectors, texts, budget)
    if rounds:
        say("latency")
    seconds = latency(reference, candidate, texts, rounds) if rounds else None
    failed = [check for check in found.checks if check.passed is False]
    return Certificate(
        verdict="failed" if failed else "passed",
        reason=_reason(failed),
        first_diverging=next((name for name, gap in found.layers if not gap <= budget.layers), None),
        reference=_party(reference),
        candidate=_party(candidate),
        texts=len(texts),
        tokens=found.tokens,
        cut=found.cut,
        texts_sha256=hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        checks=tuple(found.checks),
        layers=tuple(LayerGap(name=name, difference=gap if np.isfinite(gap) else None) for name, gap in found.layers),
        latency=None if seconds is None else Latency(one=seconds.one, all=seconds.all),
        budget=budget,
        allow_tokenizer=allow_tokenizer,
        allow_heads=allow_heads,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        device=_device(reference),
        versions=_versions(),
    )


def _vectors(
    reference: Model, candidate: Model | Server, texts: Sequence[str], say: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray]:
    """What both make of the texts: vectors of one size."""
    say("vectors")
    with quiet():
        vectors = (np.asarray(reference.encode(texts)), np.asarray(candidate.encode(texts)))
    sizes = [one.shape[1] for one in vectors]
    if sizes[0] != sizes[1]:
        name = _party(candidate).name or "the candidate"
        raise InputError(f"{name}: its vectors have {sizes[1]} numbers, those of the reference, {reference.name}, {sizes[0]}")
    return vectors


@dataclass(frozen=True)
class _Found:
    checks: list[Check]
    layers: list[tuple[str, float]]
    tokens: int
    cut: int


def _compare(
    reference: Model,
    candidate: Model,
    vectors: tuple[np.ndarray, np.ndarray],
    texts: Sequence[str],
    budget: Budget,
    allowed: tuple[bool, bool],
    say: Callable[[str], None],
) -> _Found:
    """`allowed`: another tokenizer, and heads that are not there."""
    read = read_texts(reference, candidate, texts)
    checks = [token_check(reference, candidate, texts, read.alike, allowed[0]), *pair_checks(read, allowed[0])]
    checks += settings_checks(reference, candidate)
    say("layers")
    layers, check = compare_layers(reference, candidate, read.common, budget)
    checks += [check, *vector_checks(vectors, texts, budget)]
    say("heads")
    checks += head_checks(reference, candidate, texts, read, budget, allowed[1])
    return _Found(checks, layers, read.tokens, read.cut)


def _compare_server(reference: Model, vectors: tuple[np.ndarray, np.ndarray], texts: Sequence[str], budget: Budget) -> _Found:
    """A server shows its vectors alone."""
    read = read_texts(reference, reference, texts)
    return _Found([length_check(reference, vectors[1]), *vector_checks(vectors, texts, budget)], [], read.tokens, read.cut)


def _reason(failed: list[Check]) -> str:
    """What is outside the budget, the layers first: they come before what they lead to."""
    lines = [check.line() for check in sorted(failed, key=lambda check: check.name != "layers")]
    return "; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")


def write_certificate(certificate: Certificate, folder: Path) -> Path:
    """Write `certificate.json` into the candidate's folder, then a line into its card where there is one.

    A card that cannot take the line is left as it was, with a warning (`CardWarning`).

    Raises:
        InputError: `certificate.json` cannot be written; what was there before is untouched.
    """
    write_text(folder / FILE, to_json(certificate))
    try:
        add_line(folder, "certificate", summary(certificate))
    except InputError as error:
        warnings.warn(f"no line in the card: {error}", CardWarning, stacklevel=2)
    return folder / FILE


def read_certificate(folder: Path) -> Certificate | None:
    """The certificate of a model folder; None where there is none.

    Raises:
        InputError: the file is not a certificate.
    """
    file = folder / FILE
    # bytes that are no text are no JSON either, and are told of as such
    return from_json(Certificate, file.read_text(encoding="utf-8", errors="replace"), str(file)) if file.is_file() else None


def summary(certificate: Certificate) -> str:
    """The certificate in one line of Markdown."""
    found = {check.name: check for check in certificate.checks}
    told = {"mean cosine": "mean cosine", "layers": "largest difference after a layer"}
    # a file may lack checks: it is somebody's, and the line says what is there
    figures = [f"{told[name]} {found[name].found}" for name in told if name in found and (certificate.layers or name != "layers")]
    what = "Parity" if certificate.verdict == "passed" else "No parity"
    against = f"{what} with `{certificate.reference.name}` on {certificate.texts} texts"
    version_of = certificate.versions.get("bothways", "of a version that is not said")
    return f"{against}: {', '.join(figures) or 'no figures'} (`{FILE}`, bothways {version_of})."


def _party(one: Model | Server) -> Party:
    if isinstance(one, Server):
        return Party(name=one.shown, api=one.api)
    encoder = one.spec.encoder
    return Party(
        name=one.name,
        fingerprint=one.fingerprint,
        heads_fingerprint=one.heads_fingerprint,
        family=one.family.name,
        layers=encoder.num_layers,
        hidden_size=encoder.hidden_size,
        parameters=one.parameters_count,
    )


def _device(model: Model) -> str:
    return torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else f"{model.device} ({platform.machine()})"


def _versions() -> dict[str, str]:
    return {
        "bothways": bothways.__version__,
        "torch": torch.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": version("numpy"),
        "python": platform.python_version(),
    }
