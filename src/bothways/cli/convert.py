"""`bothways convert`: read a model and write it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bothways.cli.files import check_new, new_folder
from bothways.cli.options import FamilyOption, JsonOption, StrictOption, examples, named
from bothways.cli.output import aligned, show

Dtype = Literal["float32", "bfloat16", "float16"]

_EXAMPLES = examples(
    "bothways convert old_bert/ new_bert/",
    "bothways convert my_model/ half/ --dtype bfloat16",
    "bothways convert nameless/ named/ --family bert --strict",
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(convert)


def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A model folder, or the id of a Hugging Face repository.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", callback=named, help="The folder to write: new, or empty.")],
    family: FamilyOption = None,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="The type of the weights written.")] = "float32",
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read a model, check every weight of it, and write it as safetensors with today's names and config.

    Old pickled weights (pytorch_model.bin) are read as tensors only, never run.
    """
    check_new(out)
    import torch

    import bothways

    model = bothways.load(source, family=family, device="cpu", dtype=getattr(torch, dtype), strict=strict)
    with new_folder(out) as temporary:
        model.save(temporary)
    sizes = {str(file.relative_to(out)): file.stat().st_size for file in sorted(out.rglob("*")) if file.is_file()}
    data = {"out": str(out), "family": model.family.name, "dtype": dtype, "parameters": model.parameters_count, "files": sizes}
    head = f"{out}: {model.family.name}, {model.parameters_count:,} parameters, {dtype}"
    show(data, head + "\n" + aligned({f"  {name}": f"{size:>13,} bytes" for name, size in sizes.items()}), as_json)
