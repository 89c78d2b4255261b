"""What a published family is: a reversible mapping between its folders and our configs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from bothways.encoder.config import EncoderConfig, Layer
from bothways.encoder.enhanced_mask_decoder import MaskDecoderHead
from bothways.errors import InputError
from bothways.families.convert import Reader, Rule
from bothways.layers.attention import Attention
from bothways.layers.heads import ClassifierHead, ClassifierPooling, MaskedLmHead, Transform
from bothways.layers.mlp import BlockDiagonal, Gated, Plain
from bothways.layers.monarch import Monarch
from bothways.layers.replaced_token import ReplacedTokenHead

# the kinds of classifiers, as `transformers` names them
Problem = Literal["regression", "single_label_classification", "multi_label_classification"]


class Inexpressible(InputError):
    """A family's `config.json` has no way to say what a model is."""

    def __init__(self, family: str, what: str) -> None:
        super().__init__(f"the family '{family}' cannot express this {what}; nothing was written")


@dataclass(frozen=True)
class Heads:
    """The heads of a checkpoint; None where it has no such head.

    Attributes:
        pooler: BERT's pooler standing alone (in the bare model).
        next_sentence: the second pretraining head of BERT, behind the pooler.
        sentence_order: that of ALBERT: are two texts in their order (0), or swapped (1)?
        replaced_token: ELECTRA's, and that of DeBERTa v3: is this token another than the text's?
        mask_decoder: what stands between DeBERTa's encoder and its masked-language head.
    """

    masked_lm: MaskedLmHead | None = None
    classifier: ClassifierHead | None = None
    next_sentence: ClassifierHead | None = None
    sentence_order: ClassifierHead | None = None
    replaced_token: ReplacedTokenHead | None = None
    mask_decoder: MaskDecoderHead | None = None
    pooler: Transform | None = None

    def present(self) -> frozenset[str]:
        return frozenset(name for name, head in vars(self).items() if head is not None)


@dataclass(frozen=True)
class Spec:
    """Everything a published `config.json` says that we act on.

    Attributes:
        pad_id: the padding id, which some families' position tables and exports mention.
        labels: the names of a classifier's classes, in order.
        problem: the classifier's kind, as in the file.
        classifier_pooling: how a classifier yet to come would pool, where the family's config says so (ModernBERT, EuroBERT).
        legacy: whether a masked-language head goes by the names `transformers` first gave it, not by the released ones (DeBERTa).
    """

    encoder: EncoderConfig
    heads: Heads = field(default_factory=Heads)
    pad_id: int = 0
    labels: tuple[str, ...] = ()
    problem: Problem | None = None
    classifier_pooling: ClassifierPooling = "mean"
    legacy: bool = True


@dataclass(frozen=True)
class Family:
    """A published family.

    Attributes:
        name: its `model_type`.
        inert: keys of its configs that say nothing about the numbers.
        marks: for each head, a weight whose presence shows it (the body's prefix left out).
        prefix: of the body's weights, in checkpoints with heads; the bare model has none.
        read: config.json, and the names of the heads in the weights, to a `Spec`.
        write: a `Spec` to config.json (without `architectures` and versions); it raises Inexpressible.
        architecture: the `transformers` class for a set of heads.
        rules: the table of weights of a `Spec`; names of the body carry the prefix given.
        claims: whether a config.json is this family's though its `model_type` is another's (MosaicBERT's says "bert").
        released_prefix: of the body's weights where code older than the class of `transformers` wrote them; read, never written.
        without: kinds of mixers and MLPs that its configs have no words for.
        in_transformers: whether `transformers` has the family without code from elsewhere; the model's card says it.
    """

    name: str
    inert: tuple[str, ...]
    marks: dict[str, str]
    prefix: str
    read: Callable[[Reader, Collection[str]], Spec]
    write: Callable[[Spec], dict[str, Any]]
    architecture: Callable[[frozenset[str]], str]
    rules: Callable[[Spec, str], list[Rule]]
    claims: Callable[[Mapping[str, Any]], bool] = lambda published: False
    released_prefix: str = ""
    without: tuple[type, ...] = (Monarch, BlockDiagonal)
    in_transformers: bool = True

    def check_bricks(self, encoder: EncoderConfig) -> None:
        """Make sure that `write` is given layers of kinds it knows.

        Raises:
            Inexpressible: a layer with a mixer or MLP of another kind.
        """
        for i, layer in enumerate(encoder.layers):
            for name, brick in (("mixer", layer.mixer), ("mlp", layer.mlp)):
                if isinstance(brick, self.without):
                    raise Inexpressible(self.name, f"encoder's layers.{i}.{name} of the type '{brick.type}'")


