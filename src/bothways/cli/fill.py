"""`bothways fill`: the likeliest tokens for a blank."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from bothways.cli.options import JsonOption, ModelArgument, examples
from bothways.cli.output import show

_EXAMPLES = examples(
    'bothways fill my_model "the cat sat on the [MASK]"',
    'bothways fill my_model "[MASK] is the capital of [MASK]" --top 3 --json',
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(fill)


def fill(
    model: ModelArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A text with the tokenizer's mask token: [MASK], <mask>, ...")],
    top: Annotated[int, typer.Option("--top", min=1, help="How many guesses for each blank.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Guess the tokens that fill the blanks of a text, each blank by itself."""
    import bothways

    blanks = bothways.load(model).fill(text, top)
    data = {"text": text, "blanks": [[asdict(guess) for guess in guesses] for guesses in blanks]}
    lines = [[f"{guess.probability:6.1%}  {guess.token:<16}  {guess.text}" for guess in guesses] for guesses in blanks]
    show(data, "\n\n".join("\n".join(block) for block in lines), as_json)
