"""The program: its verbs, in the order in which help lists them."""

from __future__ import annotations

from typing import Annotated

import typer

import bothways
from bothways.cli import convert, demo, embed, fill, index, info, tokenizer, train

_ABOUT = """Bidirectional encoders, from raw text to search.

Each verb explains itself with examples: bothways VERB --help.
"""


def build() -> typer.Typer:
    # Help without markup: examples stay as they are written, and nothing has to be imported to draw it.
    app = typer.Typer(
        help=_ABOUT, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    app.callback()(_options)
    for verbs in (demo, train, embed, fill, index, tokenizer, convert, info):
        verbs.register(app)
    return app


def _show_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(bothways.__version__)
        raise typer.Exit()


def _options(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = None,
) -> None:
    pass
