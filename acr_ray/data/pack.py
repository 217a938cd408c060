"""ImageNet in a few large files: for disks and file systems on which a million small ones are slow.

``DIR/train/`` and ``DIR/test/`` each hold ``images.bin`` (the encoded images one after another), ``offsets.npy``
(int64, one more than images) and ``pack.json`` (names, labels, sizes of the original files); the last is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from acr_ray.data.image_set import ImageSet
from acr_ray.data.imagenet import MEAN, SIZE, STD, ImageFolders
from acr_ray.settings import UserError

SCHEMA = 1
BINARY, OFFSETS, ABOUT = "images.bin", "offsets.npy", "pack.json"


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
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ABOUT).unlink(missing_ok=True)
        sizes = np.array([os.path.getsize(images.path_of(row)) for row in range(len(images))], dtype="<i8")
        offsets, aside = np.zeros(len(images) + 1, dtype="<i8"), out / f"{BINARY}.tmp"
        with aside.open("wb") as stream:
            for row, content in enumerate(_encoded(images, side, quality, processes)):
                stream.write(content)
                offsets[row + 1] = offsets[row] + len(content)
                on_progress(row + 1, len(images))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, out / BINARY)
        np.save(out / OFFSETS, offsets, allow_pickle=False)
        about = {
            "schema_version": SCHEMA, "names": images.names, "labels": images.labels.tolist(),
            "class_names": images.class_names, "split": images.split, "sizes": sizes.tolist(), "side": side,
            "quality": quality if side else None,
        }  # fmt: skip
        (out / f"{ABOUT}.tmp").write_text(json.dumps(about))
        os.replace(out / f"{ABOUT}.tmp", out / ABOUT)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error})") from error


class PackedImages(ImageFolders):
    """`ImageFolders` out of a pack, memory mapped: processes on one machine share what they have read.

    Raises:
        UserError: the pack is damaged; names the file.
    """

    def __init__(self, root: str, split: str, size: int = SIZE) -> None:
        self._folder, self._size = Path(root).expanduser() / split, size
        try:
            about = json.loads((self._folder / ABOUT).read_text())
            if about["schema_version"] != SCHEMA:
                raise UserError(f"{self._folder}/{ABOUT}: schema_version {about['schema_version']}, not {SCHEMA}")
            self._offsets = np.load(self._folder / OFFSETS, allow_pickle=False)
            self._sizes, self._side, self._quality = about["sizes"], about["side"], about["quality"]
            names, labels, classes = about["names"], about["labels"], about["class_names"]
            whole = os.path.getsize(self._folder / BINARY)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._folder}: not a whole pack ({type(error).__name__}: {error})") from None
        counts = {len(names), len(labels), len(self._sizes), len(self._offsets) - 1}
        if len(counts) != 1 or int(self._offsets[-1]) != whole or (np.diff(self._offsets) <= 0).any():
            raise UserError(f"{self._folder}: {BINARY}, {OFFSETS} and {ABOUT} don't fit together; pack it again")
        self._bytes: np.memmap | None = None
        ImageSet.__init__(
            self, dataset="imagenet", split=split, labels=np.array(labels), names=names, class_names=classes,
            shape=(3, size, size), mean=MEAN, std=STD,
        )  # fmt: skip

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_bytes": None}  # loader processes map the file themselves

    def _open(self, row: int) -> Image.Image:
        if self._bytes is None:
            self._bytes = np.memmap(self._folder / BINARY, dtype=np.uint8, mode="r")
        content = self._bytes[self._offsets[row] : self._offsets[row + 1]].tobytes()
        try:
            with Image.open(BytesIO(content)) as image:
                return image.convert("RGB")
        except Exception as error:  # a damaged file can raise nearly anything from a decoder
            where = f"{self._folder}/{BINARY}: image {row}"
            raise UserError(f"{where} is broken ({type(error).__name__}: {error})") from None

    def _content(self) -> bytes:
        """As of the folders that were packed, where the files are as they were."""
        found = hashlib.sha256(np.array([self._sizes[i] for i in self.idx], dtype="<i8").tobytes())
        if self._side is not None:
            found.update(f"side {self._side} quality {self._quality}".encode())
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
    content = _read(path)
    try:
        with Image.open(BytesIO(content)) as image:
            if side is None or min(image.size) <= side:
                image.verify()
                return content
            shorter = min(image.size)
            width, height = (max(side, round(length * side / shorter)) for length in image.size)
            small = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    except Exception as error:  # as above
        raise UserError(f"{path}: broken image file ({type(error).__name__}: {error})") from None
    stream = BytesIO()
    small.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
