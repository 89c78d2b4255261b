"""`bothways verify`: is one model the other?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bothways.cli.options import ColumnOption, JsonOption, examples
from bothways.cli.output import command, note

if TYPE_CHECKING:
    from bothways.evaluation.certificate import Certificate
    from bothways.evaluation.server import Server
    from bothways.model.model import Model

_EXAMPLES = examples(
    "bothways verify my_model converted/",
    "bothways verify my_model half/ --budget bfloat16 --budget layers=0.02",
    "bothways verify my_model other_tokenizer/ --allow-tokenizer --texts sentences.txt",
    "bothways verify my_model http://localhost:8080 --api tei --json",
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(verify)


def verify(
    reference: Annotated[str, typer.Argument(metavar="A", help="The reference: a model folder, or the id of a repository.")],
    candidate: Annotated[
        str, typer.Argument(metavar="B", help="What is to stand for it: a model, or the URL of a running embedding server.")
    ],
    texts: Annotated[
        Path | None, typer.Option("--texts", metavar="FILE", help="Compare on these texts; default: 130 that come with bothways.")
    ] = None,
    column: ColumnOption = "text",
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", metavar="NAME|LIMIT=VALUE", help="float32, bfloat16 or int8; or one limit: layers=0.01."),
    ] = None,
    allow_tokenizer: Annotated[
        bool, typer.Option("--allow-tokenizer", help="Other token ids are no failure; the vectors decide.")
    ] = False,
    allow_heads: Annotated[bool, typer.Option("--allow-heads", help="A head that B lacks is no failure.")] = False,
    api: Annotated[
        Literal["openai", "tei"] | None, typer.Option("--api", help="How a server is asked; default: found out by asking it.")
    ] = None,
    server_model: Annotated[
        str | None, typer.Option("--server-model", metavar="NAME", help="The model to ask a server for; default: A.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=0, help="How often speed is measured; 0: not at all.")] = 3,
    write: Annotated[bool, typer.Option(help="Write certificate.json (and a line in README.md) beside B's weights.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Compare two models, text by text and layer by layer, and certify that B can stand for A.

    Exit code 1 where something is outside the budget; the last line says what, and the first layer that differs.
    A server is sent the key in the environment variable BOTHWAYS_API_KEY, where it is set.
    """
    from contextlib import ExitStack

    import bothways
    from bothways.cli.certificate import stages
    from bothways.errors import InputError
    from bothways.evaluation.certificate import verify as compare
    from bothways.evaluation.checks import budget_of
    from bothways.evaluation.server import connect

    if _is_url(reference):
        raise InputError("A is the URL of a server; only B can be one. A is a model folder, or the id of a repository")
    limits, given = budget_of(budget or []), _texts(texts, column)
    one = bothways.load(reference)
    with ExitStack() as stack:
        other: Model | Server
        if _is_url(candidate):
            other = stack.enter_context(connect(candidate, api, server_model or reference, one.settings.normalize))
        else:
            other = bothways.load(candidate)
        say = stack.enter_context(stages())
        certificate = compare(
            one,
            other,
            given,
            limits,
            allow_tokenizer=allow_tokenizer,
            allow_heads=allow_heads,
            rounds=rounds,
            command=command(),
            say=say,
        )
    written = _write(certificate, Path(candidate)) if write and Path(candidate).is_dir() else None
    if write and not _is_url(candidate) and not Path(candidate).is_dir():
        note(f"no certificate was written: {candidate} is no folder here; --json prints it")
    _show(certificate, written, as_json)
    if certificate.verdict == "failed":
        note(f"outside the budget: {certificate.reason}")
        raise typer.Exit(1)


def _is_url(word: str) -> bool:
    return word.lower().startswith(("http://", "https://"))


def _show(certificate: Certificate, written: Path | None, as_json: bool) -> None:
    from bothways.cli.certificate import draw
    from bothways.config import to_json

    if as_json:
        print(to_json(certificate), end="")
    else:
        draw(certificate, written)


def _texts(path: Path | None, column: str) -> list[str]:
    from bothways.cli.embed import read_texts
    from bothways.evaluation.probe import probe_texts

    return probe_texts() if path is None else [document.text for document in read_texts(path, column, None)]


def _write(certificate: Certificate, folder: Path) -> Path | None:
    """The file written; None where the folder cannot be written, which is said and is no failure of the comparison."""
    from bothways.errors import InputError
    from bothways.evaluation.certificate import write_certificate

    try:
        return write_certificate(certificate, folder)
    except InputError as error:
        note(f"no certificate: {error}")
        return None
