"""`bothways tokenizer`: train one, see how well it suits a text, give a trained model another."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bothways.cli.files import check_new, new_folder
from bothways.cli.options import ColumnOption, JsonOption, ModelArgument, examples, named
from bothways.cli.output import aligned, note, progress, show
from bothways.errors import InputError

if TYPE_CHECKING:
    from bothways.data.text_sample import TextSample
    from bothways.data.tokenizer_health import TokenizerHealth
    from bothways.data.tokenizer_training import ByteLevelBpe, Unigram, WordPiece

Kind = Literal["wordpiece", "bpe", "unigram"]
Specials = Literal["bert", "roberta"]

_TRAIN_EXAMPLES = examples(
    "bothways tokenizer train my_texts/ --out my_tokenizer --kind wordpiece --vocab-size 8000",
    "bothways tokenizer train corpus.jsonl --column body --out my_tokenizer --kind bpe --specials bert --multiple-of 64",
)
_REPORT_EXAMPLES = examples(
    "bothways tokenizer report my_tokenizer held_out.txt",
    "bothways tokenizer report my_tokenizer english.txt german.txt --against bert-base-uncased/",
    "bothways tokenizer report my_model corpus.parquet --column body --by language --json",
)
_TRANSPLANT_EXAMPLES = examples("bothways tokenizer transplant my_model my_tokenizer --out my_model_retokenised")

Texts = Annotated[Path, typer.Argument(metavar="TEXTS", help="A text file, a table, or a folder of either.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="FOLDER", callback=named, help="The folder to write: new, or empty.")]
TokenizerArgument = Annotated[Path, typer.Argument(metavar="TOKENIZER", help="A folder with a tokenizer; a model's has one.")]


def register(app: typer.Typer) -> None:
    about = "Train a tokenizer, see how well one suits a text, or give a trained model another."
    verbs = typer.Typer(help=about, no_args_is_help=True, rich_markup_mode=None)
    verbs.command(epilog=_TRAIN_EXAMPLES)(train)
    verbs.command(epilog=_REPORT_EXAMPLES)(report)
    verbs.command(epilog=_TRANSPLANT_EXAMPLES)(transplant)
    app.add_typer(verbs, name="tokenizer")


def train(
    corpus: Texts,
    out: OutOption,
    kind: Annotated[Kind, typer.Option("--kind", help="BERT's, GPT-2's and RoBERTa's, or XLM-R's.")] = "wordpiece",
    vocab_size: Annotated[int | None, typer.Option("--vocab-size", min=1, help="Tokens; default: what its family has.")] = None,
    lowercase: Annotated[bool | None, typer.Option(help="Whether case is dropped; default: wordpiece alone drops it.")] = None,
    specials: Annotated[
        Specials | None, typer.Option("--specials", help="Special tokens; default: bert's for wordpiece, else roberta's.")
    ] = None,
    multiple: Annotated[
        int | None,
        typer.Option("--multiple-of", min=1, help="Fill the vocabulary up with [unused...] tokens; 64 suits most hardware."),
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=1, metavar="CHARACTERS", help="Learn from a sample of no more than these.")
    ] = 500_000_000,
    column: ColumnOption = "text",
    as_json: JsonOption = False,
) -> None:
    """Train a tokenizer on texts, or on a sample of them where they are many."""
    check_new(out)
    from bothways.data.tokenizer_training import train_tokenizer, with_unused

    texts = _sampled(corpus, column, sample)
    start = time.monotonic()
    trained = train_tokenizer(_training(kind, vocab_size, lowercase, specials), texts.texts, show_progress=sys.stderr.isatty())
    seconds = time.monotonic() - start
    learnt = trained.vocab_size
    if multiple is not None:
        trained = with_unused(trained, multiple)
    with new_folder(out) as temporary:
        trained.save(temporary)
    if vocab_size is not None and learnt < vocab_size:
        note(f"the text has no more than {learnt:,} of the {vocab_size:,} tokens asked for")
    unused = trained.vocab_size - learnt
    data = {"out": str(out), "kind": kind, "vocab_size": trained.vocab_size, "unused": unused, "special_tokens": trained.tokens}
    data |= {"texts": len(texts.texts), "texts_read": texts.read, "characters": texts.characters, "seconds": round(seconds, 1)}
    filled = f", {unused:,} of them unused" if unused else ""
    learning = f"learnt from {texts}, a paragraph each, in {seconds:,.0f} s"
    show(data, f"{out}: {kind}, {trained.vocab_size:,} tokens{filled}; {learning}", as_json)


def report(
    tokenizer: TokenizerArgument,
    texts: Annotated[
        list[Path], typer.Argument(metavar="TEXTS...", help="Text files, tables, or folders of either; several are told apart.")
    ],
    against: Annotated[
        Path | None, typer.Option("--against", metavar="TOKENIZER", help="Another tokenizer, to be measured beside it.")
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="COLUMN", help="A table's column of languages or domains, to be told apart.")
    ] = None,
    column: ColumnOption = "text",
    as_json: JsonOption = False,
) -> None:
    """Measure a tokenizer on texts, best on some that it was not trained on."""
    from bothways.data.tokenizer import Tokenizer
    from bothways.data.tokenizer_health import health_by_group, tokenizer_health

    loaded = Tokenizer.load(tokenizer)
    if len(texts) == 1 and against is None and by is None:
        health = tokenizer_health(loaded, _texts(texts[0], column))
        return show(asdict(health), aligned(_figures(health)), as_json)
    if against is not None and against.resolve() == tokenizer.resolve():
        raise InputError(f"--against {against}: is the very tokenizer it would be compared with")
    both = {str(tokenizer): loaded, **({str(against): Tokenizer.load(against)} if against else {})}
    _compared(health_by_group(both, _grouped(texts, column, by)), as_json)


def transplant(
    model: ModelArgument,
    tokenizer: TokenizerArgument,
    out: OutOption,
    multiple: Annotated[
        int, typer.Option("--multiple-of", min=1, help="Of the rows of the embedding, where the vocabulary's size changes.")
    ] = 64,
    as_json: JsonOption = False,
) -> None:
    """Give a trained model another tokenizer; new pieces begin as the mean of the old pieces of their text.

    Then go on pretraining: the rows are a beginning, no more.
    """
    check_new(out)
    import bothways
    from bothways.data.tokenizer import Tokenizer
    from bothways.model.transplant import transplant as carry_out

    found = carry_out(bothways.load(model, device="cpu"), Tokenizer.load(tokenizer), multiple)
    with new_folder(out) as temporary:
        found.model.save(temporary)
    counts = {"copied": found.copied, "composed": found.composed, "fresh": found.fresh, "unused": found.unused}
    rows = {
        "copied": f"{found.copied:,} pieces that both have, and special tokens",
        "composed": f"{found.composed:,} as the mean of {found.pieces:.1f} old pieces each",
        "fresh": f"{found.fresh:,} of which nothing was known",
        "unused": f"{found.unused:,} rows",
    }
    total = found.model.spec.encoder.vocab_size
    data = {"out": str(out), "rows": total, **counts, "pieces": found.pieces}
    show(data, f"{out}: {total:,} rows\n{aligned(rows)}", as_json)


def _training(
    kind: Kind, vocab_size: int | None, lowercase: bool | None, specials: Specials | None
) -> WordPiece | ByteLevelBpe | Unigram:
    from bothways.data.tokenizer_training import ByteLevelBpe, Unigram, WordPiece

    classes = {"wordpiece": WordPiece, "bpe": ByteLevelBpe, "unigram": Unigram}
    given = {"vocab_size": vocab_size, "lowercase": lowercase, "specials": specials}
    return classes[kind](**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _sampled(corpus: Path, column: str, characters: int) -> TextSample:
    from bothways.data.text_sample import sample_texts

    texts = _texts(corpus, column)
    with progress(None, "characters") as advance:
        return sample_texts(texts, characters, progress=advance)


def _texts(path: Path, column: str) -> Iterator[str]:
    from bothways.data.source import list_source, open_source, read_documents

    source = open_source(path, column, "paragraph")
    listing = list_source(source)
    if listing.skipped or listing.empty:
        note(f"{path}: {listing}")
    return (document.text for document in read_documents(source))


def _grouped(paths: list[Path], column: str, by: str | None) -> Iterator[tuple[str, str]]:
    """Texts with their group: the value of a column, or else the file."""
    from bothways.data.rows import open_table, read_rows

    if by is None:
        names = [path.name for path in paths]
        for path in paths:
            group = path.name if names.count(path.name) == 1 else str(path)
            yield from ((group, text) for text in _texts(path, column))
        return
    for path in paths:
        for where, (group, text) in read_rows(open_table(path), [by, column]):
            if not isinstance(text, str) or not isinstance(group, str | int):
                raise InputError(
                    f"{where}: columns '{by}' and '{column}' hold {type(group).__name__} and {type(text).__name__}, not text"
                )
            yield str(group), text


def _figures(health: TokenizerHealth) -> dict[str, str]:
    return {
        "texts": f"{health.texts:,} paragraphs ({health.words:,} words, {health.characters:,} characters)",
        "tokens": f"{health.tokens:,}",
        "tokens per word": f"{health.tokens_per_word:.3f}",
        "characters per token": f"{health.characters_per_token:.3f}",
        "unknown tokens": f"{health.unknown_rate:.3%}",
        "texts lost": f"{health.texts_lost:,} do not come back from their tokens",
        "vocabulary": f"{health.vocab_size:,}, of which {health.vocabulary_used:.1%} occurs here",
        "speed": f"{health.tokens_per_second:,.0f} tokens/s",
    }


def _compared(groups: dict[str, dict[str, TokenizerHealth]], as_json: bool) -> None:
    """A line for each group and tokenizer, which go by letters."""
    from rich.console import Console
    from rich.table import Table

    if as_json:
        return show({group: {name: asdict(one) for name, one in lot.items()} for group, lot in groups.items()}, "", True)
    letters = dict(zip(next(iter(groups.values())), "AB", strict=False))
    heads = ("", "", "words", "tokens", "a word", "characters", "unknown", "lost", "vocabulary used")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < 2 else "right", no_wrap=number < 2)
    for group, lot in groups.items():
        for name, one in lot.items():
            figures = (f"{one.tokens_per_word:.2f}", f"{one.characters_per_token:.2f} a token", f"{one.unknown_rate:.2%}")
            rest = (f"{one.texts_lost:,}", f"{one.vocabulary_used:.1%}")
            table.add_row(group, letters[name], f"{one.words:,}", f"{one.tokens:,}", *figures, *rest)
    console = Console(highlight=False, markup=False)
    for name, one in groups["all"].items():
        console.print(f"{letters[name]}  {name} ({one.vocab_size:,} tokens)", soft_wrap=True)
    console.print(table)