def class_name(title: str, heads: frozenset[str]) -> str:
    """The `transformers` class for a set of heads, of a family whose classes begin with `title`."""
    return title + ("ForSequenceClassification" if "classifier" in heads else "ForMaskedLM" if "masked_lm" in heads else "Model")


def attention_of(layer: Layer) -> Attention:
    """The attention of a layer that has it: `Family.check_bricks` has refused others."""
    assert isinstance(layer.mixer, Attention)
    return layer.mixer


def mlp_of(layer: Layer) -> Plain | Gated:
    """The MLP of a layer, where it is of dense matrices: `Family.check_bricks` has refused others."""
    assert not isinstance(layer.mlp, BlockDiagonal)
    return layer.mlp


# Keys of `transformers` configs that do not change an encoder's numbers.
INERT = (
    "architectures", "model_type", "transformers_version", "dtype", "torch_dtype", "use_cache", "gradient_checkpointing",
    "pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id",
    "id2label", "label2id", "problem_type", "is_decoder", "add_cross_attention", "output_past", "pruned_heads",
    "finetuning_task", "directionality", "name_or_path", "auto_map", "output_attentions", "output_hidden_states",
    "classifier_dropout", "num_labels", "return_dict", "torchscript", "chunk_size_feed_forward", "cross_attention_hidden_size",
    "tie_encoder_decoder", "is_encoder_decoder", "decoder_start_token_id", "prefix", "task_specific_params", "xla_device",
    # of generating text, written by versions 2 to 4 whatever the model
    "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_return_sequences", "temperature", "top_k",
    "top_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "bad_words_ids", "eos_token_ids", "use_bfloat16",
    "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
)  # fmt: skip

# The names published configs use for activations.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
}
_PUBLISHED_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "relu2": "relu2", "silu": "silu"}


def read_types(reader: Reader) -> int:
    """How many token types there are.

    Raises:
        InputError: none: published classes look one up for every token.
    """
    count = reader.get("type_vocab_size", 2)
    if count == 0:
        raise InputError(f"{reader.where}: type_vocab_size=0 is not supported; this family needs at least one token type")
    return count


def read_labels(reader: Reader) -> tuple[str, ...]:
    """Class names in order, from `id2label` (whose keys are strings in JSON); none where `num_labels` has another number.

    Old versions wrote placeholders for two classes whatever their number was. Names that were given stand.
    """
    names = reader.get("id2label", {})
    if not all(key.isdecimal() for key in names):
        raise InputError(f"{reader.where}: id2label should name each class under its number")
    labels = tuple(str(names[key]) for key in sorted(names, key=int))
    return () if labels == _placeholders(len(labels)) and reader.get("num_labels", len(labels)) != len(labels) else labels


def _placeholders(count: int) -> tuple[str, ...]:
    """What `transformers` calls classes that nobody named."""
    return tuple(f"LABEL_{i}" for i in range(count))


def read_problem(reader: Reader) -> Problem | None:
    """The kind of a classifier, as `transformers` names it."""
    reader.only("problem_type", None, *get_args(Problem))
    return reader.get("problem_type")


def published_activation(family: str, activation: str, where: str) -> str:
    """The name of an activation in published configs.

    Raises:
        Inexpressible: it has none; `where` names the field.
    """
    if activation not in _PUBLISHED_ACTIVATIONS:
        raise Inexpressible(family, f"{where} '{activation}'")
    return _PUBLISHED_ACTIVATIONS[activation]


def write_labels(spec: Spec) -> dict[str, Any]:
    """`id2label`, `label2id` and `problem_type`, where there is a classifier."""
    if spec.heads.classifier is None:
        return {}
    labels = spec.labels or _placeholders(spec.heads.classifier.labels)
    named = {"id2label": {str(i): name for i, name in enumerate(labels)}, "label2id": {name: i for i, name in enumerate(labels)}}
    # a null too: a folder that was loaded may have said another
    return {**named, "problem_type": spec.problem}
