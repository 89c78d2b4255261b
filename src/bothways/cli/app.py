"""The program: its verbs, in the order in which help lists them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import bothways
from bothways.cli import (
    classify,
    code,
    compare,
    convert,
    curate,
    demo,
    distil,
    domain,
    embed,
    evaluate,
    fill,
    index,
    info,
    ladder,
    launch,
    lexicon,
    plan,
    pretrain,
    tokenize,
    tokenizer,
    train,
    verify,
)
from bothways.cli.output import note

# in the order in which help lists them
_MAKING = (demo, curate, domain, tokenizer, tokenize, lexicon, plan, pretrain, train, distil, code, launch, ladder, compare)
_USING = (evaluate, classify, embed, fill, index, convert, info, verify)

_ABOUT = """Bidirectional encoders, from raw text to search.

Each verb explains itself with examples: bothways VERB --help.

Exit codes: 0, done, or saved after a SIGTERM; 1, interrupted, or what was given cannot be used; 2, the command itself is wrong.
"""


class _Verbs(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # verbs that keep what they have done catch it themselves
            note("interrupted; nothing was written")
            raise typer.Exit(1) from None


def build() -> typer.Typer:
    # Help without markup: examples stay as they are written, and nothing has to be imported to draw it.
    app = typer.Typer(
        cls=_Verbs, help=_ABOUT, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    app.callback()(_options)
    for verbs in (*_MAKING, *_USING):
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
