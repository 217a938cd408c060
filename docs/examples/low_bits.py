"""Why float noise proves nothing about a classifier that looks at low bits, and lattice noise does.

``python low_bits.py`` takes a second. The classifier answers 0 where every pixel of x + noise is a multiple of 2**-27.
In float32 that is a fact about x: beside x = 1/4 sums are rounded to such multiples, beside x = 0 they are finer. So it
answers 0 to the image x = 1/4 always, and 1 to the black image nearly always, although that lies within the radius that
float noise certifies. (Jin et al. 2022, arXiv 2205.10159, and Voracek & Hein 2023, arXiv 2207.09209, build such attacks
on real networks.)
"""

from __future__ import annotations

import torch
from torch import nn

from acr_ray.smoothing.classifier import SmoothedClassifier
from acr_ray.smoothing.decide import Certificate

SIGMA, SHAPE = 0.5, (1, 4, 4)
GREY = torch.full(SHAPE, 64 / 255)  # on the grid of 8-bit images
BLACK = torch.zeros(SHAPE)
DISTANCE = float((GREY - BLACK).norm())  # 1.004


class LowBits(nn.Module):
    """(B, C, H, W) to logits of two classes: 0 where all pixels are multiples of 2**-27, else 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = x.double() * 2.0**27  # exact
        found = (fine != fine.round()).flatten(1).any(1).long()
        return nn.functional.one_hot(found, 2).float()


def answers(noise: str) -> tuple[Certificate, int]:
    """The certificate of the grey image, and what the smoothed classifier answers to the black one."""
    smoothed = SmoothedClassifier(LowBits(), 2, SIGMA, noise=noise)  # type: ignore[arg-type]
    certificate = smoothed.certify(GREY, n=1000, name="grey")
    return certificate, smoothed.predict(BLACK, n=1000, name="black")


def main() -> None:
    """Certify the grey image with both kinds of noise, and say whether the certificate holds."""
    for noise in ("float", "lattice"):
        certificate, black = answers(noise)
        wrong = certificate.radius > DISTANCE and black not in (-1, certificate.predicted)
        print(
            f"{noise:8} grey is class {certificate.predicted} within {certificate.radius:.3f} (grade "
            f"{certificate.grade}); black, {DISTANCE:.3f} away, is class {black}: {'WRONG' if wrong else 'holds'}"
        )


if __name__ == "__main__":
    main()
