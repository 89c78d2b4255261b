"""Parameter counts of the published sizes, exactly (X8)."""

from __future__ import annotations

import pytest
import torch

from bothways.encoder.config import EncoderConfig
from bothways.families import (
    albert,
    bert,
    deberta,
    deberta_v2,
    distilbert,
    electra,
    ernie_gram,
    eurobert,
    llama,
    longformer,
    m2bert,
    modernbert,
    mosaicbert,
    mpnet,
    neobert,
    nomic,
    roberta,
)
from bothways.families.family import Family, Heads, Spec
from bothways.layers.heads import MaskedLmHead, Transform
from bothways.layers.norm import LayerNorm
from bothways.layers.replaced_token import ReplacedTokenHead
from bothways.model.model import Model

_POOLER = Heads(pooler=Transform(activation="tanh"))
_BERT_LM = Heads(masked_lm=MaskedLmHead(transform=Transform(norm=LayerNorm())))
_MODERN_LM = Heads(masked_lm=MaskedLmHead(transform=Transform(bias=False, norm=LayerNorm(bias=False))))
_REPLACED = Heads(replaced_token=ReplacedTokenHead())
_OWN, _TIED = (Heads(masked_lm=MaskedLmHead(transform=None, tied=tied, bias=False)) for tied in (False, True))
_NEO_LM = Heads(masked_lm=MaskedLmHead(transform=None, tied=False))

