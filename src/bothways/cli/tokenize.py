"""`bothways tokenize`: text to token shards, once, for any number of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bothways.cli.options import ColumnOption, JsonOption, Split, examples, named
from bothways.cli.output import aligned, note, progress, show, stoppable

if TYPE_CHECKING:
    from bothways.data.source import Document

_EXAMPLES = examples(
    "bothways tokenize my_texts/ --tokenizer my_tokenizer --out shards/mine",
    "bothways tokenize corpus.jsonl.gz --column body --tokenizer my_model --out shards/web --workers 16",
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(tokenize)


def tokenize(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Text files, a folder of them, or a table (JSONL, CSV, Parquet).")
    ],
    tokenizer: Annotated[Path, typer.Option("--tokenizer", metavar="FOLDER", help="A tokenizer; a model's folder has one.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", callback=named, help="The folder to write: new, or empty.")],
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Processes; 0: one, with a thread for each core. The bytes are the same.")
    ] = 0,
    split: Annotated[
        Split, typer.Option("--split", help="What is a document: a whole file or row, a paragraph, a line.")
    ] = "whole",
    column: ColumnOption = "text",
    shard_tokens: Annotated[int, typer.Option("--shard-tokens", min=1, help="Tokens of a shard.")] = 1 << 26,
    as_json: JsonOption = False,
) -> None:
    """Tokenise text into shards, which `bothways pretrain` reads. Interrupted, the same command goes on."""
    from bothways.data.shard_writer import write_shards
    from bothways.data.source import list_source, open_source, read_documents
    from bothways.data.tokenizer import Tokenizer

    text = open_source(source, column, split)
    listing = list_source(text)
    note(str(listing))
    with stoppable(), _told(listing.files) as told:
        manifest = write_shards(read_documents(text), Tokenizer.load(tokenizer), out, shard_tokens, workers, told)
    data = {"out": str(out), **{name: value for name, value in asdict(manifest).items() if name != "shards"}}
    rows = {
        "documents": f"{manifest.documents:,}" + (f" ({manifest.empty:,} without text)" if manifest.empty else ""),
        "tokens": f"{manifest.tokens:,}",
        "characters per token": f"{manifest.characters / manifest.tokens:.2f}",
        "shards": f"{len(manifest.shards):,} of {manifest.dtype}",
    }
    show(data | {"shards": len(manifest.shards)}, f"{out}\n{aligned(rows)}", as_json)


@contextmanager
def _told(files: tuple[Path, ...]) -> Iterator[Callable[[Sequence[Document], int], None]]:
    """A bar over the bytes of the files: as many as characters were read of a file, and all of one that is finished."""
    sizes = {str(file): _size(file) for file in files}
    with progress(sum(sizes.values()), "tokens") as advance:
        current, within = "", 0

        def told(documents: Sequence[Document], tokens: int) -> None:
            nonlocal current, within
            done = 0
            for document in documents:
                file = _file(document.where, sizes)
                if file != current:
                    done += sizes.get(current, 0) - within
                    current, within = file, 0
                more = min(len(document.text), sizes.get(file, 0) - within)
                done, within = done + more, within + more
            advance(done, tokens)

        yield told
        advance(sizes.get(current, 0) - within, 0)


def _file(where: str, files: Mapping[str, int]) -> str:
    """The file of `file`, `file:row` or `file:row:line`."""
    while where not in files and ":" in where:
        where = where.rpartition(":")[0]
    return where


def _size(file: Path) -> int:
    """The bytes of a file, those of a gzipped one unpacked (to within 4 GB)."""
    size = file.stat().st_size
    if file.suffix != ".gz" or size < 4:
        return size
    with file.open("rb") as opened:
        opened.seek(-4, 2)
        return max(int.from_bytes(opened.read(4), "little"), size)
