"""A curation as a value: what is read, the steps, what is written; and, apart from these, what carries it out."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from bothways.config import config
from bothways.data.curation.decontamination import Decontamination
from bothways.data.curation.domain import DomainSelection
from bothways.data.curation.duplicates import ExactDuplicates, NearDuplicates
from bothways.data.curation.language import Language
from bothways.data.curation.pii import Pii
from bothways.data.curation.quality import C4, FineWeb, GopherQuality, GopherRepetition
from bothways.data.curation.shards import JsonlShards, Output
from bothways.data.curation.sources import CuratedSource

CurationStep = Annotated[
    Language
    | GopherRepetition
    | GopherQuality
    | C4
    | FineWeb
    | ExactDuplicates
    | NearDuplicates
    | DomainSelection
    | Decontamination
    | Pii,
    pydantic.Field(discriminator="type"),
]


@config
class Local:
    """Processes of this machine.

    Attributes:
        workers: how many; None: one a core. 1 works in this process.
    """

    type: Literal["local"] = "local"
    workers: pydantic.PositiveInt | None = None


@config
class Ray:
    """A Ray cluster, which must see the sources and the output under the same paths.

    Attributes:
        workers: how many parts are worked on at a time; None: as many as there are.
        address: where the cluster is; None starts one on this machine, and ends it afterwards.
        memory_gb: what a worker reserves. Work waits until the cluster has it.
    """

    type: Literal["ray"] = "ray"
    workers: pydantic.PositiveInt | None = None
    address: str | None = None
    memory_gb: pydantic.PositiveFloat = 1.0


@config
class Slurm:
    """Slurm, called on a machine that has `sbatch`: the jobs of all stages are submitted, each waiting for the one before.

    Attributes:
        workers: how many parts are worked on at a time; None: no limit.
        environment: a shell command that makes `launch_pickled_pipeline` of datatrove, and bothways, available.
        qos: the quality of service; empty for none.
    """

    type: Literal["slurm"] = "slurm"
    partition: str
    time: str = "24:00:00"
    workers: pydantic.PositiveInt | None = None
    memory_gb: pydantic.PositiveInt = 2
    environment: str | None = None
    qos: str = ""


Executor = Annotated[Local | Ray | Slurm, pydantic.Field(discriminator="type")]


@config
class Curation:
    """From sources to shards of the documents worth learning from.

    Attributes:
        steps: carried out in this order, each on what the one before kept.
        seed: of the hashes that near duplicates are found by.
        part_bytes: the sources are cut into parts of about so many bytes of their files; a part is what a process works
            on, and becomes a shard. It is part of what is written; the number of workers is not.
        unreadable: `error`: a file that cannot be read ends the work. `drop`: it is left out from the place on where it
            cannot be read (a broken line, bytes of another encoding), counted, and named in the account.
    """

    sources: Annotated[tuple[CuratedSource, ...], pydantic.Field(min_length=1)]
    steps: tuple[CurationStep, ...]
    output: Output = JsonlShards()
    executor: Executor = Local()
    seed: pydantic.NonNegativeInt = 0
    part_bytes: pydantic.PositiveInt = 1 << 23
    unreadable: Literal["error", "drop"] = "error"


def usual_steps(language: str | None) -> tuple[CurationStep, ...]:
    """Duplicates; and where the language is known, its identification and Gopher's rules before the near ones."""
    if language is None:
        return (ExactDuplicates(), NearDuplicates())
    rules = (GopherRepetition(language=language), GopherQuality(language=language))
    return (ExactDuplicates(), Language(keep=(language,)), *rules, NearDuplicates())
