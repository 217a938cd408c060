"""Convolutions of few channels with bias, shortcut and ReLU in one kernel, for compiled networks on a GPU.

A ResNet-110 for 32x32 images has 109 convolutions of 16 to 64 channels, and spends nearly all its time in them.
cuDNN's kernels are made for wider ones. The sums here are of the same products in float32, rounded once to the
network's precision where bias, shortcut and ReLU are done; cuDNN's results are rounded before them, too.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

CHANNELS = (16, 32, 64)  # in and out; in may also be up to 8, as of a first layer
LARGEST = 64  # pixels of a row: where this was measured
_RELUS = (F.relu, torch.relu, torch.relu_)
_SUMS = (operator.add, operator.iadd, torch.add)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_narrow(layer: nn.Module) -> bool:
    """Whether a layer is a convolution that `NarrowConvolution` computes: 3x3, padding 1, up to 64 channels."""
    # Hooks may change what goes in or comes out, or make the weights anew before each call.
    if type(layer) is not nn.Conv2d or any(getattr(layer, hooks) for hooks in _HOOKS):
        return False
    shape = (layer.kernel_size, layer.padding, layer.dilation, layer.groups, layer.padding_mode)
    if shape != ((3, 3), (1, 1), (1, 1), 1, "zeros") or layer.stride not in ((1, 1), (2, 2)):
        return False
    inputs = layer.in_channels in CHANNELS or (layer.in_channels <= 8 and layer.stride == (1, 1))
    return inputs and layer.out_channels in CHANNELS


def pixels_together(channels: int, stride: int) -> int:
    """How many neighbouring pixels are computed together: 2 where a tap of one would be too few numbers."""
    return 2 if channels <= 16 and stride == 1 else 1


def packed_shape(outputs: int, inputs: int, pixels: int) -> tuple[int, int, int]:
    """Taps, numbers that each reads (padded to a power of 2), and numbers that a group of pixels gets."""
    return (9, inputs, outputs) if pixels == 1 else (3, max(16, 1 << (4 * inputs - 1).bit_length()), 2 * outputs)


def packed(weight: Tensor, stride: int) -> Tensor:
    """Weights as the kernel reads them: for each tap a matrix from what it reads to what a group of pixels gets.

    Single pixels have nine taps of a pixel each. A pair has three, one for each row above and below, of the four
    pixels that either of the two sees; where one sees less its weights are 0.

    Args:
        weight: ``(C_out, C_in, 3, 3)``.

    Returns:
        Of `packed_shape`.
    """
    outputs, inputs = weight.shape[:2]
    pixels = pixels_together(inputs, stride)
    shape, taps = packed_shape(outputs, inputs, pixels), weight.permute(2, 3, 1, 0)
    if pixels == 1:
        return taps.reshape(shape).contiguous()
    pairs = weight.new_zeros(3, 4, inputs, 2, outputs)
    pairs[:, 0:3, :, 0] = taps
    pairs[:, 1:4, :, 1] = taps
    return F.pad(pairs.reshape(3, 4 * inputs, 2 * outputs), (0, 0, 0, shape[1] - 4 * inputs)).contiguous()


def unpacked(weight: Tensor, inputs: int, pixels: int) -> Tensor:
    """The weights ``(C_out, C_in, 3, 3)`` behind `packed` ones."""
    if pixels == 1:
        return weight.reshape(3, 3, inputs, -1).permute(3, 2, 0, 1)
    taps = weight[:, : 4 * inputs].reshape(3, 4, inputs, 2, -1)
    return taps[:, 0:3, :, 0].permute(3, 2, 0, 1)


def _shape_out(x: Tensor, outputs: int, stride: int) -> tuple[int, int, int, int]:
    """The shape ``(B, C_out, H_out, W_out)`` of what `convolution` makes of ``x``."""
    rows, _, height, width = x.shape
    return rows, outputs, (height - 1) // stride + 1, (width - 1) // stride + 1


@torch.library.custom_op("acr_ray::narrow_convolution", mutates_args=())
def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, stride: int, pixels: int, relu: bool
) -> Tensor:
    """A 3x3 convolution with padding 1, then a bias, a shortcut and a ReLU.

    On a CPU the plain operations, for tests. A row's result depends on that row alone, bit for bit.

    Args:
        x: ``(B, C_in, H, W)``, bfloat16 or float16; with two pixels together W must be even.
        weight: of `packed`, in that precision.
        bias: float32 ``(pixels * C_out,)``: once for each pixel of a group; or None.
        residual: ``(B, C_out, H_out, W_out)`` in that precision, added before the ReLU; or None.
        stride: 1 or 2.
        pixels: as `pixels_together` says.
        relu: whether negative numbers become 0.

    Returns:
        ``(B, C_out, H_out, W_out)`` in that precision, in channels-last memory order.
    """
    if x.is_cuda:
        from acr_ray.smoothing.narrow_kernel import convolve

        return convolve(x, weight, bias, residual, stride, pixels, relu)
    full = unpacked(weight, x.shape[1], pixels).float()
    y = F.conv2d(x.float(), full, None if bias is None else bias[: full.shape[0]], stride, 1)
    if residual is not None:
        y = y + residual.float()
    return (y.relu() if relu else y).to(x.dtype).contiguous(memory_format=torch.channels_last)


@convolution.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, stride: int, pixels: int, relu: bool
) -> Tensor:
    shape = _shape_out(x, weight.shape[2] // pixels, stride)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


class NarrowConvolution(nn.Module):
    """A trained convolution as `convolution` computes it; sizes of images that it was not made for pass the layer.

    Args:
        layer: see `is_narrow`; in the network's precision.
        relu: whether a ReLU follows, behind the shortcut if there is one.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Conv2d, relu: bool) -> None:
        super().__init__()
        self.layer, self.relu, self.stride = layer, relu, layer.stride[0]
        self.pixels = pixels_together(layer.in_channels, self.stride)
        bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach().float()
        # Made when the network has its precision: another `.to(dtype)` would round the bias.
        self.register_buffer("weight", packed(layer.weight.detach(), self.stride), persistent=False)
        self.register_buffer("bias", bias.repeat(self.pixels), persistent=False)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        fits = x.dtype == self.weight.dtype and x.shape[3] <= LARGEST and x.shape[3] % self.pixels == 0
        shape = _shape_out(x, self.layer.out_channels, self.stride)
        # A network may add a plain number, or what is spread over the pixels.
        alike = residual is None or (
            isinstance(residual, Tensor) and residual.shape == shape and residual.dtype == x.dtype
        )
        if fits and alike:
            return convolution(x, self.weight, self.bias, residual, self.stride, self.pixels, self.relu)
        y = self.layer(x) if residual is None else self.layer(x) + residual
        return y.relu() if self.relu else y


