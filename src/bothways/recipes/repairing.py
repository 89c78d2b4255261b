"""From a pretrained encoder to one that finds a wrong variable in a function and points at the right one (arXiv 2001.00059)."""

from __future__ import annotations

import json
from pathlib import Path

from bothways.config import from_json
from bothways.data.code.pointers import PointerData, read_pointed
from bothways.data.loader import Loader
from bothways.data.rows import Csv, JsonLines, Parquet
from bothways.encoder.initialisation import initialise
from bothways.errors import InputError
from bothways.families.family import Heads
from bothways.layers.pointer import Pointer
from bothways.model.folder import load
from bothways.model.model import Model
from bothways.objectives.repair import LocalizationAndRepair
from bothways.recipes.carrying_out import Say, Trained, carry_out, claim, watching
from bothways.recipes.finetuning import start
from bothways.recipes.head_files import load_beside, save_beside
from bothways.recipes.runs import Repairing
from bothways.training import record

# The pointers' weights, in the run's folder
POINTERS = "pointers.safetensors"
_FIGURES = ("location_loss", "repair_loss", "accuracy", "true_positive", "localization", "repair", "joint")


def repair(run: Repairing, folder: Path, say: Say = lambda line: None, command: str = "") -> Trained:
    """Train the two pointers and the encoder under them; the encoder is saved in `folder/model`, the pointers beside it.

    Raises:
        InputError: rows that cannot be read, functions too long, a folder of another run.
    """
    claim(run, folder, POINTERS)
    model = start(run.model, run.from_scratch, run.training.seed).with_heads(Heads())
    data = _data(run, run.table, model, say)
    spec = model.spec.encoder
    head = Pointer(run.head, spec.hidden_size)
    initialise(head, spec.initialisation, spec.num_layers, run.training.seed)
    objective = LocalizationAndRepair(model.encoder, head)
    loader = Loader(data, run.batching, objective.prepare, run.training.seed, run.workers)
    held = None if run.held_out is None else _data(run, run.held_out, model, say)
    watch = watching(run, objective, held, str(model.device), _FIGURES)
    trained = carry_out(
        run, folder, objective, loader.open, model, watch,
        title="Localisation and repair", command=command, metrics=("accuracy", "localization", "repair", "joint"), say=say,
    )  # fmt: skip
    save_beside(folder / POINTERS, head)
    return trained


def load_repair(folder: Path) -> LocalizationAndRepair:
    """What a finished run has trained, in evaluation mode.

    Raises:
        InputError: no such run, one that is not finished, or pointers of another shape.
    """
    known = record.read(folder)
    if known is None or not (folder / POINTERS).exists():
        raise InputError(f"{folder}: no finished run of `bothways code repair`")
    run = from_json(Repairing, json.dumps(known.run), str(folder / record.NAME))
    model = load(str(folder / "model"))
    pointers = Pointer(run.head, model.spec.encoder.hidden_size)
    load_beside(folder / POINTERS, pointers)
    return LocalizationAndRepair(model.encoder, pointers.to(model.device)).eval()


def _data(run: Repairing, table: JsonLines | Csv | Parquet, model: Model, say: Say) -> PointerData:
    assert model.tokenizer is not None
    rows = read_pointed(table)
    data = PointerData(rows, model.tokenizer, model.max_seq_length, run.overflow)
    if data.cut or data.left_out:
        lost = f"{data.left_out:,} left out, their bug being behind that"
        say(f"{data.cut:,} of {len(rows):,} functions were cut to {model.max_seq_length} tokens, and {lost}")
    return data