# Numbers of the classes of `transformers` with the published configs (BertModel, LongformerForMaskedLM, ...). NeoBERT has no
# A layer of M2-BERT-80M: projections 4 * 768² + 4 * 768; short convolution 3 * 768 * 4; two long ones, each with a grid 128 * 5,
# 128 frequencies, a skip of 768 and two networks of 5 * 128 + 128 + 2 * (128² + 128) + 128 * 768; an MLP of blocks
# (768 * 6144 + 3072 * 768) / 4 + 768; a norm of 2 * 768. Around them: tables of 30528, 128 and 2 rows, a norm; the head's
# dense, norm and bias.
_LONG = 128 * 5 + 128 + 768 + 2 * (5 * 128 + 128 + 2 * (128**2 + 128) + 128 * 768)
_M2_LAYER = 4 * 768**2 + 4 * 768 + 12 * 768 + 2 * _LONG + (768 * 6144 + 3072 * 768) // 4 + 768 + 2 * 768
M2_80M = 12 * _M2_LAYER + (30528 + 128 + 2) * 768 + 2 * 768 + (768**2 + 768 + 2 * 768 + 30528)

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
    ("albert-base-v1", albert.FAMILY, albert.SIZES["base-v1"], _POOLER, 11_683_584),
    ("albert-base-v2", albert.FAMILY, albert.SIZES["base-v2"], _POOLER, 11_683_584),
    ("albert-base-v2, masked LM", albert.FAMILY, albert.SIZES["base-v2"], _BERT_LM, 11_221_680),
    ("albert-large-v1", albert.FAMILY, albert.SIZES["large-v1"], _POOLER, 17_683_968),
    ("albert-large-v2", albert.FAMILY, albert.SIZES["large-v2"], _POOLER, 17_683_968),
    ("albert-xlarge-v1", albert.FAMILY, albert.SIZES["xlarge-v1"], _POOLER, 58_724_864),
    ("albert-xlarge-v2", albert.FAMILY, albert.SIZES["xlarge-v2"], _POOLER, 58_724_864),
    ("albert-xxlarge-v1", albert.FAMILY, albert.SIZES["xxlarge-v1"], _POOLER, 222_595_584),
    ("albert-xxlarge-v2", albert.FAMILY, albert.SIZES["xxlarge-v2"], _POOLER, 222_595_584),
    ("albert-xxlarge-v2, masked LM", albert.FAMILY, albert.SIZES["xxlarge-v2"], _BERT_LM, 206_368_944),
    ("distilbert-base-uncased", distilbert.FAMILY, distilbert.SIZES["base"], Heads(), 66_362_880),
    ("distilbert-base-uncased, masked LM", distilbert.FAMILY, distilbert.SIZES["base"], _BERT_LM, 66_985_530),
    ("distilbert-base-cased", distilbert.FAMILY, distilbert.SIZES["base-cased"], Heads(), 65_190_912),
    ("distilbert-base-multilingual-cased", distilbert.FAMILY, distilbert.SIZES["base-multilingual"], Heads(), 134_734_080),
    ("electra-small-discriminator", electra.FAMILY, electra.SIZES["small"], _REPLACED, 13_549_057),
    ("electra-base-discriminator", electra.FAMILY, electra.SIZES["base"], _REPLACED, 109_483_009),
    ("electra-large-discriminator", electra.FAMILY, electra.SIZES["large"], _REPLACED, 335_142_913),
    ("electra-small-generator", electra.FAMILY, electra.SIZES["small-generator"], _BERT_LM, 13_546_682),
    ("electra-base-generator", electra.FAMILY, electra.SIZES["base-generator"], _BERT_LM, 33_740_602),
    ("electra-large-generator", electra.FAMILY, electra.SIZES["large-generator"], _BERT_LM, 51_295_290),
    ("longformer-base-4096", longformer.FAMILY, longformer.SIZES["base"], _POOLER, 148_659_456),
    ("longformer-base-4096, masked LM", longformer.FAMILY, longformer.SIZES["base"], _BERT_LM, 148_711_257),
    ("longformer-large-4096", longformer.FAMILY, longformer.SIZES["large"], _POOLER, 434_600_960),
    ("ModernBERT-base", modernbert.FAMILY, modernbert.SIZES["base"], Heads(), 149_014_272),
    ("ModernBERT-base, masked LM", modernbert.FAMILY, modernbert.SIZES["base"], _MODERN_LM, 149_655_232),
    ("ModernBERT-large", modernbert.FAMILY, modernbert.SIZES["large"], Heads(), 394_781_696),
    ("ModernBERT-large, masked LM", modernbert.FAMILY, modernbert.SIZES["large"], _MODERN_LM, 395_881_664),
    # M2-BERT's: the restated class of tests/references/m2bert.py, with the published yaml's sizes and a vocabulary of 30528
    ("M2-BERT-80M, masked LM", m2bert.FAMILY, m2bert.SIZES["80m"], _BERT_LM, M2_80M),
    ("M2-BERT-80M (the first release), masked LM", m2bert.FAMILY, m2bert.SIZES["80m-legacy"], _BERT_LM, M2_80M + 12 * 2 * 768),
    ("M2-BERT-110M, masked LM", m2bert.FAMILY, m2bert.SIZES["110m"], _BERT_LM, 115_583_616),
    ("M2-BERT-260M, masked LM", m2bert.FAMILY, m2bert.SIZES["260m"], _BERT_LM, 259_133_760),
    ("M2-BERT-341M, masked LM", m2bert.FAMILY, m2bert.SIZES["341m"], _BERT_LM, 341_038_144),
    ("M2-BERT-80M-2k", m2bert.FAMILY, m2bert.SIZES["80m-2k"], _POOLER, 81_349_632 + 768 * 768 + 768),
    # ModernBertModel and ModernBertForMaskedLM; RexBERT's card says 16.9M and 68.5M, with the head
    ("ettin-encoder-17m", modernbert.FAMILY, modernbert.SIZES["ettin-17m"], Heads(), 16_797_440),
    ("ettin-encoder-32m", modernbert.FAMILY, modernbert.SIZES["ettin-32m"], Heads(), 31_883_136),
    ("ettin-encoder-68m", modernbert.FAMILY, modernbert.SIZES["ettin-68m"], Heads(), 68_144_640),
    ("ettin-encoder-150m", modernbert.FAMILY, modernbert.SIZES["ettin-150m"], Heads(), 149_014_272),
    ("ettin-encoder-400m", modernbert.FAMILY, modernbert.SIZES["ettin-400m"], Heads(), 394_781_696),
    ("ettin-encoder-1b", modernbert.FAMILY, modernbert.SIZES["ettin-1b"], Heads(), 1_028_050_688),
    ("ettin-encoder-1b, masked LM", modernbert.FAMILY, modernbert.SIZES["ettin-1b"], _MODERN_LM, 1_031_314_112),
    ("RexBERT-micro, masked LM", modernbert.FAMILY, modernbert.SIZES["rexbert-micro"], _MODERN_LM, 16_913_600),
    ("RexBERT-mini, masked LM", modernbert.FAMILY, modernbert.SIZES["rexbert-mini"], _MODERN_LM, 68_457_664),
    ("RexBERT-base, masked LM", modernbert.FAMILY, modernbert.SIZES["rexbert-base"], _MODERN_LM, 149_655_232),
    ("RexBERT-large, masked LM", modernbert.FAMILY, modernbert.SIZES["rexbert-large"], _MODERN_LM, 395_881_664),
    # CamembertModel, CamembertForMaskedLM
    ("camembert-base", roberta.CAMEMBERT_FAMILY, roberta.SIZES["camembert-base"], _POOLER, 110_621_952),
    ("camembert-base, masked LM", roberta.CAMEMBERT_FAMILY, roberta.SIZES["camembert-base"], _BERT_LM, 110_655_493),
    ("camembert-large", roberta.CAMEMBERT_FAMILY, roberta.SIZES["camembert-large"], _POOLER, 336_661_504),
    # EuroBertModel, EuroBertForMaskedLM
    ("EuroBERT-210m", eurobert.FAMILY, eurobert.SIZES["210m"], Heads(), 211_766_016),
    ("EuroBERT-210m, masked LM", eurobert.FAMILY, eurobert.SIZES["210m"], _OWN, 310_266_624),
    ("EuroBERT-610m", eurobert.FAMILY, eurobert.SIZES["610m"], Heads(), 607_874_688),
    ("EuroBERT-2.1B", eurobert.FAMILY, eurobert.SIZES["2.1b"], Heads(), 2_107_590_912),
    ("EuroBERT-2.1B, masked LM", eurobert.FAMILY, eurobert.SIZES["2.1b"], _OWN, 2_403_092_736),
    # LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM
    ("Llama-2-7b", llama.FAMILY, llama.SIZES["llama-2-7b"], _OWN, 6_738_415_616),
    ("Llama-3-8B", llama.FAMILY, llama.SIZES["llama-3-8b"], _OWN, 8_030_261_248),
    ("Llama-3.1-8B", llama.FAMILY, llama.SIZES["llama-3.1-8b"], _OWN, 8_030_261_248),
    ("Llama-3.2-1B", llama.FAMILY, llama.SIZES["llama-3.2-1b"], _TIED, 1_235_814_400),
    ("Llama-3.2-3B", llama.FAMILY, llama.SIZES["llama-3.2-3b"], _TIED, 3_212_749_824),
    ("Mistral-7B", llama.MISTRAL_FAMILY, llama.SIZES["mistral-7b"], _OWN, 7_241_732_096),
    ("Qwen2.5-0.5B", llama.QWEN2_FAMILY, llama.SIZES["qwen2.5-0.5b"], _TIED, 494_032_768),
    ("Qwen2.5-1.5B", llama.QWEN2_FAMILY, llama.SIZES["qwen2.5-1.5b"], _TIED, 1_543_714_304),
    ("Qwen3-0.6B", llama.QWEN3_FAMILY, llama.SIZES["qwen3-0.6b"], _TIED, 596_049_920),
    ("NeoBERT", neobert.FAMILY, neobert.SIZES["base"], Heads(), 28 * 7_079_424 + 23_440_896 + 768),
    ("NeoBERT, masked LM", neobert.FAMILY, neobert.SIZES["base"], _NEO_LM, 245_136_954),
    # MPNetModel, MPNetForMaskedLM
    ("mpnet-base", mpnet.FAMILY, mpnet.SIZES["base"], _POOLER, 109_486_464),
    ("mpnet-base, masked LM", mpnet.FAMILY, mpnet.SIZES["base"], _BERT_LM, 109_518_527),
    # NomicBertModel, NomicBertForMaskedLM
    ("nomic-embed-text-v1.5", nomic.FAMILY, nomic.SIZES["embed-text-v1.5"], Heads(), 136_731_648),
    ("nomic-bert, masked LM", nomic.FAMILY, nomic.SIZES["2048"], _BERT_LM, 137_354_304),
    # no class there: those of tests/references, with the published configs; BERT's less its types and with the table, 33 * 12
    ("ERNIE-Gram", ernie_gram.FAMILY, ernie_gram.SIZES["base"], _POOLER, 109_482_240 - 2 * 768 + 33 * 12),
    # a layer of it: Wqkv 3 * 768 * 769 + dense 768 * 769 + gated_layers 6144 * 768 + wo 768 * 3073 + two norms of 1536
    # = 9,444,096; twelve of them, words 30528 * 768, types and norm 4 * 768; the head is 768 * 769 + 1536 + 30528
    ("mosaic-bert-base", mosaicbert.FAMILY, mosaicbert.SIZES["base"], Heads(), 12 * 9_444_096 + 30528 * 768 + 4 * 768),
    ("mosaic-bert-base, masked LM", mosaicbert.FAMILY, mosaicbert.SIZES["base"], _BERT_LM, 137_400_384),
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
