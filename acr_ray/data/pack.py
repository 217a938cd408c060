"""Class folders in a few large files: for disks and file systems on which a million small ones are slow.

``DIR/train/`` and ``DIR/test/`` each hold ``images.bin`` (the encoded images one after another), ``offsets.npy``
(int64, one more than images) and ``pack.json`` (names, labels, sizes of the original files); the last is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from acr_ray.data.decoded_set import DecodedSet
from acr_ray.data.decoding import MOST_BYTES, decoded_image
from acr_ray.data.folders import ImageFolders, settings_of
from acr_ray.settings import UserError
from acr_ray.settings.documents import check, check_version, decoded, parse_json, read_file, regular_size
from acr_ray.settings.image_options import ImageOptions
from acr_ray.storage.inside import check_names

SCHEMA = 1
MOST_CLASSES = 100_000
MOST_ABOUT = 2**30  # bytes of pack.json
BINARY, OFFSETS, ABOUT = "images.bin", "offsets.npy", "pack.json"


Size = Annotated[int, Field(ge=0, le=2**53)]


class _About(BaseModel):
    """`ABOUT`."""

    model_config = ConfigDict(strict=True)

    schema_version: int
    names: Annotated[list[str], Field(min_length=1)]
    labels: list[Annotated[int, Field(ge=0, le=MOST_CLASSES)]]
    class_names: Annotated[list[str], Field(min_length=1, max_length=MOST_CLASSES)]
    sizes: list[Size]
    side: Annotated[int, Field(ge=1, le=100_000)] | None
    quality: int | None


def is_pack(root: str | os.PathLike[str], split: str) -> bool:
    """Whether a folder holds a packed split."""
    return (Path(root).expanduser() / split / ABOUT).is_file()


def check_own_split(out: Path) -> None:
    """See that a folder holds nothing but a pack, or what an interrupted one left.

    Raises:
        UserError: it holds other files, such as the class folders themselves.
    """
    own = {name for file in (ABOUT, BINARY, OFFSETS) for name in (file, f"{file}.tmp")}
    other = sorted(p.name for p in out.iterdir() if p.name not in own) if out.is_dir() else []
    if other or (out.exists() and not out.is_dir()):
        held = f"holds {', '.join(other[:3])}, which is no pack" if other else "is a file"
        raise UserError(f"--out {out.parent}: {out.name} there {held}; give another folder")


def write_pack(
    images: ImageFolders,
    out: Path,
    *,
    side: int | None = None,
    quality: int = 90,
    processes: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Pack a split into ``out``.

    Args:
        images: the whole split.
        out: folder of the split; made where it is absent.
        side: None: the files as they are, byte for byte: the same pixels, fingerprint and weights as from folders.
            Else images whose shorter side is longer are made that long and encoded anew: several times fewer bytes
            and quicker to decode, but other pixels, and a fingerprint that says so.
        quality: of JPEG, 1 to 95, where they are encoded anew.
        processes: that encode.

    Raises:
        UserError: a file is missing or broken, or ``out`` cannot be written.
    """
    check_names(images.names, "the images")  # a pack with others would not be read
    aside = out / f"{BINARY}.tmp"
    try:
        out.mkdir(parents=True, exist_ok=True)
        sizes = np.array([os.path.getsize(images.path_of(row)) for row in range(len(images))], dtype="<i8")
        offsets = np.zeros(len(images) + 1, dtype="<i8")
        with aside.open("wb") as stream:
            for row, content in enumerate(_encoded(images, side, quality, processes)):
                stream.write(content)
                offsets[row + 1] = offsets[row] + len(content)
                on_progress(row + 1, len(images))
            stream.flush()
            os.fsync(stream.fileno())
        (out / ABOUT).unlink(missing_ok=True)  # only now: a pack that was there stays until there is another
        os.replace(aside, out / BINARY)
        np.save(out / OFFSETS, offsets, allow_pickle=False)
        about = {
            "schema_version": SCHEMA,
            "names": images.names,
            "labels": images.labels.tolist(),
            "class_names": images.class_names,
            "split": images.split,
            "sizes": sizes.tolist(),
            "side": side,
            "quality": quality if side else None,
        }
        (out / f"{ABOUT}.tmp").write_text(json.dumps(about))
        os.replace(out / f"{ABOUT}.tmp", out / ABOUT)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
            out.rmdir()  # does nothing where there is something in it


