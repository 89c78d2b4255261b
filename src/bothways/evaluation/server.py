"""A running embedding server, asked over HTTP: OpenAI's way of asking, or that of Text Embeddings Inference."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from bothways.errors import InputError

if TYPE_CHECKING:
    import httpx2

Api = Literal["openai", "tei"]
_PATHS: dict[Api, str] = {"openai": "/v1/embeddings", "tei": "/embed"}
_AT_ONCE = 32
_TIMEOUT = 60.0


class Server:
    """Texts to vectors by a server. `connect` makes one; it is closed at the end of its `with` block.

    Attributes:
        url: where texts are posted to.
        api: how they are asked for.
        name: the model asked for, where the way of asking names one.
        normalize: what the server is told of the length of its vectors, where it can be told.
    """

    def __init__(self, client: httpx2.Client, url: str, api: Api, name: str, normalize: bool) -> None:
        self.client = client
        self.url = url
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
            raise InputError(f"{self.url}: answers with vectors of different sizes")
        return np.concatenate(parts)

    def _ask(self, texts: list[str]) -> np.ndarray:
        import httpx2

        body = (
            {"input": texts, "model": self.name}
            if self.api == "openai"
            else {"inputs": texts, "normalize": self.normalize, "truncate": True}
        )
        try:
            answer = self.client.post(self.url, json=body)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise InputError(
                f"{self.url}: cannot be reached ({_short(error) or type(error).__name__}); is the server running?"
            ) from None
        if answer.status_code != 200:
            raise InputError(f"{self.url}: refuses with status {answer.status_code}: {_short(answer.text)}")
        try:
            data = answer.json()
        except ValueError:
            raise InputError(f"{self.url}: its answer is not JSON: {_short(answer.text)}") from None
        return self._vectors(data, len(texts))

    def _vectors(self, data: Any, count: int) -> np.ndarray:
        try:
            rows = _openai_rows(data) if self.api == "openai" else data
            vectors = np.array(rows, dtype=np.float32)
        except (LookupError, TypeError, ValueError, AttributeError):
            vectors = np.zeros(0, np.float32)
        if vectors.ndim != 2 or not vectors.size:
            raise InputError(f"{self.url}: its answer holds no vectors as the {self.api} way has them: {_short(data)}")
        if len(vectors) != count:
            raise InputError(f"{self.url}: answers {count} texts with {len(vectors)} vectors")
        if not np.isfinite(vectors).all():
            raise InputError(f"{self.url}: its vectors are not finite")
        return vectors


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

    client = httpx2.Client(timeout=_TIMEOUT)
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
    base = url.rstrip("/")
    for path in _PATHS.values():
        base = base.removesuffix(path)
    return base.removesuffix("/v1") + _PATHS[api]


def _openai_rows(data: Any) -> list[Any]:
    """The vectors in the order of the texts: each may say its number."""
    rows = data["data"]
    return [row["embedding"] for row in sorted(rows, key=lambda row: row.get("index", 0))]


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else text[:99] + "…"
