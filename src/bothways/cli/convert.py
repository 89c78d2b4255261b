"""`bothways convert`: read a model and write it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bothways.cli.files import check_new, new_folder
from bothways.cli.options import FamilyOption, JsonOption, StrictOption, examples, named
from bothways.cli.output import aligned, show

Dtype = Literal["float32", "bfloat16", "float16"]
# the same choices as `Origin` in the model's room, which would take a second to import
From = Literal["tf1", "fairseq", "composer"]

_EXAMPLES = examples(
    "bothways convert old_bert/ new_bert/",
    "bothways convert my_model/ half/ --dtype bfloat16",
    "bothways convert nameless/ named/ --family bert --strict",
    "bothways convert large/ shards/ --max-shard-size 2GB",
    "bothways convert uncased_L-12_H-768_A-12/ bert/",
    "bothways convert roberta.base/model.pt roberta/",
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(convert)


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A model folder, a Hugging Face repository's id, or a checkpoint.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", callback=named, help="The folder to write: new, or empty.")],
    family: FamilyOption = None,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="The type of the weights written.")] = "float32",
    origin: Annotated[
        From | None, typer.Option("--from", help="The program whose checkpoint it is, where the files do not tell.")
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option("--max-shard-size", metavar="SIZE", help="Write the weights in files of at most this size: 500MB, 5GB."),
    ] = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read a model, check every weight of it, and write it as safetensors with today's names and config.

    Besides model folders, it reads TensorFlow 1 checkpoints of BERT, ELECTRA and ALBERT, fairseq's RoBERTa
    and Composer's MosaicBERT. Pickled weights (pytorch_model.bin, model.pt) are read as tensors only, never run.
    """
    check_new(out)
    import torch

    import bothways
    from bothways.model.importing import import_model, is_foreign

    weights = getattr(torch, dtype)
    if origin is not None or is_foreign(source):
        model = import_model(source, origin, family, device="cpu", dtype=weights, strict=strict)
    else:
        model = bothways.load(source, family=family, device="cpu", dtype=weights, strict=strict)
    with new_folder(out) as temporary:
        model.save(temporary, max_shard_size=max_shard_size)
    sizes = {str(file.relative_to(out)): file.stat().st_size for file in sorted(out.rglob("*")) if file.is_file()}
    data = {"out": str(out), "family": model.family.name, "dtype": dtype, "parameters": model.parameters_count, "files": sizes}
    head = f"{out}: {model.family.name}, {model.parameters_count:,} parameters, {dtype}"
    show(data, head + "\n" + aligned({f"  {name}": f"{size:>13,} bytes" for name, size in sizes.items()}), as_json)