class PackedImages(DecodedSet):
    """`ImageFolders` out of a pack, memory mapped: processes on one machine share what they have read.

    Args:
        root: what holds the pack.
        split: ``train`` or ``test``.
        dataset: ``imagenet`` or ``folder``.
        options: the user's.

    Raises:
        UserError: the pack is damaged; names the file.
    """

    of_files = True

    def __init__(
        self,
        root: str,
        split: str,
        dataset: str = "imagenet",
        options: ImageOptions = ImageOptions(),  # noqa: B008 - frozen
    ) -> None:
        self._folder = Path(root).expanduser() / split
        where = f"{self._folder}/{ABOUT}"
        try:
            values = parse_json(decoded(read_file(self._folder / ABOUT, MOST_ABOUT), where), where)
            about = check(_About, check_version(values, where, SCHEMA), where)
            self._offsets = _whole_numbers(read_file(self._folder / OFFSETS), f"{self._folder}/{OFFSETS}")
            whole = regular_size(self._folder / BINARY)
        except OSError as error:
            raise UserError(f"{self._folder}: not a whole pack ({error})") from None
        self._sizes, self._side, self._quality = about.sizes, about.side, about.quality
        check_names(about.names, where)
        labels = np.array(about.labels)
        counts = {len(about.names), len(labels), len(self._sizes), len(self._offsets) - 1}
        fits = len(counts) == 1 and self._offsets[0] == 0 and int(self._offsets[-1]) == whole
        if not fits or (self._offsets[1:] <= self._offsets[:-1]).any():
            raise UserError(f"{self._folder}: {BINARY}, {OFFSETS} and {ABOUT} don't fit together; pack it again")
        if (labels >= len(about.class_names)).any():
            raise UserError(f"{where}: labels: a label is {labels.max()}; there are {len(about.class_names)} classes")
        self._bytes: np.memmap | None = None
        self._all_names = about.names  # of the full split, for messages
        super().__init__(**settings_of(dataset, options, split, labels, about.names, about.class_names))

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_bytes": None}  # loader processes map the file themselves

    def _open(self, row: int) -> Image.Image:
        return decoded_image(self.encoded(row), self._where(row))

    def encoded(self, row: int) -> bytes:
        if self._bytes is None:
            self._bytes = np.memmap(self._folder / BINARY, dtype=np.uint8, mode="r")
        return self._bytes[self._offsets[row] : self._offsets[row + 1]].tobytes()

    def _where(self, row: int) -> str:
        return f"{self._folder}/{BINARY}: image {row} ({self._all_names[row]})"

    def _content(self) -> bytes:
        """As of the folders that were packed, where the files are as they were."""
        found = hashlib.sha256(np.array([self._sizes[i] for i in self.idx], dtype="<i8").tobytes())
        if self._side is not None:
            found.update(f"side {self._side} quality {self._quality}".encode())
        found.update(self._framing.identity)
        return found.digest()


def _encoded(images: ImageFolders, side: int | None, quality: int, processes: int) -> Iterator[bytes]:
    paths = [images.path_of(row) for row in range(len(images))]
    encode = partial(_file_content, side=side, quality=quality)
    if processes == 1:
        yield from map(encode, paths)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        # In bounded portions: the pool would otherwise hold the whole data set in memory.
        for at in range(0, len(paths), 64 * processes):
            yield from pool.map(encode, paths[at : at + 64 * processes], chunksize=8)


def _file_content(path: Path, side: int | None, quality: int) -> bytes:
    try:
        content = read_file(path, MOST_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    image = decoded_image(content, path)  # to the last row, whatever is kept of it: a broken file is found here
    if side is None or min(image.size) <= side:
        return content
    shorter = min(image.size)
    width, height = (max(side, round(length * side / shorter)) for length in image.size)
    stream = BytesIO()
    image.resize((width, height), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _whole_numbers(content: bytes, where: str) -> np.ndarray:
    """An int64 array in numpy's format. The file's length is compared with what it says before anything is made."""
    stream = BytesIO(content)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("another version of the format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=1000)
        if dtype != np.dtype("<i8") or len(shape) != 1 or shape[0] * 8 != len(content) - stream.tell() or not shape[0]:
            raise ValueError(f"{dtype} {shape}; expected int64 (N,)")
        return np.frombuffer(content, dtype="<i8", offset=stream.tell())
    except Exception as error:  # a damaged header can raise nearly anything
        raise UserError(f"{where}: not an array of offsets ({type(error).__name__}: {str(error)[:200]})") from None
