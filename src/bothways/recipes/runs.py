"""A run is a value: everything that decides its numbers, and nothing that does not but `workers`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from bothways.config import config
from bothways.data.cooccurrence import Cooccurrence
from bothways.data.masking import Masking
from bothways.data.mixture import Corpus
from bothways.data.packing import SampleCount, TokenBudget
from bothways.data.rows import Table
from bothways.data.sentence_blocks import WholeSentences
from bothways.data.sentence_pairs import PairTask
from bothways.data.source import Column, TextFiles
from bothways.data.table import Contrast, SingleText, TextPair
from bothways.data.tokenizer_training import TokenizerTraining
from bothways.data.warmup import LengthWarmup
from bothways.encoder.config import EncoderConfig
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.layers.heads import ClassifierHead, ClassifierPooling, MaskedLmHead, Pooling, Transform
from bothways.layers.pointer import PointerHead
from bothways.objectives.auto_encoding import Denoising, RetroMae
from bothways.objectives.contrastive import InfoNce
from bothways.objectives.decoded_lm import GradualUnmasking
from bothways.objectives.distillation.labels import SoftLabels
from bothways.objectives.distillation.methods import Hints, Method
from bothways.objectives.distillation.pairs import HALF_AND_HALF
from bothways.objectives.masked_views import Views
from bothways.objectives.ngram_lm import ExplicitNGrams
from bothways.objectives.replaced_token import ReplacedTokens
from bothways.training.settings import TrainingConfig

# Where a config is read without a list of families at hand; a test holds it to `bothways.families.BY_NAME`.
FamilyName = Literal[
    "bert", "roberta", "xlm-roberta", "camembert", "albert", "distilbert", "electra", "longformer", "deberta", "deberta-v2",
    "mpnet", "ernie_gram", "mosaicbert", "nomic_bert", "modernbert", "neobert", "m2_bert", "eurobert",
    "llama", "mistral", "qwen2", "qwen3", "bothways",
]  # fmt: skip

# Which tokens a run predicts
Predicts = Literal["masked", "next"]

# Fields that may differ when a run goes on: how it is computed and watched, not what.
FREE = ("workers", "training.log_every", "training.checkpoint_every", "training.keep", "training.parallel", "training.compile")


@config
class GivenTokenizer:
    """A tokenizer that exists.

    Attributes:
        folder: it is read from there.
        added: words that it reads as one token each from now on (`data.added_tokens.with_tokens`); None: none.
    """

    type: Literal["given"] = "given"
    folder: str
    added: Annotated[tuple[str, ...], Field(min_length=1)] | None = None


@config
class ByLength:
    """The documents of so many tokens or more, as one part of a mixture: its share is its weight over the sum of all."""

    at_least: NonNegativeInt
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)]


@config
class SentencePairs:
    """A second task beside masked language modelling, on pairs of stretches of sentences.

    Attributes:
        head: what tells the two classes apart. It is saved where the family has a place for it, and dropped elsewhere.
        weight: of the second loss.
    """

    task: PairTask
    head: ClassifierHead = ClassifierHead(labels=2, transform=Transform(activation="tanh"))
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


@config
class TextVectors:
    """What a text's vector is trained by.

    Attributes:
        task: RetroMAE: a weak decoder gets the text back from it, beside the run's masked tokens. Denoising: the whole text is
            spelt out from it, and nothing is masked. Views: it is told from those of other texts, beside masked tokens.
        pooling: what the vector is, in training and of the model that is saved.
        weight: of the decoder's loss, or the contrast's.
    """

    task: Annotated[RetroMae | Denoising | Views, Field(discriminator="type")]
    pooling: Pooling = "cls"
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


@config
class Pretraining:
    """Pretraining from text (raw, tokenised, or a mixture) by masked tokens, or by tokens that were put in their place.

    Attributes:
        family: the family the model is saved as: a published one, or "bothways", which can say anything.
        tokenizer: trained on the corpus, or given.
        max_length: tokens of a sample, special tokens included; longer documents are cut into several.
        blocks: samples are whole sentences, as many as there is room for; None: a document is cut wherever a sample is full.
        length_warmup: lower limits to begin with; None: none.
        by_length: the text as a mixture of its longer documents and all others, in these shares of the tokens; None: as it is.
        held_out: the share of documents kept for evaluation.
        held_out_rate: the share of tokens masked in them; None: as in training.
        predicts: the tokens that are masked, or each time the next one, which needs causal attention.
        pairs: a second task on pairs of sentences; None: samples are single stretches of text.
        decoder: what stands before the vocabulary in pretraining alone; None: nothing.
        start: the folder or repository of a model whose weights the run begins with; `family`, the shapes of `encoder` and
            `head`, and `tokenizer` are that model's; the rows of tokens that are added to it begin as `model.growth.grow` says.
            None: fresh weights.
        general: text of no domain, on which what is forgotten is measured, before the first step and ever after; None: nothing.
        replaced_tokens: `encoder` learns to tell tokens that a generator has put in the place of masked ones; `head` is the
            generator's. None: it learns to predict masked tokens, and `head` is its own.
        ngrams: n-grams are masked as one and predicted as one; with `replaced_tokens`, in the place of n-grams and tokens that a
            generator draws, and both networks have a `head`. None: tokens are, each on its own.
        embeddings: what the tables of tokens begin as, in place of a random draw. None: fresh weights.
        vectors: a text's vector is trained as well. None: what is learned of texts is learned of their tokens.
    """

    family: FamilyName
    encoder: EncoderConfig
    head: MaskedLmHead
    masking: Masking
    source: Corpus
    tokenizer: Annotated[TokenizerTraining | GivenTokenizer, Field(discriminator="type")]
    batching: TokenBudget
    training: TrainingConfig
    max_length: PositiveInt
    blocks: WholeSentences | None = None
    length_warmup: LengthWarmup | None = None
    by_length: Annotated[tuple[ByLength, ...], Field(min_length=1)] | None = None
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.02
    held_out_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    predicts: Predicts = "masked"
    pairs: SentencePairs | None = None
    decoder: Annotated[GradualUnmasking | MaskDecoderHead, Field(discriminator="type")] | None = None
    start: str | None = None
    general: Annotated[TextFiles | Column, Field(discriminator="type")] | None = None
    replaced_tokens: ReplacedTokens | None = None
    ngrams: ExplicitNGrams | None = None
    embeddings: Cooccurrence | None = None
    vectors: TextVectors | None = None
    workers: NonNegativeInt = 0

    @property
    def masked_alone(self) -> bool:
        """Whether masked tokens are all that is learned from."""
        beside = (self.pairs, self.decoder, self.replaced_tokens, self.ngrams, self.vectors)
        return self.predicts == "masked" and all(one is None for one in beside)


@config
class Stage:
    """What a stage of a longer run does otherwise than the stage before it; a field that is None stays as it was.

    Attributes:
        name: of its folder, behind its number.
        encoder: another config of the same weights: rotary bases, dropout, `max_length` where no table depends on it, `causal`.
        training: its budget, learning rate, schedule and all else of training; the seed is the run's.
        average: the stage ends with the mean of the weights of its last so many checkpoints; None: with its last weights.
        moments: whether the optimizer goes on with what it has gathered, or begins afresh.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    encoder: EncoderConfig | None = None
    masking: Masking | None = None
    predicts: Predicts | None = None
    source: Corpus | None = None
    batching: TokenBudget | None = None
    training: TrainingConfig | None = None
    max_length: PositiveInt | None = None
    by_length: Annotated[tuple[ByLength, ...], Field(min_length=1)] | None = None
    average: PositiveInt | None = None
    moments: Literal["fresh", "kept"] = "fresh"


