"""How a float32 network's weights and activations are written in 8 bits: static quantisation after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from acr_ray.settings import UserError
from acr_ray.smoothing.arithmetic import int8_graph, use_float32
from acr_ray.smoothing.int8_layout import Layout, layout_of
from acr_ray.smoothing.int8_parameters import Int8Parameters, Steps, Weights
from acr_ray.smoothing.tracing import PASSES

BINS = 2048  # of the histogram of an activation's values
KEPT = np.linspace(1.0, 0.3, 71)  # parts of an activation's range that are tried


def calibrate(model: nn.Module, batches: Sequence[Tensor], about: Mapping[str, Any] | None = None) -> Int8Parameters:
    """Find an int8 network that answers as the float32 one does.

    Weights: each output channel has a step of its own, the greatest weight over 127. Activations: each has one step;
    its range is the part of all values seen that makes the mean squared error of writing them in 8 bits least.

    Args:
        model: maps ``(B, C, H, W)`` float32 to logits; not changed.
        batches: noisy images ``(B, C, H, W)``, as the network will see them; passed through it twice.
        about: how they were made, JSON-like; kept with the parameters.

    Raises:
        UserError: int8 cannot compute this network; says what stands in the way.
    """
    use_float32("ieee")
    graph = int8_graph(model).to(memory_format=torch.channels_last)
    layout = layout_of(graph)
    graph.recompile()
    seen = _Seen(graph, layout)
    with torch.inference_mode(), PASSES.passing():
        for passes in range(2):
            seen.counting = passes == 1
            for batch in batches:
                seen.run(batch)
    modules = dict(graph.named_modules())
    weights = {s.convolution.name: whole_weights(modules[str(s.convolution.target)]) for s in layout.steps}
    activations = {name: best_steps(counts, *seen.ends[name]) for name, counts in seen.counts.items()}
    return Int8Parameters(weights, activations, dict(about or {}))


def whole_weights(convolution: Any) -> Weights:
    """Write a convolution's weights as whole numbers from -127 to 127, each output channel with its own scale."""
    weight = convolution.weight.detach().double()
    scale = weight.abs().amax(dim=(1, 2, 3)) / 127
    scale = torch.where(scale > 0, scale, 1.0).float()
    whole = (weight / scale.double()[:, None, None, None]).round().clamp(-127, 127).to(torch.int8)
    bias = convolution.bias
    return Weights(whole, scale, torch.zeros(len(scale)) if bias is None else bias.detach().float().clone())


def best_steps(counts: NDArray[np.int64], low: float, high: float) -> Steps:
    """Choose the 256 numbers that an activation is written with.

    Args:
        counts: of its values in equal bins from ``low`` to ``high``.
        low, high: with 0 between them, which must be one of the numbers: it is what convolutions pad with.
    """
    if high <= low:
        return Steps(1.0, 0)
    values = low + (np.arange(len(counts)) + 0.5) * (high - low) / len(counts)
    errors = []
    for part in KEPT:
        step = part * (high - low) / 255
        beyond = np.maximum(values - part * high, 0.0) + np.maximum(part * low - values, 0.0)
        errors.append(float((counts * (beyond**2 + (beyond == 0) * step**2 / 12)).sum()))
    part = float(KEPT[int(np.argmin(errors))])
    # Rounded, so that another machine, whose last bits differ, finds the same.
    scale = float(f"{part * (high - low) / 255:.3g}")
    return Steps(scale, int(min(max(round(-part * low / scale), 0), 255)))


class _Seen(fx.Interpreter):
    """Runs a network, and looks at the activations that will be written in 8 bits: their ends, then how often what."""

    def __init__(self, graph: fx.GraphModule, layout: Layout) -> None:
        super().__init__(graph)
        self.extra_traceback = False  # a refusal is one line
        self.wanted = {node.name for node in (*layout.begins, *(step.output for step in layout.steps))}
        self.added = {step.output: (step.convolution, step.added) for step in layout.steps if step.added is not None}
        self.counting = False
        self.ends: dict[str, tuple[float, float]] = {}
        self.counts: dict[str, NDArray[np.int64]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name not in self.wanted:
            return value
        if not isinstance(value, Tensor) or value.dim() != 4 or not value.is_floating_point():
            raise UserError(f"--dtype int8: this network's {n.name} is no image of features; leave --dtype int8 out")
        if self.counting:
            found = torch.histc(value, BINS, *self.ends[n.name]).numpy().astype(np.int64)
            self.counts[n.name] = self.counts.get(n.name, 0) + found
        else:
            low, high = self.ends.get(n.name, (0.0, 0.0))
            now = value.aminmax()
            self.ends[n.name] = min(low, float(now.min)), max(high, float(now.max))
            if not np.isfinite(self.ends[n.name]).all():
                raise UserError(f"--dtype int8: this network's {n.name} is not finite")
        return value
