"""The published ways to distil, as configs: which parts of a teacher are learned from, and how much each weighs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from bothways.config import config
from bothways.layers.ranges import Positive

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@config
class DistilBert:
    """Predictions and last hidden states (arXiv 1910.01108), with the weights of its released code.

    Attributes:
        kl: of T² · KL(teacher ‖ student) over the vocabulary, the mean over the tokens.
        masked_lm: of the cross-entropy of masked tokens.
        cosine: of 1 - the cosine between last hidden states, the mean over the tokens; both must be of one width.
        temperature: T, by which logits are divided.
        masked_only: whether `kl` is over the masked tokens alone.
    """

    type: Literal["distilbert"] = "distilbert"
    kl: Weight = 5.0
    masked_lm: Weight = 2.0
    cosine: Weight = 1.0
    temperature: Positive = 2.0
    masked_only: bool = False


@config
class TinyBert:
    """What layers look at and what they give (arXiv 1909.10351).

    Widths may differ, since hidden states go through one learned projection, the same for all layers, as in the released code.
    The numbers of heads may not.

    Attributes:
        attention: of the squared differences of scores before the softmax, the mean over heads and pairs, the sum over layers.
            Pairs that a layer does not see count as 0 in it.
        hidden: of the squared differences of hidden states, the mean over features and tokens, the sum over the embedding and
            the layers.
        masked_lm: of the cross-entropy of masked tokens; none in the paper. Texts with labels have none.
        layers: the teacher's layer, from 0, for each of the student's; None: every N/M-th, the last for the last.
    """

    type: Literal["tinybert"] = "tinybert"
    attention: Weight = 1.0
    hidden: Weight = 1.0
    masked_lm: Weight = 0.0
    layers: tuple[NonNegativeInt, ...] | None = None


@config
class MiniLm:
    """The last layer's attention and the relations between its values (arXiv 2002.10957); as many heads on both sides.

    Attributes:
        attention: of KL(teacher ‖ student) of what each token looks at, the mean over heads and tokens.
        values: of the same, of softmax(V Vᵀ / sqrt(head size)).
        masked_lm: of the cross-entropy of masked tokens; none in the paper. Texts with labels have none.
        teacher_layer: from 0; None: the last.
    """

    type: Literal["minilm"] = "minilm"
    attention: Weight = 1.0
    values: Weight = 1.0
    masked_lm: Weight = 0.0
    teacher_layer: NonNegativeInt | None = None


@config
class MiniLmV2:
    """Relations among queries, among keys and among values of one layer (arXiv 2012.15828).

    The features of all heads are cut anew into `relation_heads`, so that widths and numbers of heads may differ. Queries and keys
    are taken before rotary positions turn them.

    Attributes:
        relation_heads: 48 in the paper for teachers of base size, 64 for large ones.
        queries, keys, values: of KL(teacher ‖ student) of softmax(X Xᵀ / sqrt(relation head size)), the mean over relation heads
            and tokens.
        masked_lm: of the cross-entropy of masked tokens; none in the paper. Texts with labels have none.
        teacher_layer: from 0; None: the last. The paper takes one in the upper middle of large teachers.
    """

    type: Literal["minilm_v2"] = "minilm_v2"
    relation_heads: PositiveInt = 48
    queries: Weight = 1.0
    keys: Weight = 1.0
    values: Weight = 1.0
    masked_lm: Weight = 0.0
    teacher_layer: NonNegativeInt | None = None


Method = Annotated[DistilBert | TinyBert | MiniLm | MiniLmV2, Field(discriminator="type")]
"""What a masked-language student learns from."""

Hints = Annotated[TinyBert | MiniLm | MiniLmV2, Field(discriminator="type")]
"""What of a teacher's inside a student learns from, whatever its task."""
