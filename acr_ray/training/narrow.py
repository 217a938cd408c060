"""Convolutions of few channels that learn, with the kernel of `acr_ray.smoothing.narrow`.

In a compiled run on a GPU in bfloat16 or float16. What comes out, and the gradient of what went in, are the kernel's;
the gradient of the weights is cuDNN's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from acr_ray.smoothing.narrow import LARGEST, convolution, is_narrow, packed, pixels_together
from acr_ray.training.precision import LOWER


@torch.library.custom_op("acr_ray::narrow_layer", mutates_args=())
def layer(x: Tensor, weight: Tensor, back: bool) -> Tensor:
    """A 3x3 convolution with stride 1 and padding 1, without bias.

    Args:
        x: ``(B, C_in, H, W)``, bfloat16 or float16; on a CPU, for tests, any.
        weight: ``(C_out, C_in, 3, 3)`` of any precision; it is rounded to that of ``x``.
        back: compute instead what passes a gradient ``(B, C_out, H, W)`` back to the layer's input.

    Returns:
        ``(B, C_out, H, W)``, or ``(B, C_in, H, W)``, in the precision of ``x``, in channels-last memory order.
    """
    pixels = pixels_together(weight.shape[0 if back else 1], 1)
    if x.is_cuda:
        from acr_ray.smoothing.narrow_kernel import pack

        ready = pack(weight, x.dtype, pixels, back)
    else:
        turned = weight.flip(2, 3).transpose(0, 1) if back else weight
        ready = packed(turned.to(x.dtype), 1)
    return convolution(x, ready, None, None, 1, pixels, False)


@layer.register_fake
def _(x: Tensor, weight: Tensor, back: bool) -> Tensor:
    shape = (len(x), weight.shape[1 if back else 0], *x.shape[2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight = ctx.saved_tensors
    of_input = layer(gradient, weight, True) if ctx.needs_input_grad[0] else None
    of_weight = None
    if ctx.needs_input_grad[1]:
        shape_only = torch.empty_like(weight, dtype=x.dtype)
        one, none = [1, 1], [0, 0]
        of_weight = torch.ops.aten.convolution_backward(
            gradient, x, shape_only, None, one, one, one, False, none, 1, [False, True, False]
        )[1].to(weight.dtype)
    return of_input, of_weight, None


layer.register_autograd(_gradients, setup_context=_remember)


class NarrowConv2d(nn.Conv2d):
    """A convolution that `layer` computes where it can: under autocast, for images of up to 64 pixels a side."""

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        if dtype not in LOWER.values() or x.shape[3] > LARGEST or x.shape[3] % 2:
            return super().forward(x)
        # The step is compiled, so this bias and the casts are parts of other kernels.
        y = layer(x.to(dtype), self.weight, False)
        return y if self.bias is None else y + self.bias.to(dtype)[:, None, None]


def use_narrow(network: nn.Module) -> int:
    """Exchange a network's narrow convolutions, in place; names and weights stay what they are. Returns how many."""
    exchanged = 0
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if not is_narrow(child):
                continue
            assert isinstance(child, nn.Conv2d)
            if child.stride == (1, 1) and child.in_channels >= 16:
                setattr(parent, name, _exchanged(child))
                exchanged += 1
    return exchanged


def _exchanged(child: nn.Conv2d) -> NarrowConv2d:
    own = NarrowConv2d(
        child.in_channels, child.out_channels, 3, padding=1, bias=child.bias is not None, device=torch.device("meta")
    )
    own.weight, own.bias = child.weight, child.bias
    return own.train(child.training)
