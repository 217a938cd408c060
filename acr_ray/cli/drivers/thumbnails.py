"""Pictures of the images that a report lists, if the data is at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO

import numpy as np

from acr_ray.certification.run_plan import PLAN, RunPlan
from acr_ray.reporting.opening import split_name
from acr_ray.settings.datasets import needs_root
from acr_ray.settings.errors import UserError
from acr_ray.settings.image_options import ImageOptions
from acr_ray.settings.own_code import PYTHON, is_own
from acr_ray.storage import Folder

SIDE = 64  # pixels at most


class Thumbnails(Mapping[int, bytes]):
    """PNG files by index in the full split, made when asked for.

    Args:
        dataset, root, split: of the images.
        options: how they become squares.

    Raises:
        UserError: the images are not there.
    """

    def __init__(
        self,
        dataset: str,
        root: str | None,
        split: str,
        options: ImageOptions = ImageOptions(),  # noqa: B008 - frozen
    ) -> None:
        from acr_ray.data import open_images

        self._images = open_images(dataset, root, split, options=options)

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._images)))

    def __contains__(self, idx: object) -> bool:
        return isinstance(idx, int) and 0 <= idx < len(self)

    def __getitem__(self, idx: int) -> bytes:
        from PIL import Image

        if idx not in self:
            raise KeyError(idx)
        pixels = self._images.load([idx], None)[0].numpy()
        colours = np.moveaxis(np.round(pixels * 255).astype(np.uint8), 0, -1)
        picture = Image.fromarray(colours[..., 0] if colours.shape[-1] == 1 else colours)
        picture.thumbnail((SIDE, SIDE))
        stream = BytesIO()
        picture.save(stream, "PNG", optimize=True)
        return stream.getvalue()


def thumbnails_for(
    sources: Sequence[str], dataset: str | None, root: str | None, say: Callable[[str], None] = print
) -> Thumbnails | None:
    """Open the images of the data set named, or of the one that the first certify folder among the sources names.

    A folder that a source's file names is never opened, for somebody else may have written it: images come from
    ``root``, which the user names, or with the package. None, and a line that says what it would take, if that is not
    given.

    Args:
        say: prints a line.

    Raises:
        UserError: ``dataset`` is given, and its images are not there.
    """
    if dataset is not None:
        return Thumbnails(dataset, root, "test")
    for text in sources:
        location = split_name(text)[1]
        if location.startswith("runs:/"):
            continue
        try:
            folder = Folder(location, option="SOURCE")
            if not folder.is_file(PLAN):
                continue
            settings = RunPlan.load(folder).settings
            if settings.dataset.startswith(f"{PYTHON}:"):
                say(f"no pictures of images: they were an object of a Python program ({settings.dataset})")
                return None
            if is_own(settings.dataset):  # code that a file names is never run
                say(f"no pictures of images: the code {settings.dataset} gives them; name it: --dataset")
                return None
            if root is None and needs_root(settings.dataset):
                say(f"no pictures of images: {settings.dataset} is read from a folder; give --data.root PATH")
                return None
            return Thumbnails(settings.dataset, root, settings.split, settings.image_options)
        except (UserError, OSError):
            continue
    return None
