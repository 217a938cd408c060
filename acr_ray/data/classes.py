"""Classes by their names: what two lists of them have to do with each other, and a user's own names for folders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from acr_ray.settings import UserError
from acr_ray.settings.documents import check, parse_json, parse_names, read_text

SHOWN = 12  # names of a list in a message
MOST_BYTES = 16 * 2**20  # of a mapping file


def places_of(data: Sequence[str], model: Sequence[str], where: str) -> NDArray[np.int64]:
    """Where each of the data's classes is among the model's, int64 ``(len(data),)``.

    Args:
        data, model: class names, in their orders.
        where: the model, for the message.

    Raises:
        UserError: they are not the same names; shows both lists.
    """
    place = {name: i for i, name in enumerate(model)}
    if len(data) != len(model) or set(place) != set(data):
        only = next((name for name in data if name not in place), None)
        first = "" if only is None else f" (the model has no {only!r})"
        raise UserError(
            f"{where}: classes differ{first}: the model's are {_shown(model)}; the data's are {_shown(data)}; use the "
            "data it was trained on, or say which folder is which class: --data.class_map FILE ({folder: class})"
        )
    return np.array([place[name] for name in data], dtype=np.int64)


def renamed(names: Sequence[str], class_map: str) -> tuple[str, ...]:
    """Class names with those that a mapping file gives them.

    Args:
        names: as the data have them (the names of class folders).
        class_map: path of a YAML or JSON file, ``{folder: class}``; folders that it leaves out keep their names.

    Raises:
        UserError: the file cannot be read, names a folder that is not there, or gives two the same name.
    """
    where = f"--data.class_map {class_map}"
    try:
        text = read_text(class_map, MOST_BYTES)
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error})") from None
    values = parse_json(text, where) if class_map.lower().endswith(".json") else parse_names(text, where)
    given = check(dict[str, str], values, where)
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        raise UserError(f"{where}: there is no class {unknown!r}; the data's are {_shown(names)}")
    found = tuple(given.get(name, name) for name in names)
    if len(set(found)) != len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise UserError(f"{where}: two classes are called {twice!r}")
    return found


def _shown(names: Sequence[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(name[:60] for name in names[:SHOWN]) + more
