"""`bothways tokenizer train` and `bothways tokenizer report`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bothways.cli.files import check_new, new_folder
from bothways.cli.options import ColumnOption, JsonOption, examples, named
from bothways.cli.output import aligned, note, show

if TYPE_CHECKING:
    from bothways.data.tokenizer_training import ByteLevelBpe, Unigram, WordPiece

Kind = Literal["wordpiece", "bpe", "unigram"]
Specials = Literal["bert", "roberta"]

_TRAIN_EXAMPLES = examples(
    "bothways tokenizer train my_texts/ --out my_tokenizer --kind wordpiece --vocab-size 8000",
    "bothways tokenizer train corpus.jsonl --column body --out my_tokenizer --kind bpe --specials bert",
)
_REPORT_EXAMPLES = examples(
    "bothways tokenizer report my_tokenizer held_out.txt",
    "bothways tokenizer report my_model corpus.parquet --column body --json",
)

Texts = Annotated[Path, typer.Argument(metavar="TEXTS", help="A text file, a table, or a folder of either.")]


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="Train a tokenizer, or see how well one suits a text.", no_args_is_help=True, rich_markup_mode=None)
    verbs.command(epilog=_TRAIN_EXAMPLES)(train)
    verbs.command(epilog=_REPORT_EXAMPLES)(report)
    app.add_typer(verbs, name="tokenizer")


def train(
    corpus: Texts,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", callback=named, help="The folder to write: new, or empty.")],
    kind: Annotated[Kind, typer.Option("--kind", help="BERT's, GPT-2's and RoBERTa's, or XLM-R's.")] = "wordpiece",
    vocab_size: Annotated[int | None, typer.Option("--vocab-size", min=1, help="Tokens; default: what its family has.")] = None,
    lowercase: Annotated[bool | None, typer.Option(help="Whether case is dropped; default: wordpiece alone drops it.")] = None,
    specials: Annotated[
        Specials | None, typer.Option("--specials", help="Special tokens; default: bert's for wordpiece, else roberta's.")
    ] = None,
    column: ColumnOption = "text",
    as_json: JsonOption = False,
) -> None:
    """Train a tokenizer on texts."""
    check_new(out)
    from bothways.data.tokenizer_training import train_tokenizer

    trained = train_tokenizer(_training(kind, vocab_size, lowercase, specials), _texts(corpus, column))
    with new_folder(out) as temporary:
        trained.save(temporary)
    if vocab_size is not None and trained.vocab_size < vocab_size:
        note(f"the text has no more than {trained.vocab_size:,} of the {vocab_size:,} tokens asked for")
    data = {"out": str(out), "kind": kind, "vocab_size": trained.vocab_size, "special_tokens": trained.tokens}
    show(data, f"{out}: {kind}, {trained.vocab_size:,} tokens", as_json)


def report(
    tokenizer: Annotated[Path, typer.Argument(metavar="TOKENIZER", help="A folder with a tokenizer; a model's has one.")],
    texts: Texts,
    column: ColumnOption = "text",
    as_json: JsonOption = False,
) -> None:
    """Measure a tokenizer on texts, best on some that it was not trained on."""
    from bothways.data.tokenizer import Tokenizer
    from bothways.data.tokenizer_health import tokenizer_health

    health = tokenizer_health(Tokenizer.load(tokenizer), _texts(texts, column))
    rows = {
        "texts": f"{health.texts:,} ({health.words:,} words, {health.characters:,} characters)",
        "tokens": f"{health.tokens:,}",
        "tokens per word": f"{health.tokens_per_word:.3f}",
        "characters per token": f"{health.characters_per_token:.3f}",
        "unknown tokens": f"{health.unknown_rate:.3%}",
        "texts lost": f"{health.texts_lost:,} do not come back from their tokens",
        "vocabulary": f"{health.vocab_size:,}, of which {health.vocabulary_used:.1%} occurs here",
        "speed": f"{health.tokens_per_second:,.0f} tokens/s",
    }
    show(asdict(health), aligned(rows), as_json)


def _training(
    kind: Kind, vocab_size: int | None, lowercase: bool | None, specials: Specials | None
) -> WordPiece | ByteLevelBpe | Unigram:
    from bothways.data.tokenizer_training import ByteLevelBpe, Unigram, WordPiece

    classes = {"wordpiece": WordPiece, "bpe": ByteLevelBpe, "unigram": Unigram}
    given = {"vocab_size": vocab_size, "lowercase": lowercase, "specials": specials}
    return classes[kind](**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _texts(path: Path, column: str) -> Iterator[str]:
    from bothways.data.source import list_source, open_source, read_documents

    source = open_source(path, column, "paragraph")
    listing = list_source(source)
    if listing.skipped or listing.empty:
        note(f"{path}: {listing}")
    return (document.text for document in read_documents(source))
