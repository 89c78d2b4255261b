"""`bothways lexicon`: the n-grams of tokenised text, once, for any number of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bothways.cli.files import check_no_file
from bothways.cli.options import JsonOption, examples
from bothways.cli.output import aligned, progress, show

_EXAMPLES = examples(
    "bothways lexicon shards/mine --out lexicon.safetensors",
    "bothways lexicon shards/web shards/books --out lexicon.safetensors --size 200000 --size 100000 --size 50000",
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(lexicon)


def lexicon(
    shards: Annotated[
        list[Path], typer.Argument(metavar="SHARDS", help="Folders of `bothways tokenize`, of one tokenizer.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write; there must be none yet.")],
    sizes: Annotated[
        list[int] | None,
        typer.Option(
            "--size", min=0, help="N-grams of two tokens; given again, of three, and so on; 200,000 and 100,000 unless given."
        ),
    ] = None,
    at_least: Annotated[int, typer.Option("--at-least", min=1, help="How often an n-gram occurs, to be one.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Find the n-grams of tokenised text, by a t-test: a run masks each as one (`ernie_gram` does)."""
    from bothways.data.lexicon import CountedLexicon
    from bothways.data.lexicon_building import build_lexicon, passes
    from bothways.data.shards import Shards
    from bothways.data.tokenizer import Tokenizer

    check_no_file(out)
    tokenizer = Tokenizer.load(shards[0] / "tokenizer")
    opened = [Shards(folder, tokenizer) for folder in shards]
    settings = CountedLexicon(sizes=tuple(sizes), at_least=at_least) if sizes else CountedLexicon(at_least=at_least)
    total = passes(opened, settings) * sum(int(one.lengths.sum()) for one in opened)
    with progress(total, "tokens") as advance:
        made = build_lexicon(settings, opened, tokenizer, lambda tokens: advance(tokens, tokens))
    made.save(out)
    first = [tokenizer.decode(grams[0]) for grams in made.grams if len(grams)]
    counts = {str(length): count for length, count in enumerate(made.sizes, start=2)}
    rows = {f"n-grams of {length} tokens": f"{count:,}" for length, count in counts.items()} | {"highest": "; ".join(first)}
    show({"out": str(out), "sizes": counts, "highest": first}, f"{out}\n{aligned(rows)}", as_json)
