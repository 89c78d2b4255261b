"""Train a tokenizer on one's own text: WordPiece, byte-level BPE or Unigram, with a family's special tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import pydantic
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from bothways.config import config
from bothways.data.tokenizer import Tokenizer, bert_template
from bothways.errors import InputError

Size = Annotated[int, pydantic.Field(gt=0)]
Specials = Literal["bert", "roberta"]
"""`bert`: [CLS] A [SEP] B [SEP]. `roberta`: <s> A </s></s> B </s>."""

# In the order of their ids, from 0, as the families have them
_NAMES: dict[str, dict[str, str]] = {
    "bert": {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    "roberta": {
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    },
}


@config
class WordPiece:
    """BERT's: words split at spaces and punctuation, then into the longest pieces known; others are unknown."""

    type: Literal["wordpiece"] = "wordpiece"
    vocab_size: Size = 30522
    lowercase: bool = True
    specials: Specials = "bert"


@config
class ByteLevelBpe:
    """GPT-2's and RoBERTa's (ModernBERT's with `specials="bert"`): merges of bytes, nothing unknown, nothing lost."""

    type: Literal["bpe"] = "bpe"
    vocab_size: Size = 32768
    lowercase: bool = False
    specials: Specials = "roberta"


@config
class Unigram:
    """XLM-R's and ALBERT's (sentencepiece): the likeliest split under a unigram model of pieces."""

    type: Literal["unigram"] = "unigram"
    vocab_size: Size = 32000
    lowercase: bool = False
    specials: Specials = "roberta"


TokenizerTraining = Annotated[WordPiece | ByteLevelBpe | Unigram, pydantic.Field(discriminator="type")]


def train_tokenizer(
    training: WordPiece | ByteLevelBpe | Unigram, texts: Iterable[str], max_length: int | None = None
) -> Tokenizer:
    """Train on texts, read once. The same texts in the same order give the same tokenizer.

    The vocabulary is smaller than asked for where the text does not hold enough distinct pieces.

    Raises:
        InputError: no text, or a vocabulary too small for the special tokens and the alphabet.
    """
    names = _NAMES[training.specials]
    special = [AddedToken(token, lstrip=key == "mask_token", special=True) for key, token in names.items()]
    backend, trainer = _parts(training, names["unk_token"], special)
    backend.train_from_iterator(texts, trainer=trainer)
    learned = backend.get_vocab_size() - len(special)
    if learned <= (256 if isinstance(training, ByteLevelBpe) else 0) and training.vocab_size > 261:
        raise InputError("training a tokenizer: no text to learn from")
    if backend.get_vocab_size() > training.vocab_size:
        raise InputError(
            f"vocab_size={training.vocab_size}: the special tokens and the alphabet alone take {backend.get_vocab_size()}; raise it"
        )
    backend.post_processor = _template(training.specials, backend, names)
    return Tokenizer(backend, dict(names), max_length)
