"""A running embedding server, asked over HTTP: OpenAI's way of asking, or that of Text Embeddings Inference."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import urlsplit

import numpy as np

from bothways.errors import InputError
from bothways.evaluation.secrets import HIDDEN, redacted, secrets_of, split

if TYPE_CHECKING:
    import httpx2

Api = Literal["openai", "tei"]
_PATHS: dict[Api, str] = {"openai": "/v1/embeddings", "tei": "/embed"}
_AT_ONCE = 32
_TIMEOUT = 60.0
# Sent as a bearer token, and never shown.
KEY = "BOTHWAYS_API_KEY"


class Server:
    """Texts to vectors by a server. `connect` makes one; it is closed at the end of its `with` block.

    Attributes:
        url: where texts are posted to; it may hold secrets.
        shown: the same without them.
        api: how they are asked for.
        name: the model asked for, where the way of asking names one.
        normalize: what the server is told of the length of its vectors, where it can be told.
    """

    def __init__(self, client: httpx2.Client, url: str, api: Api, name: str, normalize: bool) -> None:
        self.client = client
        self.url = url
        self.shown = redacted(url)
        self.secrets = [one for one in (os.environ.get(KEY, "").strip(), *secrets_of(url)) if one]
        self.api: Api = api
        self.name = name
        self.normalize = normalize

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.client.close()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """One vector a text, float32 [texts, size], as the server gives them.

        Raises:
            InputError: the server cannot be reached, refuses, or answers with something else than these vectors.
        """
        parts = [self._ask(list(texts[first : first + _AT_ONCE])) for first in range(0, len(texts), _AT_ONCE)]
        if len({part.shape[1] for part in parts}) > 1:
            raise InputError(f"{self.shown}: answers with vectors of different sizes")
        return np.concatenate(parts)

    def _ask(self, texts: list[str]) -> np.ndarray:
        import httpx2

        body = (
            {"input": texts, "model": self.name, "encoding_format": "float"}
            if self.api == "openai"
            else {"inputs": texts, "normalize": self.normalize, "truncate": True}
        )
        try:
            answer = self.client.post(self.url, json=body)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise InputError(
                f"{self.shown}: cannot be reached ({self._short(error) or type(error).__name__}); is the server running?"
            ) from None
        if answer.status_code != 200:
            raise InputError(f"{self.shown}: refuses with status {answer.status_code}: {self._short(answer.text)}")
        try:
            data = answer.json()
        except ValueError:
            raise InputError(f"{self.shown}: its answer is not JSON: {self._short(answer.text)}") from None
        return self._vectors(data, len(texts))

    def _vectors(self, data: Any, count: int) -> np.ndarray:
        try:
            rows = self._openai_rows(data) if self.api == "openai" else data
            vectors = _numbers(rows)
        except InputError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError):
            vectors = np.zeros(0, np.float32)
        if vectors.ndim != 2 or not vectors.size:
            raise InputError(f"{self.shown}: its answer holds no vectors as the {self.api} way has them: {self._short(data)}")
        if len(vectors) != count:
            raise InputError(f"{self.shown}: answers {count} texts with {len(vectors)} vectors")
        if not np.isfinite(vectors).all():
            raise InputError(f"{self.shown}: its vectors are not finite")
        return vectors

    def _openai_rows(self, data: Any) -> list[Any]:
        """The vectors in the order of the texts: either no row says its number, or all do."""
        rows = data["data"]
        numbers = [row["index"] for row in rows if "index" in row]
        if numbers:
            if any(type(one) is not int for one in numbers) or sorted(numbers) != list(range(len(rows))):
                wrong = self._short(numbers)
                raise InputError(
                    f"{self.shown}: the `index` of its vectors must be 0 to {len(rows) - 1}, each once; it is {wrong}"
                )
            rows = sorted(rows, key=lambda row: row["index"])
        if any(isinstance(row["embedding"], str) for row in rows):
            raise InputError(f"{self.shown}: its vectors are text (base64?), though floats were asked for")
        return [row["embedding"] for row in rows]

    def _short(self, value: object) -> str:
        """The beginning of what somebody else says, without what is secret."""
        text = str(value)
        for one in self.secrets:
            text = text.replace(one, HIDDEN)
        return _short(text)


def connect(url: str, api: Api | None = None, name: str = "", normalize: bool = True) -> Server:
    """Find out how the server at `url` is asked, by asking it.

    Args:
        url: of the server, or of the very path that takes texts.
        api: None tries OpenAI's way, then TEI's.
        name: the `model` that OpenAI's way asks for.
        normalize: whether TEI's way asks for vectors of length 1.

    Raises:
        InputError: nobody there, or neither way is answered; the message says with what.
    """
    import httpx2

    if split(url) is None:
        raise InputError(f"{redacted(url)}: cannot be reached: it is not a URL as http://HOST:PORT/PATH is")
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{KEY}: it has letters that no header can hold")
    client = httpx2.Client(timeout=_TIMEOUT, headers={"Authorization": f"Bearer {key}"} if key else None)
    refused: list[str] = []
    for one in (api,) if api else get_args(Api):
        server = Server(client, _path(url, one), one, name, normalize)
        try:
            server.encode(["a"])
        except InputError as error:
            refused.append(str(error))
            continue
        return server
    client.close()
    # somebody who is not there is not there twice
    raise InputError(refused[0] if len(refused) == 1 or "cannot be reached" in refused[0] else "; ".join(refused))


def _path(url: str, api: Api) -> str:
    """The URL with the path that takes texts; its query stays, and so does whoever asks."""
    parts = urlsplit(url)
    base = parts.path.rstrip("/")
    for path in _PATHS.values():
        base = base.removesuffix(path)
    return parts._replace(path=base.removesuffix("/v1") + _PATHS[api], fragment="").geturl()


def _numbers(rows: Any) -> np.ndarray:
    """Vectors of numbers; none where they are anything else: words that look like numbers are words."""
    vectors = np.array(rows)
    if vectors.dtype.kind not in "iuf":
        return np.zeros(0, np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold is not finite, and refused as such
        return vectors.astype(np.float32)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 100 else text[:99] + "…"
