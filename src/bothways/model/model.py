"""What a user loads: an encoder with its heads, tokenizer, prompts and pooling."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.data.table import cut_to
from bothways.data.tokenizer import Tokenizer
from bothways.encoder.encoder import Encoder
from bothways.encoder.initialisation import initialise
from bothways.errors import InputError
from bothways.families.family import Family, Heads, Spec
from bothways.families.heads import build_heads
from bothways.layers.heads import Classifier, MaskedLm, pool
from bothways.model.batching import Progress, run
from bothways.model.overflow import Overflow, check_lengths, fit
from bothways.model.settings import EmbeddingSettings
from bothways.ragged import Encoded, Ragged


@dataclass(frozen=True)
class Prediction:
    """A guess for a masked token: the token (white space in quotes and escaped), its probability, and the text filled in."""

    token: str
    probability: float
    text: str


class Model(nn.Module):
    """An encoder a user works with. `bothways.load` makes one from a folder.

    Attributes:
        family: the family it is saved as.
        spec: its configs.
        encoder: the trunk.
        heads: by name (`masked_lm`, `classifier`, `next_sentence`, ...: the fields of `Heads`), those it has.
        tokenizer: None where the folder has none; then only token ids are taken.
        settings: pooling, normalisation, prompts.
        name: the folder or repository it came from.
        published: the `config.json` it came from; keys we do not act on are kept when saving.
    """

    def __init__(
        self,
        family: Family,
        spec: Spec,
        tokenizer: Tokenizer | None = None,
        settings: EmbeddingSettings | None = None,
        name: str = "",
        published: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.family = family
        self.spec = spec
        self.tokenizer = tokenizer
        self.settings = settings or EmbeddingSettings()
        self.name = name
        self.published = dict(published or {})
        self.encoder = Encoder(spec.encoder)
        self.heads = build_heads(spec.heads, spec.encoder)
        self.eval()

    @classmethod
    def create(cls, family: Family, spec: Spec, tokenizer: Tokenizer | None = None, seed: int = 0) -> Model:
        """A model with fresh weights, a function of the seed."""
        model = cls(family, spec, tokenizer)
        initialise(model, spec.encoder.initialisation, spec.encoder.num_layers, seed)
        return model

    def with_heads(self, heads: Heads, modules: Mapping[str, nn.Module] | None = None, **changes: Any) -> Model:
        """This model with other heads on the very same encoder; `modules` are taken as they are, others are fresh.

        `changes` are fields of `Spec` (labels, problem).
        """
        spec = replace(self.spec, heads=heads, **changes)
        with torch.device("meta"):
            model = Model(self.family, spec, self.tokenizer, self.settings, self.name, self.published)
        model.encoder = self.encoder
        for name in model.heads:
            given = (modules or {}).get(name) or (
                self.heads[name] if name in self.heads and heads_equal(self.spec, spec, name) else None
            )
            if given is None:
                given = build_heads(heads, spec.encoder)[name].train(self.training)
                initialise(given, spec.encoder.initialisation, spec.encoder.num_layers, seed=0)
                given.to(self.encoder.embedding.tokens.weight)
            model.heads[name] = given
        return model

    @property
    def device(self) -> torch.device:
        return self.encoder.embedding.tokens.weight.device

    @property
    def max_seq_length(self) -> int:
        """The longest text `encode` reads, in tokens with the special ones: as the folder or else its tokenizer says."""
        limits = (self.settings.max_seq_length, self.tokenizer and self.tokenizer.max_length, self.spec.encoder.max_length)
        return min(next(limit for limit in limits if limit), self.spec.encoder.max_length)

    @property
    def parameters_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def document_prompt(self) -> str:
        """The text `encode_document` puts before each input; empty where there is none."""
        return self._prompt("document", "passage", "corpus")

    @property
    def fingerprint(self) -> str:
        """sha256 over the weights and what decides the vectors: equal fingerprints embed alike."""
        digest = hashlib.sha256(repr((self.spec.encoder, self.settings, self.max_seq_length)).encode())
        digest.update((self.tokenizer.fingerprint if self.tokenizer else "").encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def heads_fingerprint(self) -> str:
        """sha256 over the heads, the names of a classifier's classes and its kind, none of which is in `fingerprint`."""
        digest = hashlib.sha256(repr((self.spec.heads, self.spec.labels, self.spec.problem)).encode())
        for name, tensor in sorted(self.heads.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    # -- sentence vectors ---------------------------------------------------------------------

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        overflow: Overflow = "cut",
        budget: int | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """One vector a text, float32 [texts, hidden_size], pooled and normalised as the folder says.

        Args:
            prompt: a text put before each input; None is the folder's default prompt, if it has one.
            overflow: what happens to texts over `max_seq_length`: "cut" reads their beginning and
                warns once with the count; "error" refuses; "chunk" reads all of it in pieces and
                averages their vectors by length.
            budget: tokens of a batch.

        Raises:
            InputError: a text is too long under "error", there is no tokenizer, or one text and no list is given.
        """
        refuse_one(texts, "encode")
        tokenizer = self._tokenizer()
        if prompt is None:
            prompt = self.settings.prompts.get(self.settings.default_prompt or "", "")
        contents = tokenizer.encode([prompt + text for text in texts], specials=False)
        prompt_ids = tokenizer.encode([prompt], specials=False)[0]
        pieces = fit(contents, self.max_seq_length - tokenizer.specials_per_sequence, overflow, prompt_ids)
        # the first special token and the prompt are read, but not pooled, where the folder says so
        skip = len(tokenizer.template.before) + len(prompt_ids) if prompt and not self.settings.include_prompt else 0

        def reduce(encoded: Encoded, chosen: list[int]) -> Tensor:
            hidden, ragged = encoded.hidden, encoded.ragged
            if skip:
                hidden, ragged = _without_first(hidden, ragged, skip)
            return pool(self.settings.pooling, hidden, ragged).float().cpu()

        vectors = run(self.encoder, [tokenizer.wrap(piece) for piece in pieces.ids], reduce, None, budget, progress)
        if not vectors:
            return np.zeros((0, self.spec.encoder.hidden_size), np.float32)
        pooled = pieces.join(torch.stack(vectors))
        return (F.normalize(pooled, dim=-1) if self.settings.normalize else pooled).numpy()

    def encode_query(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        """`encode` with the folder's `query` prompt."""
        return self.encode(texts, prompt=self._prompt("query"), **options)

    def encode_document(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        """`encode` with the folder's `document` (or `passage`, or `corpus`) prompt."""
        return self.encode(texts, prompt=self.document_prompt, **options)

    # -- tokens -------------------------------------------------------------------------------

    def hidden_states(self, inputs: Sequence[str] | Sequence[Sequence[int] | np.ndarray]) -> list[np.ndarray]:
        """The last layer's hidden states, float32 [tokens, hidden_size] each.

        Texts get their special tokens; token ids are taken verbatim.

        Raises:
            InputError: a sequence longer than the encoder allows, texts without a tokenizer, or one text and no list.
        """
        refuse_one(inputs, "hidden_states")
        ids = self._ids(inputs)
        return [one.numpy() for one in run(self.encoder, ids, lambda encoded, _: [x.float().cpu() for x in encoded.split()])]

    def fill(self, text: str, top: int = 5) -> list[list[Prediction]]:
        """The most probable tokens for each mask token of a text, best first.

        Raises:
            InputError: no masked-language-model head, or no mask token in the text.
        """
        tokenizer = self._tokenizer()
        if "masked_lm" not in self.heads:
            raise InputError(f"{self.name or 'this model'} has no masked-language-model head; it cannot fill blanks")
        mask = tokenizer.mask_id
        ids = tokenizer.encode([text])[0]
        rows = np.flatnonzero(ids == mask).tolist() if mask is not None else []
        if not rows:
            raise InputError(
                f"the text has no {tokenizer.tokens.get('mask_token', 'mask token (this tokenizer has none)')} to fill"
            )
        logits = run(self.encoder, [ids], lambda encoded, _: [self.masked_lm(encoded.hidden[rows])])[0]
        # an embedding may have more rows than the tokenizer has tokens
        known = logits.float().softmax(dim=-1)[:, : tokenizer.vocab_size]
        best = known.topk(min(top, known.shape[-1]))
        return [
            [self._filled(ids, row, int(token), float(p)) for p, token in zip(ps, tokens, strict=True)]
            for row, ps, tokens in zip(rows, best.values, best.indices, strict=True)
        ]

    def masked_lm(self, hidden: Tensor) -> Tensor:
        """Vocabulary logits [rows, vocab_size] of hidden states [rows, hidden_size]."""
        return cast("MaskedLm", self.heads["masked_lm"])(hidden, self.encoder.embedding.tokens.weight)

    def predict(
        self, inputs: Sequence[str] | Sequence[tuple[str, str]], overflow: Literal["error", "cut"] = "error"
    ) -> np.ndarray:
        """Class probabilities float32 [inputs, labels] of texts or pairs.

        They sum to 1; each label has its own where the folder says `multi_label_classification`. Regression
        and a classifier with one output (a cross-encoder) give their values as they are.

        Args:
            overflow: what happens to inputs over `max_seq_length`: "error" refuses; "cut" reads their beginning
                and warns once with the count. A pair is cut token by token at the end of the longer of its texts.

        Raises:
            InputError: no classifier, no tokenizer, an input that is too long under "error", or one text and no list.
        """
        refuse_one(inputs, "predict")
        if "classifier" not in self.heads:
            raise InputError(f"{self.name or 'this model'} has no classifier; fine-tune it first")
        ids, types = self._classified(inputs, overflow)
        head = cast("Classifier", self.heads["classifier"])
        logits = run(
            self.encoder, ids, lambda encoded, _: head(encoded.hidden, encoded.ragged).float().cpu(), types, mark=head.marked
        )
        if not logits:
            return np.zeros((0, head.config.labels), np.float32)
        return self._scores(torch.stack(logits)).numpy()

    def save(self, folder: str | Path, *, max_shard_size: int | str | None = None) -> Path:
        """Write a folder that `bothways.load` reads, and, where the family is theirs, `transformers` and sentence-transformers.

        Args:
            max_shard_size: write the weights in files of at most so many bytes, or as "5GB"; None is one file.

        Raises:
            InputError: the folder cannot be written, or no such size.
        """
        from bothways.model.folder import write_model  # the folder module makes Models, so it imports this one

        return write_model(self, Path(folder), max_shard_size)

    # -- helpers ------------------------------------------------------------------------------

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise InputError(f"{self.name or 'this model'} has no tokenizer; give token ids, or add tokenizer.json to its folder")
        return self.tokenizer

    def _ids(self, inputs: Sequence[str] | Sequence[Sequence[int] | np.ndarray]) -> list[np.ndarray]:
        if all(isinstance(one, str) for one in inputs):
            return self._tokenizer().encode(cast("Sequence[str]", inputs)) if inputs else []
        ids = [np.asarray(one, dtype=np.int64) for one in inputs]
        worst = max((int(one.max()) for one in ids if len(one)), default=0)
        if worst >= self.spec.encoder.vocab_size or any(len(one) and one.min() < 0 for one in ids):
            raise InputError(f"token ids must lie in 0..{self.spec.encoder.vocab_size - 1}; there is {worst}")
        return ids

    def _classified(
        self, inputs: Sequence[str] | Sequence[tuple[str, str]], overflow: Literal["error", "cut"]
    ) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        tokenizer = self._tokenizer()
        paired = not all(isinstance(one, str) for one in inputs)
        rows = cast("Sequence[tuple[str, ...]]", inputs if paired else [(text,) for text in inputs])
        if paired and any(isinstance(row, str) or len(row) != 2 for row in rows):
            raise InputError("predict takes a list of texts, or a list of pairs of texts, not both")
        texts = iter(tokenizer.encode([text for row in rows for text in row], specials=False))
        parts = [[next(texts) for _ in row] for row in rows]
        room = self.max_seq_length - (tokenizer.specials_per_pair if paired else tokenizer.specials_per_sequence)
        check_lengths([sum(map(len, row)) for row in parts], room, overflow, "pairs" if paired else "texts")
        fitted = [cut_to(row, room) for row in parts]
        if not paired:
            return [tokenizer.wrap(row[0]) for row in fitted], None
        joined = [tokenizer.join(row[0], row[1]) for row in fitted]
        typed = self.spec.encoder.embedding.token_types > 1
        return [ids for ids, _ in joined], [types for _, types in joined] if typed else None

    def _scores(self, logits: Tensor) -> Tensor:
        if self.spec.problem == "multi_label_classification":
            return logits.sigmoid()
        # a single output shares probability with no other
        return logits if self.spec.problem == "regression" or logits.shape[1] == 1 else logits.softmax(dim=-1)

    def _prompt(self, *names: str) -> str:
        return next((self.settings.prompts[name] for name in names if name in self.settings.prompts), "")

    def _filled(self, ids: np.ndarray, row: int, token: int, probability: float) -> Prediction:
        tokenizer = self._tokenizer()
        filled = ids.copy()
        filled[row] = token
        around = len(tokenizer.template.before), len(filled) - len(tokenizer.template.after)
        text = tokenizer.decode(filled[slice(*around)].tolist(), skip_special_tokens=False)
        plain = tokenizer.decode([token])
        # white space as Python writes it; a special token by its name
        word = plain.strip() or (repr(plain) if plain else tokenizer.backend.id_to_token(token) or "")
        return Prediction(word, probability, text)


def heads_equal(one: Spec, other: Spec, name: str) -> bool:
    return getattr(one.heads, name) == getattr(other.heads, name)


def refuse_one(inputs: object, what: str) -> None:
    if isinstance(inputs, str):
        raise InputError(f"{what} takes a list of texts; wrap a single one in [ ]")


def _without_first(hidden: Tensor, ragged: Ragged, count: int) -> tuple[Tensor, Ragged]:
    keep = ragged.positions >= count
    return hidden[keep], Ragged.of([max(length - count, 0) for length in ragged.lengths]).to(hidden.device)
