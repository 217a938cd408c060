"""CAT-RS (Jeong, Kim & Shin 2023): confidence-aware training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acr_ray.data.classes import places_of
from acr_ray.models import load_checkpoint
from acr_ray.settings import UserError
from acr_ray.settings.methods import CatrsSettings
from acr_ray.smoothing.engine import SamplingEngine
from acr_ray.training.methods.base import Batch, MethodLoss, Passes
from acr_ray.training.methods.likelihood import kl_from
from acr_ray.training.methods.noise_attacks import worst_noise


class Catrs:
    """``mean over i of [ (1/m)·(sum of the K_i smallest CE(f(x_i + δ_ij), y_i) over j)
    + 1[K_i = m]·λ·max_j KL(t_i ‖ f(x_i + δ*_ij)) ]`` with ``K_i ~ Binomial(m, p̂_i)``, at least 1.

    ``p̂_i``: the share of the copies that f, in training mode, gives label y_i (``confidence = "target"``: t_i's
    probability of y_i). ``δ*``: worst noise near δ, see `worst_noise`; from epoch ``double_from`` on its radius is 2ε.
    ``t_i``: smoothed prediction of the checkpoint ``target``: shares of classes over ``target_draws`` draws at
    ``target_sigma``, on the view of x_i that is trained on. The authors use a Gaussian-trained network at σ = 0.25 and
    10,000 draws on one augmented view of each image (their training split has its crops and flips), made beforehand.
    Without a checkpoint t_i is the label.

    As in the released code the attack comes after the pass over the clean draws, with the running statistics that
    this has left; of several workers each attacks with its own.
    Cost of a step: T + 2 forward and T + 2 backward passes of each noisy copy, and outside the network that is trained
    ``target_draws`` forward passes of each image where there is a target checkpoint.
    """

    def __init__(self, settings: CatrsSettings) -> None:
        self.settings = settings
        self._engine: SamplingEngine | None = None
        self._place: Tensor | None = None

    def loss(self, model: nn.Module, batch: Batch) -> MethodLoss:
        s, m = self.settings, batch.m
        target = self._target(batch)
        doubled = s.double_from is not None and batch.epoch >= s.double_from
        x, y = batch.repeated(batch.images), batch.repeated(batch.labels)
        logits = model(x + batch.noise)
        worst = worst_noise(batch, target, s.steps, s.epsilon * (2 if doubled else 1))
        worst_logits = model(x + worst)
        if s.confidence == "own":
            confidence = (logits.argmax(1) == y).to(logits.dtype).unflatten(0, (-1, m)).mean(dim=1)
        else:
            confidence = target.gather(1, batch.labels[:, None])[:, 0]
        # As many successes as there are uniform numbers below the probability: Binomial(m, p̂), from the seeds.
        count = (batch.uniforms(m) < confidence[:, None]).sum(dim=1).clamp_min(1)
        losses = F.cross_entropy(logits, y, reduction="none").unflatten(0, (-1, m)).sort(dim=1).values
        accepted = torch.arange(m, device=count.device) < count[:, None]
        low = (losses * accepted).mean(dim=1)
        high = kl_from(batch.repeated(target), F.log_softmax(worst_logits, dim=1)).unflatten(0, (-1, m)).amax(dim=1)
        confident = count == m
        loss = (low + s.weight * confident * high).mean()
        return MethodLoss(loss, logits, {"catrs_confident": confident.double().mean()})

    def passes(self, inputs: int, m: int) -> Passes:
        rows = inputs * m * (self.settings.steps + 2)
        return Passes(rows, rows)

    def _target(self, batch: Batch) -> Tensor:
        """t, ``(B, K)`` probabilities."""
        target = self.settings.target
        if target is None:
            return _one_hot(batch.labels, batch.classes, batch.images.dtype)
        self._engine = self._engine or self._load(target, batch)
        drawn = self._engine.predictions(batch.images, batch.seeds.tolist(), self.settings.target_draws)
        drawn = drawn if self._place is None else self._place.to(drawn.device)[drawn]
        return _one_hot(drawn, batch.classes, batch.images.dtype).mean(dim=1)

    def _load(self, target: str, batch: Batch) -> SamplingEngine:
        model, card = load_checkpoint(target)
        if card.num_classes != batch.classes:
            raise UserError(
                f"method.target {self.settings.target}: has {card.num_classes} classes, the data {batch.classes}"
            )
        if batch.class_names:  # the target's classes, counted as the data's are
            places = places_of(card.class_names, batch.class_names, f"method.target {self.settings.target}")
            self._place = torch.from_numpy(places)
        device = str(batch.images.device)
        return SamplingEngine(model.to(device), card.num_classes, self.settings.target_sigma, device)


def _one_hot(labels: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """A row for each label. torch's own looks at the labels, for which the host must wait."""
    return (labels[..., None] == torch.arange(classes, device=labels.device)).to(dtype)
