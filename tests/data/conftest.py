"""A tokenizer small enough to work with by hand."""

from __future__ import annotations

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from bothways.data.tokenizer import Tokenizer, bert_template

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@pytest.fixture(scope="session")
def letters() -> Tokenizer:
    """Words of one letter, `a` = 5 to `z` = 30, split at spaces; BERT's special tokens are 0 to 4."""
    vocab = {word: i for i, word in enumerate([*SPECIAL, *"abcdefghijklmnopqrstuvwxyz"])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(list(SPECIAL))
    backend.post_processor = bert_template(2, 3)
    return Tokenizer(backend)
