"""Token embeddings that begin as word vectors, counted in the run's own text."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bothways.config import to_json
from bothways.data.cooccurrence import Pairs, count_pairs
from bothways.data.shards import Shards
from bothways.data.token_data import hold_out
from bothways.data.tokenizer import Tokenizer
from bothways.errors import InputError
from bothways.files import replacing
from bothways.layers.embedding import TokenEmbedding
from bothways.recipes.carrying_out import Say
from bothways.recipes.corpus import Opened
from bothways.recipes.runs import Pretraining

# The vectors of a run, in its folder
VECTORS = "word_vectors.safetensors"
# Of the random projection: axes beside those asked for, and passes over the matrix
_BESIDE, _PASSES, _SEED = 16, 4, 0

Vectors = Float[Tensor, "tokens size"]


def prepare_word_vectors(
    run: Pretraining, folder: Path, tokenizer: Tokenizer, opened: Sequence[Opened], say: Say
) -> Vectors | None:
    """The run's word vectors, counted in the text that it learns from; kept in the folder, and read from there.

    None where it asks for none. Vectors of other settings are made anew. Every document counts once, whatever the weight of its
    part in a mixture.
    """
    if run.embeddings is None:
        return None
    place, made = folder / VECTORS, json.dumps([to_json(run.embeddings), _size(run), run.held_out, run.training.seed])
    if not place.exists() or _made(place) != made:
        say("counting which tokens stand near which")
        pairs = count_pairs(run.embeddings, _learned(run, opened), tokenizer.vocab_size, tokenizer.special_ids)
        vectors = word_vectors(pairs, _size(run), run.embeddings.smoothing)
        known, axes = int(vectors.any(dim=1).sum()), int(vectors.any(dim=0).sum())
        say(f"{known:,} of {len(vectors):,} tokens begin as word vectors of {axes:,} axes, by {pairs.tokens:,} tokens of text")
        with replacing(place) as partial:
            save_file({"vectors": vectors}, partial, metadata={"made": made})
    return load_file(place)["vectors"]


def _made(place: Path) -> str:
    with safe_open(place, framework="pt") as file:
        return str((file.metadata() or {}).get("made"))


def _learned(run: Pretraining, opened: Sequence[Opened]) -> list[tuple[Shards, Int[np.ndarray, " documents"]]]:
    """The documents of each part that are not held out."""
    sides = [hold_out(len(one.shards.lengths), run.held_out, run.training.seed) for one in opened]
    return [(one.shards, np.intersect1d(kept, one.documents)) for one, (kept, _) in zip(opened, sides, strict=True)]


def word_vectors(pairs: Pairs, size: int, smoothing: float) -> Vectors:
    """Rows of length 1, the main axes first; of zeros for tokens of which nothing is known (Levy, Goldberg and Dagan 2015).

    Columns that the text has no axes for are zeros: n tokens have at most n / 2, since with n of them all would be equally far
    apart; and no more than the rank of what was counted.
    """
    information = _information(pairs, smoothing)
    told = information.indices()[0].unique()
    axes = nn.functional.normalize(_main_axes(information, min(size, len(told) // 2))[told])
    vectors = torch.zeros(pairs.size, size)
    vectors[told, : axes.shape[1]] = nn.functional.normalize(axes - axes.mean(0))
    return vectors


def begin_with(vectors: Vectors, objective: nn.Module) -> None:
    """Turn the rows of all tables of tokens, in place; a narrower table has the first axes.

    All rows that are turned get one length, their mean, so that the scheme of fresh weights goes on to say how
    large they are.
    """
    for table in _tables(objective):
        rows = nn.functional.normalize(vectors[:, : table.shape[1]])
        known = rows.any(dim=1).nonzero().flatten()
        with torch.no_grad():
            table[known] = (rows[known] * table[known].norm(dim=1).mean().cpu()).to(table)


def check_word_vectors(run: Pretraining, objective: nn.Module) -> None:
    """Raises InputError where the run's tables of tokens cannot begin as word vectors."""
    if run.embeddings is None:
        return
    if run.start is not None:
        raise InputError("embeddings: would replace those of start; leave one of the two out")
    if widest := [one.shape[1] for one in _tables(objective) if one.shape[1] > _size(run)]:
        raise InputError(f"embeddings: a generator's table of {widest[0]} columns beside one of {_size(run)}; make it no wider")


def _size(run: Pretraining) -> int:
    return run.encoder.embedding.size or run.encoder.hidden_size


def _tables(objective: nn.Module) -> list[Tensor]:
    embeddings = [one.tokens for one in objective.modules() if isinstance(one, TokenEmbedding)]
    return [one.weight for one in embeddings if isinstance(one, nn.Embedding)]


def _information(pairs: Pairs, smoothing: float) -> Tensor:
    """Positive pointwise mutual information of tokens and contexts, sparse."""
    places = torch.from_numpy(np.stack([pairs.keys // pairs.size, pairs.keys % pairs.size]))
    shape = (pairs.size, pairs.size)
    one_way = torch.sparse_coo_tensor(places, torch.from_numpy(pairs.weights), shape, check_invariants=True)
    near = (one_way + one_way.t()).coalesce()
    (tokens, contexts), weights = near.indices(), near.values()
    often = torch.zeros(pairs.size, dtype=weights.dtype).index_add_(0, tokens, weights)
    share = often**smoothing / (often**smoothing).sum()
    information = (weights / (often[tokens] * share[contexts])).log()
    positive = information > 0
    return torch.sparse_coo_tensor(
        near.indices()[:, positive], information[positive].float(), shape, is_coalesced=True, check_invariants=True
    )


def _main_axes(matrix: Tensor, count: int) -> Vectors:
    """The left singular vectors of at most so many singular values, the largest, by a random projection of a fixed seed."""
    with torch.random.fork_rng(devices=()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        torch.default_generator.manual_seed(_SEED)
        # by rows, products are four times as fast as by places
        axes, values, _ = torch.svd_lowrank(matrix.to_sparse_csr(), min(count + _BESIDE, len(matrix)), _PASSES)
    told = values > values[:1] * len(matrix) * torch.finfo(values.dtype).eps  # what is smaller, rounding made
    return axes[:, told][:, :count]
