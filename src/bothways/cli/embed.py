"""`bothways embed`: texts to vectors in a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bothways.cli.files import check_replaceable, new_file
from bothways.cli.options import ColumnOption, JsonOption, ModelArgument, Overflow, Split, examples
from bothways.cli.output import note, progress, show

if TYPE_CHECKING:
    import numpy as np

    from bothways.data.source import Document
    from bothways.model.model import Model

Role = Literal["text", "query", "document"]

_EXAMPLES = examples(
    "bothways embed my_model sentences.txt --out vectors.npy",
    "bothways embed my_model papers.csv --column abstract --role document --out vectors.parquet",
    'bothways embed my_model questions.jsonl --prompt "query: " --overflow error --out vectors.npy',
    "bothways embed my_model notes/ --split whole --overflow chunk --out vectors.parquet",
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(embed)


def embed(
    model: ModelArgument,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A text file (one text a line), a table, or a folder.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .npy (vectors) or .parquet (place, text, vector).")],
    column: ColumnOption = "text",
    split: Annotated[
        Split | None, typer.Option("--split", help="What is one text; default: a line of a text file, a whole cell of a table.")
    ] = None,
    role: Annotated[Role, typer.Option("--role", help="Which of the model's own prompts the texts get.")] = "text",
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="Put this before each text instead.")] = None,
    overflow: Annotated[
        Overflow, typer.Option("--overflow", help="Texts that are too long: cut (and counted), refused, or read in chunks.")
    ] = "cut",
    as_json: JsonOption = False,
) -> None:
    """Turn each text into a vector.

    Pooling, normalisation and prompts are those the model's folder says. Lines that are blank are left out; a
    .parquet says where each of its texts stood.
    """
    if out.suffix not in (".npy", ".parquet"):
        raise typer.BadParameter(f"{out}: the name ends in .npy or .parquet", param_hint="--out")
    if prompt is not None and role != "text":
        raise typer.BadParameter(f"takes the place of the model's own prompt; leave out --role {role}", param_hint="--prompt")
    check_replaceable(out)
    documents = read_texts(source, column, split)
    import bothways

    loaded = bothways.load(model)
    vectors = _embedded(loaded, [document.text for document in documents], role, prompt, overflow)
    _write(out, documents, vectors)
    data = {"out": str(out), "model": model, "texts": len(vectors), "size": vectors.shape[1]}
    show(data, f"{len(vectors):,} vectors of {vectors.shape[1]} numbers in {out}", as_json)


def read_texts(path: Path, column: str, split: Split | None) -> list[Document]:
    """The texts of a file or a folder; by lines, where a text file is not to be split otherwise.

    Raises:
        InputError: it cannot be read, or there is no text in it.
    """
    from bothways.data.source import TextFiles, list_source, open_source, read_documents
    from bothways.errors import InputError

    source = open_source(path, column)
    source = replace(source, split=split or ("line" if isinstance(source, TextFiles) else "whole"))
    listing = list_source(source)
    if listing.skipped or listing.empty:
        note(f"{path}: {listing}")
    documents = list(read_documents(source))
    if not documents:
        raise InputError(f"{path}: there is no text in it")
    if source.split == "line" and (blank := _blank(documents)):
        note(f"{path}: {blank:,} blank line{'s' if blank > 1 else ''} left out; rows of the result are not numbers of lines")
    return documents


def _blank(documents: list[Document]) -> int:
    """The lines without text before the last text of each file: those that move its rows."""
    places = (document.where.rpartition(":") for document in documents)
    last = {file: int(line) for file, _, line in places}
    return sum(last.values()) - len(documents)


def _embedded(model: Model, texts: list[str], role: Role, prompt: str | None, overflow: Overflow) -> np.ndarray:
    # pieces are counted, and how many there are shows only on the way
    with progress(None if overflow == "chunk" else len(texts), "tokens") as advance:
        match role:
            case "query":
                return model.encode_query(texts, overflow=overflow, progress=advance)
            case "document":
                return model.encode_document(texts, overflow=overflow, progress=advance)
            case "text":
                return model.encode(texts, prompt=prompt, overflow=overflow, progress=advance)


def _write(out: Path, documents: list[Document], vectors: np.ndarray) -> None:
    import numpy as np

    with new_file(out) as temporary:
        if out.suffix == ".npy":
            np.save(temporary, vectors, allow_pickle=False)
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {
            "where": [document.where for document in documents],
            "text": [document.text for document in documents],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
        }
        pq.write_table(pa.table(columns), temporary)
