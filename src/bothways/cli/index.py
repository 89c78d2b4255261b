"""`bothways index` and `bothways search`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bothways.cli.options import ColumnOption, JsonOption, Method, ModelArgument, examples
from bothways.cli.output import note, progress, show, stoppable

if TYPE_CHECKING:
    from bothways.model.model import Model

_INDEX_EXAMPLES = examples(
    "bothways index my_model notes/ --out notes.index",
    "bothways index my_model papers.csv --column abstract --id-column doi --out papers.index",
    "bothways index my_model books/ --out books.index --max-tokens 256 --overlap 32",
)
_SEARCH_EXAMPLES = examples(
    'bothways search notes.index "how do I renew a certificate"',
    'bothways search papers.index "protein folding" -k 3 --method hybrid --json',
    'bothways search notes.index "tax" --model moved/my_model',
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_INDEX_EXAMPLES)(index)
    app.command(epilog=_SEARCH_EXAMPLES)(search)


def index(
    model: ModelArgument,
    documents: Annotated[Path, typer.Argument(metavar="DOCUMENTS", help="A folder of texts, a text file, or a table.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The index: a new folder, or one to bring up to date.")],
    column: ColumnOption = "text",
    id_column: Annotated[
        str | None, typer.Option("--id-column", metavar="NAME", help="The column of names in a table; default: the row's place.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Tokens of a passage; default: the model's.")] = None,
    overlap: Annotated[int, typer.Option("--overlap", min=0, help="Tokens that neighbouring passages share.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a folder that can be searched, or bring it up to date.

    Only what is new or changed since the last time is embedded; what is gone is removed. Long documents are cut
    into passages. After an interruption the same command goes on.
    """
    from bothways.data.source import list_source, open_source
    from bothways.retrieval.update import checked

    source = open_source(documents, column)
    listing = list_source(source)
    if listing.skipped or listing.empty:
        note(f"{documents}: {listing}")
    # Read once before any work: a document that cannot be used is found before the index is touched.
    total = sum(1 for _ in checked(_named(documents, column, id_column)))

    import bothways
    from bothways.retrieval.chunking import Chunking
    from bothways.retrieval.index import Index

    path = Path(model)  # kept in the index, for searches from other folders
    loaded = bothways.load(path.resolve() if path.is_dir() else model)
    with stoppable(), progress(total, "passages") as advance:
        seen = (0, 0)

        def update(read: int, embedded: int) -> None:
            nonlocal seen
            advance(read - seen[0], embedded - seen[1])
            seen = (read, embedded)

        chunking = Chunking(max_tokens=max_tokens, overlap=overlap)
        report = Index.create_or_update(out, _named(documents, column, id_column), loaded, chunking, progress=update)
    skipped = {"suffix": listing.skipped, "empty": listing.empty}
    show({"out": str(out), **asdict(report), "skipped_files": skipped}, f"{out}: {report}", as_json)


def search(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `bothways index` wrote.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for.")],
    model: Annotated[str | None, typer.Option("--model", help="The model that made the index, if it has moved.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many passages.")] = 10,
    method: Annotated[Method, typer.Option("--method", help="By vectors, by words, or both fused by rank.")] = "dense",
    as_json: JsonOption = False,
) -> None:
    """Find the passages of an index that answer a query best."""
    import bothways
    from bothways.errors import InputError
    from bothways.retrieval.index import Index
    from bothways.retrieval.settings import read_settings

    settings = read_settings(folder)
    if settings is None:
        raise InputError(f"{folder}: there is no index here; make one with `bothways index`")
    loaded = _maker(folder, settings.model) if model is None else bothways.load(model)
    hits = Index.open(folder, loaded).search(query, k, method)
    lines = [f"{hit.score:7.4f}  {hit.document} ({hit.start}-{hit.end})\n         {_line(hit.text)}" for hit in hits]
    data = {"query": query, "method": method, "hits": [asdict(hit) for hit in hits]}
    show(data, "\n".join(lines) or "nothing found", as_json)


def _maker(folder: Path, name: str) -> Model:
    """The model an index says it was made with."""
    import bothways
    from bothways.errors import InputError

    try:
        return bothways.load(name)
    except InputError as error:
        raise InputError(f"{folder}: its model cannot be loaded ({error}); if it has moved, say where with --model") from None


def _named(path: Path, column: str, id_column: str | None) -> Iterator[tuple[str, str]]:
    """Each document's name and text. A file is named by its place in the folder, so that the folder may move."""
    from bothways.data.rows import read_rows
    from bothways.data.source import TextFiles, open_source, read_documents
    from bothways.errors import InputError

    source = open_source(path, column)
    if id_column is None:
        root = path if path.is_dir() else path.parent
        for document in read_documents(source):
            yield Path(document.where).relative_to(root).as_posix(), document.text
        return
    if isinstance(source, TextFiles):
        raise InputError(f"{path}: texts in files have no columns; leave out --id-column {id_column}")
    for where, (name, text) in read_rows(source.table, [id_column, column]):
        if name is None or str(name) == "":
            raise InputError(f"{where}: no name in column '{id_column}'")
        if not isinstance(text, str):
            raise InputError(f"{where}: column '{column}' holds {type(text).__name__}, not text")
        yield str(name), text


def _line(text: str, width: int = 160) -> str:
    """The beginning of a passage, on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "\u2026"
