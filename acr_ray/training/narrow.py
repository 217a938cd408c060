"""Convolutions of few channels that learn, with the kernel of `acr_ray.smoothing.narrow`.

In a compiled run on a GPU in bfloat16 or float16. The gradient of the weights is cuDNN's, but of the narrowest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from acr_ray.smoothing.arithmetic import LOWER
from acr_ray.smoothing.narrow import LARGEST, convolution, is_narrow, packed, packed_shape, pixels_together

# Channels up to which the weights' gradient is ours, too. On an H200, 256 images: 16 channels 27 microseconds against
# cuDNN's 57, 32 channels 17 against 26, 64 channels 18 against 16.
WIDEST_OWN = 32


@torch.library.custom_op("acr_ray::narrow_pack", mutates_args=())
def pack(weight: Tensor, dtype: torch.dtype, back: bool) -> Tensor:
    """Weights ``(C_out, C_in, 3, 3)`` of any precision as `convolution` reads them, rounded to ``dtype``.

    Args:
        back: those that pass a gradient ``(B, C_out, H, W)`` back to what went in.
    """
    if weight.is_cuda:
        from acr_ray.training import narrow_kernel

        return narrow_kernel.pack(weight, dtype, pixels_together(weight.shape[0 if back else 1], 1), back)
    return packed((weight.flip(2, 3).transpose(0, 1) if back else weight).to(dtype), 1)


@pack.register_fake
def _(weight: Tensor, dtype: torch.dtype, back: bool) -> Tensor:
    outputs, inputs = weight.shape[1::-1] if back else weight.shape[:2]
    return weight.new_empty(packed_shape(outputs, inputs, pixels_together(inputs, 1)), dtype=dtype)


@torch.library.custom_op("acr_ray::narrow_weight_gradient", mutates_args=())
def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of the weights, float32 ``(C_out, C_in, 3, 3)`` in channels-last memory order.

    Args:
        x: ``(B, C_in, H, W)``, what went in.
        gradient: ``(B, C_out, H, W)`` of what came out.
    """
    if x.is_cuda:
        from acr_ray.training import narrow_kernel

        return narrow_kernel.weight_gradient(x, gradient)
    shape = (gradient.shape[1], x.shape[1], 3, 3)
    found = conv2d_weight(x.float(), shape, gradient.float(), padding=1)
    return found.contiguous(memory_format=torch.channels_last)


@weight_gradient.register_fake
def _(x: Tensor, gradient: Tensor) -> Tensor:
    shape = (gradient.shape[1], x.shape[1], 3, 3)
    return torch.empty(shape, dtype=torch.float32, device=x.device, memory_format=torch.channels_last)


class Ready(NamedTuple):
    """A layer's weights, packed: to go forward, and to pass gradients back."""

    forward: Tensor
    back: Tensor


class _Layer(torch.autograd.Function):
    """A 3x3 convolution with stride 1 and padding 1 of ``x`` and packed weights; the gradient goes to ``weight``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, forward: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, back)
        return convolution(x, forward, None, None, 1, pixels_together(x.shape[1], 1), False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, back = ctx.saved_tensors
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = convolution(gradient, back, None, None, 1, pixels_together(gradient.shape[1], 1), False)
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight(x, weight, gradient)
        return of_input, of_weight, None, None


def _of_weight(x: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    if max(weight.shape[:2]) <= WIDEST_OWN:
        return weight_gradient(x, gradient).to(weight.dtype)
    shape_only = torch.empty_like(weight, dtype=x.dtype)
    one, none, wanted = [1, 1], [0, 0], [False, True, False]
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, x, shape_only, None, one, one, one, False, none, 1, wanted
    )[1]
    return found.to(weight.dtype)


class NarrowConv2d(nn.Conv2d):
    """A convolution that the kernel computes where it can: under autocast, for images of up to 64 pixels a side.

    Attributes:
        ready: its weights, packed for while they do not change; else each pass packs them.
    """

    ready: Ready | None = None

    def pack(self, dtype: torch.dtype) -> Ready:
        """Return the weights as they are now, packed."""
        weight = self.weight.detach()
        return Ready(pack(weight, dtype, False), pack(weight, dtype, True))

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        if dtype not in LOWER.values() or x.shape[3] > LARGEST or x.shape[3] % 2:
            return super().forward(x)
        # The step is compiled, so this bias and the casts are parts of other kernels.
        y = _Layer.apply(x.to(dtype), self.weight, *(self.ready or self.pack(dtype)))
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


@contextmanager
def packed_once(modules: Iterable[nn.Module], dtype: torch.dtype) -> Iterator[None]:
    """Pack the weights of narrow convolutions now, and not again for a while in which they do not change."""
    narrow = [module for module in modules if isinstance(module, NarrowConv2d)]
    try:
        for module in narrow:
            module.ready = module.pack(dtype)
        yield
    finally:
        for module in narrow:
            module.ready = None