@config
class Staged:
    """Pretraining in stages, each of which begins with the weights that the one before ended with.

    Attributes:
        base: the run that the first stage changes, mostly in nothing.
    """

    base: Pretraining
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]

    @property
    def runs(self) -> tuple[Pretraining, ...]:
        """Every stage as a whole run."""
        runs, last = [], self.base
        for stage in self.stages:
            last = replace(last, **{name: value for name in CHANGED if (value := getattr(stage, name)) is not None})
            runs.append(last)
        return tuple(runs)

    @property
    def folders(self) -> tuple[str, ...]:
        """The folder of each stage, within the run's."""
        return tuple(f"{number}-{stage.name}" for number, stage in enumerate(self.stages, start=1))

    @property
    def free(self) -> tuple[str, ...]:
        """`FREE`, as paths of this run."""
        stages = (f"stages.{number}" for number in range(len(self.stages)))
        return tuple(f"{part}.{path}" for part in ("base", *stages) for path in FREE)


# The fields of a run that a stage may change
CHANGED = ("encoder", "masking", "predicts", "source", "batching", "training", "max_length", "by_length")


@config
class Finetuning:
    """A classifier, or a regression, on a pretrained encoder.

    Attributes:
        model: its folder or repository.
        held_out: the table to evaluate on; None evaluates nothing.
        pooling: of the classifier; None keeps that of the checkpoint, or of its family where it says nothing.
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
    pooling: ClassifierPooling | None = None
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


@config
class Repairing:
    """Two pointers on a pretrained encoder: at a wrong variable of a function, and at the right one.

    Attributes:
        table, held_out: rows of `variable_misuse_repair`, as `data/code/build.py` writes them.
        overflow: whether functions over the model's length are refused, or cut; one whose bug is cut off is left out.
    """

    model: str
    table: Table
    held_out: Table | None = None
    head: PointerHead = PointerHead()
    batching: SampleCount
    training: TrainingConfig
    from_scratch: bool = False
    overflow: Literal["error", "cut"] = "error"
    workers: NonNegativeInt = 0


class Taught:
    """A run with a teacher: what it is underneath is its `base`."""

    base: Any  # each says what it is

    @property
    def training(self) -> TrainingConfig:
        return self.base.training

    @property
    def free(self) -> tuple[str, ...]:
        """`FREE`, as paths of this run."""
        return tuple(f"base.{path}" for path in FREE)


@config
class Distillation(Taught):
    """A masked-language student that learns on text from a teacher of the same tokenizer.

    Attributes:
        base: the student and its text: what `Pretraining` says, with the teacher's tokenizer.
        teacher: its folder or repository.
        layers: the teacher's layers that the student's begin as; None: fresh weights, or those of `base.start`.
    """

    base: Pretraining
    teacher: str
    method: Method
    layers: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None


@config
class TaskDistillation(Taught):
    """A classifier, or a regression, that learns of labels and of a teacher's logits.

    Attributes:
        base: the student and its rows: what `Finetuning` says.
        teacher: the folder or repository of a model that has learned the task.
        hints: what of the teacher's inside is learned from as well; None: nothing, and the tokenizers may differ.
        layers: the layers of `base.model` that the student begins as; None: all.
    """

    base: Finetuning
    teacher: str
    soft: SoftLabels = SoftLabels()
    hints: Hints | None = None
    layers: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None


@config
class SiameseDistillation(Taught):
    """Two texts encoded apart, and a head on their vectors that learns labels and a cross-encoder's logits.

    Attributes:
        base: the student and its pairs: what `Finetuning` says, with columns of pairs.
        teacher: the folder or repository of a model that has learned the task, reading both texts together.
        vector_layers: how many of the last layers' outputs make up a text's vector; None: four, or all where there are fewer.
        head_size: width of the head's hidden layer.
        layers: the layers of `base.model` that the student begins as; None: all.
    """

    base: Finetuning
    teacher: str
    soft: SoftLabels = HALF_AND_HALF
    vector_layers: PositiveInt | None = None
    head_size: PositiveInt = 512
    layers: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None
