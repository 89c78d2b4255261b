"""The modules of a checkpoint's heads."""

from __future__ import annotations

from torch import nn

from bothways.encoder.config import EncoderConfig
from bothways.encoder.enhanced_mask_decoder import EnhancedMaskDecoder
from bothways.errors import InputError
from bothways.families.family import Heads
from bothways.layers.heads import Classifier, MaskedLm, TransformLayer
from bothways.layers.replaced_token import ReplacedToken


def build_heads(heads: Heads, encoder: EncoderConfig) -> nn.ModuleDict:
    """The modules of the heads that are there, for an encoder of this shape.

    Raises:
        InputError: a classifier whose first token is global, on an encoder without global tokens.
    """
    size = encoder.hidden_size
    classifiers = (heads.classifier, heads.next_sentence, heads.sentence_order)
    if any(head and head.global_first for head in classifiers) and not any(one.global_tokens for one in encoder.attentions):
        raise InputError("ClassifierHead.global_first: no layer of this encoder has global tokens; leave it out")
    modules: dict[str, nn.Module] = {}
    if heads.masked_lm is not None:
        modules["masked_lm"] = MaskedLm(heads.masked_lm, size, encoder.vocab_size, encoder.embedding.size)
    if heads.classifier is not None:
        modules["classifier"] = Classifier(heads.classifier, size)
    if heads.next_sentence is not None:
        modules["next_sentence"] = Classifier(heads.next_sentence, size)
    if heads.sentence_order is not None:
        modules["sentence_order"] = Classifier(heads.sentence_order, size)
    if heads.replaced_token is not None:
        modules["replaced_token"] = ReplacedToken(heads.replaced_token, size)
    if heads.mask_decoder is not None:
        modules["mask_decoder"] = EnhancedMaskDecoder(heads.mask_decoder, encoder)
    if heads.pooler is not None:
        modules["pooler"] = TransformLayer(heads.pooler, size)
    return nn.ModuleDict(modules)
