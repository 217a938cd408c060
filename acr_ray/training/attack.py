"""Part 3 of the paper's recipe: PGD on the noise, Algorithm 1 (ADAPTIVEADV)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from acr_ray.settings.recipe import AttackSettings
from acr_ray.smoothing.engine import evaluating
from acr_ray.training.ascent import norms, resized, unit
from acr_ray.training.precision import lowered_once

# Gradients in float16 are of losses times this: below 6e-8 they would be 0. Their direction is all that is used.
HALF_SCALE = 1024.0


@dataclass(frozen=True)
class Attacked:
    """What the attack leaves.

    Attributes:
        noise: ``(B, C, H, W)``, each row with the l2 norm it had before.
        active: ``(T,)`` int64 on the device; rows still correct before each PGD step, so attacked in it.
    """

    noise: Tensor
    active: Tensor


def attack_noise(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    noise: Tensor,
    settings: AttackSettings,
    *,
    buckets: int = 0,
    look_first: Sequence[bool] = (),
    scale: float = 1.0,
) -> Attacked:
    """Move each noise draw until its sample is misclassified, for at most T steps.

    For t = 1..T: rows with ``f(x + δ) != label`` are finished; the others make a step ``δ += ε·g/‖g‖₂``
    (``linf``: ``ε·sign(g)/√d``) with g the gradient of the cross entropy, and are scaled back to their first norm.
    A row that is misclassified leaves the batch, so the cost falls with every success: step t passes the rows that
    were correct at step t-1 forward and backward once; what the last step did is not looked at. The forward pass
    that tells which rows are correct is the one that the gradient comes from, so rows found wrong in a step go
    backward with the others once. Where most of them are wrong that is dearer than looking first.

    The model is used in evaluation mode with its parameters frozen: their gradients are not computed, and what only
    they would need is not kept. Its modes, gradients and batch statistics are left as they were. Rows whose gradient
    is zero or, in float16, not finite stay where they are.

    Args:
        model: unwrapped module giving logits ``(B, K)``.
        inputs: ``(B, C, H, W)`` clean inputs, a row for each noise draw.
        labels: ``(B,)`` int64.
        noise: ``(B, C, H, W)`` draws, already scaled by σ. Not changed.
        settings: T, ε and norm.
        buckets: the number of batch sizes to use, ``B·1/buckets`` to B: what remains is padded with copies of its
            last row to the next of them, so kernels compiled for a size are used again. 0: exact sizes.
        look_first: for each PGD step whether to find the correct rows without gradients before they, and they alone,
            go forward again and backward; see `worth_looking`.
        scale: of the loss, against underflow; no effect on the result in exact arithmetic.
    """
    result = noise.clone()
    active = torch.zeros(settings.steps, dtype=torch.int64, device=noise.device)
    rows = torch.arange(len(noise), device=noise.device)
    lengths = norms(noise)
    sizes = bucket_sizes(len(noise), buckets)
    looks = [*look_first, *[False] * settings.steps]
    with evaluating(model), frozen(model), lowered_once(model):
        for step in range(settings.steps):
            if looks[step]:
                here = _padded(rows, sizes)
                with torch.no_grad():
                    logits = model(inputs[here] + result[here])[: len(rows)]
                rows = rows[_places(logits.argmax(1) == labels[rows])]
            if len(rows) == 0:
                break
            here = _padded(rows, sizes)
            delta = result[here].requires_grad_()
            with torch.enable_grad():
                logits = model(inputs[here] + delta)[: len(rows)]
                # What was looked at is correct, even if another batch size rounds otherwise.
                if looks[step]:
                    kept = torch.arange(len(rows), device=rows.device)
                else:
                    kept = _places(logits.argmax(1) == labels[rows])
                rows = rows[kept]
                # The sum, not the mean: a row's gradient must not depend on its batch mates.
                loss = nn.functional.cross_entropy(logits[kept], labels[rows], reduction="sum")
            active[step].fill_(len(rows))  # an assignment would copy from the host, and wait
            if len(rows) == 0:
                break
            gradient = _gradient(loss, delta, scale)[kept]
            result[rows] = resized(delta.detach()[kept] + _step(gradient, settings), lengths[rows])
    return Attacked(result, active)


def attack_every_row(
    model: nn.Module, inputs: Tensor, labels: Tensor, noise: Tensor, settings: AttackSettings, *, scale: float = 1.0
) -> Attacked:
    """Do what `attack_noise` does with all rows in all steps: finished ones stay where they are.

    More rows pass the network, but no size depends on values, so that the host never waits and a GPU's kernels can be
    captured once and launched together; see `GraphedAttack`. Arguments and result are those of `attack_noise`.
    """
    result, lengths = noise.clone(), norms(noise)
    attacked = torch.ones(len(noise), dtype=torch.bool, device=noise.device)
    active = []
    with evaluating(model), frozen(model), lowered_once(model):
        for _ in range(settings.steps):
            delta = result.detach().requires_grad_()
            with torch.enable_grad():
                logits = model(inputs + delta)
                attacked = attacked & (logits.argmax(1) == labels)
                losses = nn.functional.cross_entropy(logits, labels, reduction="none")
                loss = torch.where(attacked, losses, 0.0).sum()
            gradient = _gradient(loss, delta, scale)
            moved = resized(delta.detach() + _step(gradient, settings), lengths)
            result = torch.where(attacked[:, None, None, None], moved, result)
            active.append(attacked.sum())
    return Attacked(result.detach(), torch.stack(active))


def _gradient(loss: Tensor, delta: Tensor, scale: float) -> Tensor:
    """The gradient of a scaled loss; where float16, for which it is scaled, has none that is finite: 0."""
    if scale == 1:
        return torch.autograd.grad(loss, delta)[0]
    return torch.autograd.grad(loss * scale, delta)[0].nan_to_num(0.0, 0.0, 0.0)


def _places(mask: Tensor) -> Tensor:
    """Where a mask is true. On a GPU this waits for the device, as every choice of rows must: once in a PGD step."""
    return mask.nonzero().flatten()


def worth_looking(shares: Sequence[float]) -> tuple[bool, ...]:
    """For each PGD step, whether looking first is cheaper.

    With passes of f (forward alone) and b (backward to the input) and a share c of correct rows, looking first costs
    ``f + c(f + b)``, not looking ``f + b``: it pays where ``c < b/(f + b)``.

    Args:
        shares: of all rows, those still correct before each PGD step, as `Attacked.active` counts them.
    """
    before = [1.0, *shares]
    return tuple(now < LOOK_BELOW * then for now, then in zip(shares, before, strict=False))


# b/(f + b) measured: see `worth_looking`. ResNet-20 on one CPU thread: 0.55; less, so that noise does not decide.
LOOK_BELOW = 0.5


def bucket_sizes(rows: int, buckets: int) -> list[int]:
    """The batch sizes that the attack pads to, ascending, ending with ``rows``; none where it does not pad."""
    return sorted({-(-rows * k // buckets) for k in range(1, buckets + 1)}) if buckets else []


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Parameters without gradients for a while.

    Asking autograd for the input's gradient alone spares the weights' gradients too, but the layers' inputs would
    still be kept for them, and a compiled backward pass computes all that its forward pass was compiled for.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _padded(rows: Tensor, sizes: list[int]) -> Tensor:
    """Row numbers with the last one repeated up to the next size."""
    size = next((size for size in sizes if size >= len(rows)), len(rows))
    return rows if size == len(rows) or len(rows) == 0 else torch.cat([rows, rows[-1:].expand(size - len(rows))])


def _step(gradient: Tensor, settings: AttackSettings) -> Tensor:
    if settings.norm == "linf":
        return settings.epsilon * gradient.sign() / gradient[0].numel() ** 0.5
    return settings.epsilon * unit(gradient)
