"""What a search has to say of its best trial beside plain Gaussian training, with the uncertainty of its few images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from acr_ray.formats.files import TRIALS
from acr_ray.formats.states import TrialStatus
from acr_ray.storage import Folder
from acr_ray.tuning.results import HARD, Report, acr_front
from acr_ray.tuning.validation import read_images

LEVEL = 0.95


def verdict(out: Folder, reports: list[Report], baseline: Report | None = None) -> str:
    """Return the best trial by ACR against the Gaussian baseline and the other trials; empty if nothing was measured.

    Intervals are for 95 %: of a share Clopper and Pearson's, of differences on the same images the normal one. That
    the best trial was chosen by these very images is in none of them, which flatters it a little.
    """
    front = acr_front(reports)
    if not front:
        return ""
    best, fairest = front[0], front[-1]
    images = read_images(out / TRIALS / best["trial"])
    sentences = [
        f"The trial with the highest ACR, {best['acr']:.4f} ({best['trial']}), gives up {_hard(best, images)} "
        "of the images (p_A < 0.5)."
    ]
    more = _against_baseline(out, best, images, baseline, sentences)
    if fairest["trial"] != best["trial"]:
        sentences.append(_other_end(front))
    elif more is False:
        sentences.append(
            "No other trial has fewer hard images, and no more than Gaussian's can be shown: ACR hides nothing here "
            "that so few images could show."
        )
    else:
        sentences.append("No other trial has fewer hard images.")
    return " ".join(sentences)


def _against_baseline(out: Folder, best: Report, images, baseline: Report | None, sentences: list[str]) -> bool | None:
    """Add what is to be said. Returns whether the best trial has more hard images; None: not known."""
    if baseline is None or baseline["status"] != TrialStatus.FINISHED:
        return None
    gaussian = read_images(out / TRIALS / baseline["trial"])
    sentences.append(f"Plain Gaussian training has ACR {baseline['acr']:.4f} and gives up {_hard(baseline, gaussian)}.")
    if images is None or gaussian is None or len(images[0]) != len(gaussian[0]):
        return None
    acr, hard = images[0] - gaussian[0], 100.0 * (images[1] - gaussian[1])
    low, high = _interval(hard)
    sentences.append(
        f"On the same {len(hard)} images that is {acr.mean():+.4f} ACR {_shown(*_interval(acr), 4)} and "
        f"{hard.mean():+.1f} points of hard images {_shown(low, high, 1)}."
    )
    if low > 0:
        sentences.append("ACR alone would not have said that images are given up.")
    return bool(low > 0)


def _other_end(front: list[Report]) -> str:
    best, fairest = front[0], front[-1]
    lost = best["acr"] - fairest["acr"]
    early = f", stopped at epoch {fairest['epoch']}" if fairest["status"] != TrialStatus.FINISHED else ""
    return (
        f"{len(front)} trials lie on the front of ACR against hard images; at its other end "
        f"({fairest['trial']}{early}) {_percent(fairest)} are hard, for {lost:.4f} less ACR "
        f"({100 * lost / best['acr']:.1f} %). A search for ACR alone would have returned the first and said nothing "
        "of the others."
    )


def _hard(report: Report, images) -> str:
    """Return a share with its interval, if the number of images is known."""
    if images is None:
        return _percent(report)
    count, n = int(images[1].sum()), len(images[1])
    interval = stats.binomtest(count, n).proportion_ci(LEVEL, method="exact")
    return f"{_percent(report)} {_shown(100 * interval.low, 100 * interval.high, 1)}"


def _percent(report: Report) -> str:
    return f"{100 * report[HARD.name]:.1f} %"


def _interval(differences: NDArray) -> tuple[float, float]:
    error = stats.norm.ppf((1 + LEVEL) / 2) * differences.std(ddof=1) / np.sqrt(len(differences))
    return float(differences.mean() - error), float(differences.mean() + error)


def _shown(low: float, high: float, digits: int) -> str:
    return f"[{low:.{digits}f}, {high:.{digits}f}]"