def fuse_narrow(graph: fx.GraphModule) -> int:
    """Replace a network's narrow convolutions, with shortcut and ReLU where they follow. Returns how many.

    Args:
        graph: in evaluation mode and the precision that it computes in, batch norm folded; it is changed.
    """
    modules, replaced = dict(graph.named_modules()), 0
    for node in list(graph.graph.nodes):
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if layer is None or not is_narrow(layer) or len(node.args) != 1 or node.kwargs:
            continue
        assert isinstance(layer, nn.Conv2d)
        added, residual = _shortcut(node, modules)
        end = added or node
        relu = _relu(end, modules)
        end = relu or end
        name = f"{str(node.target).replace('.', '_')}_narrow_{replaced}"
        graph.add_submodule(name, NarrowConvolution(layer, relu is not None))
        with graph.graph.inserting_before(end):
            inputs = (node.args[0],) if residual is None else (node.args[0], residual)
            fused = graph.graph.call_module(name, inputs)
        end.replace_all_uses_with(fused)
        for gone in (relu, added, node):
            if gone is not None:
                graph.graph.erase_node(gone)
        replaced += 1
    if replaced:
        graph.delete_all_unused_submodules()
        graph.recompile()
    return replaced


def _relu(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The ReLU that is all that is done with a node."""
    user = next(iter(node.users)) if len(node.users) == 1 else None
    if user is None or user.args[:1] != (node,):
        return None
    module = modules.get(str(user.target)) if user.op == "call_module" else None
    by_function = user.op == "call_function" and user.target in _RELUS
    by_method = user.op == "call_method" and user.target in ("relu", "relu_")
    applies = type(module) is nn.ReLU or by_function or by_method
    return user if applies and _unchanged(node, user, modules) else None


def _shortcut(node: fx.Node, modules: dict[str, nn.Module]) -> tuple[fx.Node | None, Any]:
    """The sum that is all that is done with a node, and what is added to it."""
    user = next(iter(node.users)) if len(node.users) == 1 else None
    if user is None or len(user.args) != 2 or user.kwargs:
        return None, None
    by_function = user.op == "call_function" and user.target in _SUMS
    by_method = user.op == "call_method" and user.target in ("add", "add_")
    other = [argument for argument in user.args if argument is not node]
    if not (by_function or by_method) or len(other) != 1 or not isinstance(other[0], fx.Node):
        return None, None
    # A sum that is written over the shortcut is seen by whatever else reads the shortcut.
    into_shortcut = user.args[0] is not node and _overwrites(user, modules)
    return (None, None) if into_shortcut or not _unchanged(node, user, modules) else (user, other[0])


def _unchanged(start: fx.Node, end: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether what `start` reads is surely still there at `end`: nothing in between may write where it reads.

    It need not name what `start` reads: that may have been given on as a view.
    """
    node = start.next
    while node is not end:
        if _overwrites(node, modules):
            return False
        node = node.next
    return True


def _overwrites(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether an operation may write where it reads."""
    if node.op == "call_module":
        return bool(getattr(modules.get(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_place = name.endswith("_") or node.target in (operator.iadd, operator.imul, operator.isub, operator.itruediv)
    return in_place or bool(node.kwargs.get("inplace")) or "out" in node.kwargs
