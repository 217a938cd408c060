"""Pack class folders, ImageNet's or your own, into a few large files.

Training and certification take DIR as their --data.root. Without --side the images are the same byte for byte, and so
are all results; with it they are smaller and quicker to decode, and are another data set.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from acr_ray.cli.command_line import command_line
from acr_ray.cli.parser import Parser, whole
from acr_ray.cli.progress import SECONDS, clock
from acr_ray.cli.results import PackResult
from acr_ray.settings.errors import UserError
from acr_ray.storage import Folder

SIZE = 224  # as acr_ray.data.imagenet has it; importing that here would load torch for --help


def run(
    root: str | None,
    out: str | None,
    *,
    dataset: str = "imagenet",
    splits: Sequence[str] = ("train", "test"),
    side: int | None = None,
    quality: int = 90,
    processes: int = 1,
    overwrite: bool = False,
) -> PackResult:
    """Pack splits of ImageNet, or of class folders of your own.

    Args:
        root: folder with ``train/`` and ``val/``.
        out: where the pack goes, a local path.
        dataset: ``imagenet`` or ``folder``.
        splits: ``train``, ``test`` (which is ``val/``) or both.
        side: shorten longer images to this shorter side in pixels, >= 224, re-encoded; None: as they are.
        quality: of JPEG with ``side``; 1 to 95.
        processes: that encode; >= 1.
        overwrite: pack again what ``out`` holds.

    Raises:
        UserError: images are missing or broken, or ``out`` is no local path or holds something else.
    """
    for option, value in (("--data.root", root), ("--out", out)):
        if not value:
            raise UserError(f"{option}: missing (see {command_line('pack')} --help)")
    assert root and out  # as the loop has just seen
    if "://" in out:
        raise UserError(f"--out {out}: packs are memory mapped; give a local path and copy it from there")
    # Here, so that --help and a mistake need not wait for torch.
    from acr_ray.data.imagenet import imagenet_folders
    from acr_ray.data.own_folder import own_folders
    from acr_ray.data.pack import check_own_split, is_pack, write_pack

    folder = Path(out).expanduser()
    # All are opened first: what is wrong with the second is said before the first has taken hours.
    opened = [imagenet_folders(root, s) if dataset == "imagenet" else own_folders(root, s) for s in splits]
    for line in (line for images in opened for line in images.remarks):
        print(line, flush=True)
    for split in splits:
        check_own_split(folder / split)
    packed = {}
    for split, images in zip(splits, opened, strict=True):
        if is_pack(folder, split) and not overwrite:
            print(f"packed before: {folder / split} (--overwrite packs it again)")
            continue
        write_pack(images, folder / split, side=side, quality=quality, processes=processes, on_progress=_Lines(split))
        packed[split] = len(images)
        print(f"packed {len(images)} images: {folder / split}", flush=True)
    return PackResult(Folder(folder), packed, tuple(split for split in splits if split not in packed))


def main(argv: list[str]) -> None:
    """Read the command line, and pack."""
    options = parser().parse_args(argv)
    run(
        options.root,
        options.out,
        dataset=options.dataset,
        splits=("train", "test") if options.split == "both" else (options.split,),
        side=options.side,
        quality=options.quality,
        processes=options.processes,
        overwrite=options.overwrite,
    )


def parser() -> Parser:
    """Make the command's parser."""
    usage = "%(prog)s --data.root PATH --out DIR [--side P] [OPTIONS]"
    parser = Parser(prog=command_line("pack"), usage=usage, description=__doc__)
    add = parser.add_argument_group("what to pack").add_argument
    add("--data.root", dest="root", metavar="PATH", help="folder with train/ and val/ [required]")
    add("--dataset", choices=("imagenet", "folder"), default="imagenet", help="[default: imagenet]")
    add("--split", choices=("both", "train", "test"), default="both", help="test is val/ [default: both]")
    side = f"shorten longer images to this shorter side, re-encoded [>= {SIZE}; default: as they are]"
    add("--side", type=whole(SIZE, 4096), metavar="P", help=side)
    add("--quality", type=whole(1, 95), default=90, metavar="Q", help="of JPEG with --side [default: 90]")
    add("--processes", type=whole(1, 1024), default=1, metavar="K", help="that encode [default: 1]")
    add = parser.add_argument_group("results").add_argument
    add("--out", metavar="DIR", help="where the pack goes, a local path [required]")
    add("--overwrite", action="store_true", help="pack again what DIR holds")
    return parser


class _Lines:
    """Print a line now and then on how far a split is."""

    def __init__(self, split: str) -> None:
        self._split, self._started, self._printed = split, time.monotonic(), time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._printed >= SECONDS:
            self._printed = now
            left = (now - self._started) / done * (total - done)
            print(f"{self._split}: {done:,} of {total:,} images  {clock(left)} left", flush=True)
