"""Names and values as MLflow takes them; what is changed or cut off says so."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Mapping
from typing import Any

# MLflow's own limits, in characters (mlflow.utils.validation): longer ones are refused, or cut off without a word.
KEY, PARAM, TAG, EXPERIMENT_TAG = 250, 6000, 8000, 20000


def fit_key(text: str) -> str:
    """Text as the name of a metric, parameter or tag: MLflow allows letters, digits and ``_-. :/``, and no odd paths.

    ``@`` becomes a dot (``acc@5`` is ``acc.5``, as certifications write ``certified_accuracy.0.5``), all else ``_``.
    A name that is too long ends with a piece of its own hash, so that two stay two.
    """
    fit = re.sub(r"[^\w\-. :/]", "_", str(text).replace("@", "."))
    fit = posixpath.normpath(fit).lstrip("/")
    fit = re.sub(r"^(\.\.(/|$))+", "", fit)
    if fit in ("", "."):
        fit = "_"
    if len(fit) > KEY:
        fit = f"{fit[: KEY - 9]}-{hashlib.sha256(str(text).encode()).hexdigest()[:8]}"
    return fit


def fit_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """`fit_key` of every name; names that would become the same are numbered, in their order."""
    fitted: dict[str, Any] = {}
    for name, value in values.items():
        fit = key = fit_key(name)
        number = 2
        while key in fitted or (key != name and key in values):
            key, number = f"{fit[: KEY - 6]}_{number}", number + 1
        fitted[key] = value
    return fitted


def shortened(value: Any, most: int) -> str:
    """A value as text of at most ``most`` characters; if it was cut, its end says so, with a hash of the whole."""
    text = str(value)
    if len(text) <= most:
        return text
    mark = f" … (cut: {len(text)} characters, SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:16]})"
    return text[: most - len(mark)] + mark
