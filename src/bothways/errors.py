"""The errors a user can mend: one line that names the culprit and says what to do."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave (a file, a field, a folder, a text) cannot be used as it is.

    The message is one line: what is wrong, where (file, field or line), and what to do about it.
    The command line prints it and exits with 1.
    """


class MissingExtraError(ImportError):
    """A feature needs an optional dependency; the message holds the `pip install` that brings it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'bothways[{extra}]'")
