"""Pack ImageNet's class folders into a few large files: python -m jobs.pack --data.root PATH --out DIR [--side 320]

Training and certification take DIR as their --data.root. Without --side the images are the same byte for byte, and so
are all results; with it they are smaller and quicker to decode, and are another data set.
"""

from __future__ import annotations

import time
from pathlib import Path

from acr_ray.settings import UserError
from jobs._main import Parser, entry, whole
from jobs._progress import SECONDS, clock

SIZE = 224  # as acr_ray.data.imagenet has it; importing that here would load torch for --help


def parser() -> Parser:
    found = Parser(prog="python -m jobs.pack", description=__doc__)
    found.add_argument("--data.root", dest="root", metavar="PATH", help="folder with train/ and val/ [required]")
    found.add_argument("--out", metavar="DIR", help="where the pack goes, a local path [required]")
    found.add_argument(
        "--split", choices=("both", "train", "test"), default="both", help="test is val/ [default: both]"
    )
    side = f"shorten longer images to this shorter side, re-encoded [>= {SIZE}; default: as they are]"
    found.add_argument("--side", type=whole(SIZE, 4096), metavar="P", help=side)
    found.add_argument(
        "--quality", type=whole(1, 95), default=90, metavar="Q", help="of JPEG with --side [default: 90]"
    )
    found.add_argument("--processes", type=whole(1, 1024), default=1, metavar="K", help="that encode [default: 1]")
    found.add_argument("--overwrite", action="store_true", help="pack again what DIR holds")
    return found


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)
    from acr_ray.data.imagenet import open_imagenet
    from acr_ray.data.pack import check_own_split, is_pack, write_pack

    for option, value in (("--data.root", options.root), ("--out", options.out)):
        if not value:
            raise UserError(f"{option}: missing (see python -m jobs.pack --help)")
    if "://" in options.out:
        raise UserError(f"--out {options.out}: packs are memory mapped; give a local path and copy it from there")
    out = Path(options.out).expanduser()
    splits = ("train", "test") if options.split == "both" else (options.split,)
    # All are opened first: what is wrong with the second is said before the first has taken hours.
    opened = [open_imagenet(options.root, split) for split in splits]
    for line in (line for images in opened for line in images.remarks):
        print(line, flush=True)
    for split in splits:
        check_own_split(out / split)
    for split, images in zip(splits, opened, strict=True):
        if is_pack(out, split) and not options.overwrite:
            print(f"packed before: {out / split} (--overwrite packs it again)")
            continue
        write_pack(
            images, out / split, side=options.side, quality=options.quality, processes=options.processes,
            on_progress=_Lines(split),
        )  # fmt: skip
        print(f"packed {len(images)} images: {out / split}", flush=True)


class _Lines:
    def __init__(self, split: str) -> None:
        self._split, self._started, self._printed = split, time.monotonic(), time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._printed >= SECONDS:
            self._printed = now
            left = (now - self._started) / done * (total - done)
            print(f"{self._split}: {done:,} of {total:,} images  {clock(left)} left", flush=True)


if __name__ == "__main__":
    entry(main)
