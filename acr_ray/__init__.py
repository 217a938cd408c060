"""Train, tune and certify image classifiers by randomized smoothing, and say how robust they really are."""

__version__ = "0.2.0"
