"""What a classifier says of texts, by the names of its classes."""

from __future__ import annotations

from collections.abc import Sequence

from bothways.model.model import Model


def answers(model: Model, inputs: Sequence[str] | Sequence[tuple[str, str]]) -> list[str]:
    """The likeliest class of each text or pair, which is cut to what the model reads."""
    classes = model.spec.labels
    assert classes is not None
    return [classes[int(one)] for one in model.predict(inputs, overflow="cut").argmax(axis=1)]
