"""Parameter counts of the published sizes, exactly (X8)."""

from __future__ import annotations

import pytest
import torch

from bothways.encoder.config import EncoderConfig
from bothways.families import bert, deberta, deberta_v2, modernbert, neobert, roberta
from bothways.families.family import Family, Heads, Spec
from bothways.layers.heads import MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.model.model import Model

_POOLER = Heads(pooler=Transform(activation="tanh"))
_BERT_LM = Heads(masked_lm=MaskedLmHead(transform=Transform(norm=LayerNorm())))
_MODERN_LM = Heads(masked_lm=MaskedLmHead(transform=Transform(bias=False, norm=LayerNorm(bias=False))))
_NEO_LM = Heads(masked_lm=MaskedLmHead(transform=None, tied=False))

# Numbers of the classes of `transformers` with the published configs (BertModel, BertForMaskedLM, ...). NeoBERT has no
# class there; a layer of it: qkv 3 * 768² + wo 768² + w12 768 * 4096 + w3 2048 * 768 + two norms of 768 = 7,079,424.
# 28 of them, the embedding 30522 * 768 = 23,440,896 and the last norm are 221,665,536; the decoder with its bias adds
# 23,440,896 + 30,522.
PUBLISHED = [
    ("bert-base-uncased", bert.FAMILY, bert.SIZES["base"], _POOLER, 109_482_240),
    ("bert-base-uncased, masked LM", bert.FAMILY, bert.SIZES["base"], _BERT_LM, 109_514_298),
    ("bert-large-uncased", bert.FAMILY, bert.SIZES["large"], _POOLER, 335_141_888),
    ("bert-tiny", bert.FAMILY, bert.SIZES["tiny"], _POOLER, 4_385_920),
    ("bert-mini", bert.FAMILY, bert.SIZES["mini"], _POOLER, 11_170_560),
    ("roberta-base", roberta.FAMILY, roberta.SIZES["base"], _POOLER, 124_645_632),
    ("roberta-base, masked LM", roberta.FAMILY, roberta.SIZES["base"], _BERT_LM, 124_697_433),
    ("roberta-large", roberta.FAMILY, roberta.SIZES["large"], _POOLER, 355_359_744),
    ("xlm-roberta-base", roberta.XLM_FAMILY, roberta.SIZES["xlm-base"], _POOLER, 278_043_648),
    ("xlm-roberta-large", roberta.XLM_FAMILY, roberta.SIZES["xlm-large"], _POOLER, 559_890_432),
    ("ModernBERT-base", modernbert.FAMILY, modernbert.SIZES["base"], Heads(), 149_014_272),
    ("ModernBERT-base, masked LM", modernbert.FAMILY, modernbert.SIZES["base"], _MODERN_LM, 149_655_232),
    ("ModernBERT-large", modernbert.FAMILY, modernbert.SIZES["large"], Heads(), 394_781_696),
    ("ModernBERT-large, masked LM", modernbert.FAMILY, modernbert.SIZES["large"], _MODERN_LM, 395_881_664),
    ("NeoBERT", neobert.FAMILY, neobert.SIZES["base"], Heads(), 28 * 7_079_424 + 23_440_896 + 768),
    ("NeoBERT, masked LM", neobert.FAMILY, neobert.SIZES["base"], _NEO_LM, 245_136_954),
    # DebertaModel, DebertaForMaskedLM, DebertaV2Model and DebertaV2ForMaskedLM
    ("deberta-base", deberta.FAMILY, deberta.SIZES["base"], Heads(), 138_601_728),
    ("deberta-base, masked LM", deberta.FAMILY, deberta.SIZES["base"], _BERT_LM, 139_244_121),
    ("deberta-large", deberta.FAMILY, deberta.SIZES["large"], Heads(), 405_163_008),
    ("deberta-xlarge", deberta.FAMILY, deberta.SIZES["xlarge"], Heads(), 757_804_032),
    ("deberta-v2-xlarge", deberta_v2.FAMILY, deberta_v2.SIZES["v2-xlarge"], Heads(), 884_593_152),
    ("deberta-v2-xxlarge", deberta_v2.FAMILY, deberta_v2.SIZES["v2-xxlarge"], Heads(), 1_564_549_632),
    ("deberta-v3-xsmall", deberta_v2.FAMILY, deberta_v2.SIZES["v3-xsmall"], Heads(), 70_682_112),
    ("deberta-v3-small", deberta_v2.FAMILY, deberta_v2.SIZES["v3-small"], Heads(), 141_304_320),
    ("deberta-v3-base", deberta_v2.FAMILY, deberta_v2.SIZES["v3-base"], Heads(), 183_831_552),
    ("deberta-v3-base, masked LM", deberta_v2.FAMILY, deberta_v2.SIZES["v3-base"], _BERT_LM, 184_551_780),
    ("deberta-v3-large", deberta_v2.FAMILY, deberta_v2.SIZES["v3-large"], Heads(), 434_012_160),
    ("mdeberta-v3-base", deberta_v2.FAMILY, deberta_v2.SIZES["mdeberta-v3-base"], Heads(), 278_218_752),
]


@pytest.mark.parametrize(("name", "family", "config", "heads", "count"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_count(name: str, family: Family, config: EncoderConfig, heads: Heads, count: int) -> None:
    with torch.device("meta"):
        model = Model(family, Spec(encoder=config, heads=heads))
    assert model.parameters_count == count
