"""Train a tokenizer on one's own text: WordPiece, byte-level BPE or Unigram, with a family's special tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import count, islice
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
    training: WordPiece | ByteLevelBpe | Unigram, texts: Iterable[str], max_length: int | None = None, show_progress: bool = False
) -> Tokenizer:
    """Train on texts, read once (for WordPiece kept in memory: give a sample of a large collection).

    WordPiece and BPE are functions of the texts. Unigram is not quite: its estimates are summed in an order
    that changes from run to run, so scores differ in the third digit, and a rare piece may.
    The vocabulary is smaller than asked for where the text does not hold enough distinct pieces.

    Args:
        show_progress: let the library draw its bars on stderr, where that is a terminal.

    Raises:
        InputError: no text, or a vocabulary too small for the special tokens and the alphabet.
    """
    names = _NAMES[training.specials]
    read = _Read(texts)
    if isinstance(training, WordPiece):
        backend = _word_piece(training, list(names.values()), names["unk_token"], list(read), show_progress)
    elif isinstance(training, ByteLevelBpe):
        backend = _byte_level_bpe(training, list(names.values()), read, show_progress)
    else:
        backend = _unigram(training, list(names.values()), names["unk_token"], read, show_progress)
    if not read.any:
        raise InputError("training a tokenizer: there is no text to learn from")
    if (least := backend.get_vocab_size()) > training.vocab_size:
        raise InputError(f"vocab_size={training.vocab_size}: special tokens and the text's alphabet take {least}; raise it")
    # " [MASK]" stands for a word with the space before it, where spaces belong to words
    added = [AddedToken(token, lstrip=key == "mask_token", special=True) for key, token in names.items()]
    backend.add_special_tokens(added)
    backend.post_processor = _template(training.specials, backend)
    return Tokenizer(backend, dict(names), max_length)


def rounded_up(size: int, multiple: int = 64) -> int:
    """The least multiple that is no smaller: tables of such many rows are multiplied faster."""
    return -(-size // multiple) * multiple


def with_unused(tokenizer: Tokenizer, multiple: int = 64) -> Tokenizer:
    """The tokenizer filled up to a multiple with special tokens [unused0], [unused1] ..., as BERT has them.

    Every row of a table of that size then has a name, and may be given a meaning later.
    """
    missing = rounded_up(tokenizer.vocab_size, multiple) - tokenizer.vocab_size
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    free = (name for name in map("[unused{}]".format, count()) if backend.token_to_id(name) is None)
    backend.add_special_tokens(list(islice(free, missing)))
    return Tokenizer(backend, dict(tokenizer.tokens), tokenizer.max_length)


class _Read:
    """Texts as they are read, and whether there was anything in them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.any = False

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.any = self.any or bool(text.strip())
            yield text


def _word_piece(
    training: WordPiece, special: list[str], unknown: str, texts: list[str], show_progress: bool
) -> tokenizers.Tokenizer:
    """Trained twice. The library numbers the inner letters (##a) as it meets them, in an order that changes from run
    to run, and breaks ties by number; so the first run, of the alphabet alone, is there to fix their numbers."""

    def run(vocab_size: int, first: list[str]) -> dict[str, int]:
        backend.model = models.WordPiece(unk_token=unknown)  # type: ignore[call-arg]
        trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=first, show_progress=show_progress)
        backend.train_from_iterator(texts, trainer=trainer)
        return backend.get_vocab(with_added_tokens=False)

    backend = tokenizers.Tokenizer(models.WordPiece(unk_token=unknown))  # type: ignore[call-arg]
    backend.normalizer = normalizers.BertNormalizer(lowercase=training.lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner = sorted(piece for piece in run(1, special) if piece.startswith("##"))
    trained = tokenizers.Tokenizer(models.WordPiece(run(training.vocab_size, special + inner), unk_token=unknown))  # type: ignore[call-arg]
    trained.normalizer, trained.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    trained.decoder = decoders.WordPiece()
    return trained


def _byte_level_bpe(
    training: ByteLevelBpe, special: list[str], texts: Iterable[str], show_progress: bool
) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    if training.lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=training.vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=show_progress,
    )
    backend.train_from_iterator(texts, trainer=trainer)
    return backend


def _unigram(
    training: Unigram, special: list[str], unknown: str, texts: Iterable[str], show_progress: bool
) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram())
    steps = [normalizers.Nmt(), normalizers.NFKC(), *([normalizers.Lowercase()] if training.lowercase else [])]
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=training.vocab_size, special_tokens=special, unk_token=unknown, show_progress=show_progress
    )
    try:
        backend.train_from_iterator(texts, trainer=trainer)
    except Exception as error:  # the Rust library raises bare Exception
        if "not large enough" in str(error):
            raise InputError(f"vocab_size={training.vocab_size}: too small for the alphabet of the text; raise it") from None
        raise
    # Scores of 17 digits change in the last one when the library reads them back; six digits do not
    model = json.loads(backend.to_str())["model"]
    scores = [(piece, round(score, 6)) for piece, score in model["vocab"]]
    backend.model = models.Unigram(scores, model["unk_id"], model["byte_fallback"])
    return backend


def _template(specials: Specials, backend: tokenizers.Tokenizer) -> processors.PostProcessor:
    vocab = backend.get_vocab()
    if specials == "bert":
        return bert_template(vocab["[CLS]"], vocab["[SEP]"])
    return processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B:0 </s>",
        special_tokens=[("<s>", vocab["<s>"]), ("</s>", vocab["</s>"])],
    )
