"""A run is a value: everything that decides its numbers, and nothing that does not but `workers`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from bothways.config import config
from bothways.data.masking import Masking
from bothways.data.packing import SampleCount, TokenBudget
from bothways.data.rows import Table
from bothways.data.source import Source
from bothways.data.table import Contrast, SingleText, TextPair
from bothways.data.tokenizer_training import TokenizerTraining
from bothways.encoder.config import EncoderConfig
from bothways.layers.heads import MaskedLmHead, Pooling
from bothways.objectives.contrastive import InfoNce
from bothways.training.settings import TrainingConfig

# Where a config is read without a list of families at hand; a test holds it to `bothways.families.FAMILIES`.
FamilyName = Literal[
    "bert", "roberta", "xlm-roberta", "camembert", "albert", "distilbert", "electra", "longformer", "deberta", "deberta-v2",
    "mpnet", "ernie_gram", "mosaicbert", "nomic_bert", "modernbert", "neobert", "m2_bert", "eurobert",
    "llama", "mistral", "qwen2", "qwen3",
]  # fmt: skip

# Fields that may differ when a run goes on: how it is computed and watched, not what.
FREE = ("workers", "training.log_every", "training.checkpoint_every", "training.keep", "training.parallel")


@config
class GivenTokenizer:
    """A tokenizer that exists: the folder it is read from."""

    type: Literal["given"] = "given"
    folder: str


@config
class Pretraining:
    """Masked-language pretraining from raw text.

    Attributes:
        family: the published family the model is saved as.
        tokenizer: trained on the corpus, or given.
        max_length: tokens of a sample, special tokens included; longer documents are cut into several.
        held_out: the share of documents kept for evaluation.
    """

    family: FamilyName
    encoder: EncoderConfig
    head: MaskedLmHead
    masking: Masking
    source: Source
    tokenizer: Annotated[TokenizerTraining | GivenTokenizer, Field(discriminator="type")]
    batching: TokenBudget
    training: TrainingConfig
    max_length: PositiveInt
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.02
    workers: NonNegativeInt = 0


@config
class Finetuning:
    """A classifier, or a regression, on a pretrained encoder.

    Attributes:
        model: its folder or repository.
        held_out: the table to evaluate on; None evaluates nothing.
        from_scratch: fresh weights in place of the pretrained ones, for comparison.
        overflow: whether inputs over the model's length are refused, or cut and counted.
    """

    model: str
    table: Table
    columns: Annotated[SingleText | TextPair, Field(discriminator="type")]
    held_out: Table | None = None
    regression: bool = False
    batching: SampleCount
    training: TrainingConfig
    from_scratch: bool = False
    overflow: Literal["error", "cut"] = "error"
    workers: NonNegativeInt = 0


@config
class Embedding:
    """A sentence embedder, trained on pairs that belong together; `pooling` None keeps the model's own."""

    model: str
    table: Table
    columns: Contrast
    loss: InfoNce = InfoNce()
    pooling: Pooling | None = None
    batching: SampleCount
    training: TrainingConfig
    from_scratch: bool = False
    overflow: Literal["error", "cut"] = "error"
    workers: NonNegativeInt = 0
