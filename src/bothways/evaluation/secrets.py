"""URLs without what is secret in them: who asks (user:password@), and the values of their query."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

HIDDEN = "***"
_URL = re.compile(r"https?://[^\s'\"]+", re.IGNORECASE)


def split(url: str) -> SplitResult | None:
    """The parts of a URL of a host; None where it is none."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises where it is no number
    except ValueError:
        return None
    return parts if parts.hostname else None


def redacted(url: str) -> str:
    """The URL with its user, its password and the values of its query hidden; all of it where it cannot be read."""
    parts = split(url)
    if parts is None:
        return f"{url.partition('://')[0]}://{HIDDEN}"
    _, at, host = parts.netloc.rpartition("@")
    query = "&".join(f"{name}={HIDDEN}" if found else HIDDEN for name, found, _ in _fields(parts.query))
    return parts._replace(netloc=f"{HIDDEN}@{host}" if at else host, query=query, fragment="").geturl()


def redacted_words(text: str) -> str:
    """A text with every URL in it redacted."""
    return _URL.sub(lambda url: redacted(url[0]), text)


def secrets_of(url: str) -> list[str]:
    """What `redacted` hides, as it is written and as it is meant; the longest first."""
    parts = split(url)
    if parts is None:
        return []
    found = [*parts.netloc.rpartition("@")[0].split(":", 1), *(value or name for name, _, value in _fields(parts.query))]
    found += [unquote(one) for one in found] + [value for _, value in parse_qsl(parts.query)]
    return sorted({one for one in found if one}, key=len, reverse=True)


def _fields(query: str) -> list[tuple[str, str, str]]:
    return [field.partition("=") for field in query.split("&")] if query else []
