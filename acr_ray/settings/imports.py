"""What a user says of weights that other code wrote."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImportChoices:
    """The network of a file of weights, and what the file does not say.

    Attributes:
        model: a name of ours or torchvision's, ``timm:NAME`` or ``module:function``; None: what the file names under
            ``arch``. A folder of ours whose network is ``module:function`` needs it, too.
        normalization: ``none`` (also ``inside``: the network does it itself), ``cifar10``, ``cifar100``, ``imagenet``
            or ``MEAN/STD`` with a number a channel, such as ``0.5,0.5,0.5/0.5,0.5,0.5``; None: as the file or the
            data set has it.
        sigma: standard deviation of the training noise, > 0; None: as the file says, else unknown.
        ema: take averaged weights where the file holds both.
        class_names: file with the name of a class in each line, in the order of the logits; None: the data set's.
    """

    model: str | None = None
    normalization: str | None = None
    sigma: float | None = None
    ema: bool = False
    class_names: str | None = None
