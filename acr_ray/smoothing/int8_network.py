"""A network that computes with whole numbers of 8 bits, on processors with VNNI: what ``--dtype int8`` certifies.

Convolutions multiply whole numbers and add them up exactly, so an image's logits do not depend on which others share
its forward pass. torch's own operators for this (oneDNN's) are used; the kernels fold additions and ReLU in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from acr_ray.settings import UserError
from acr_ray.smoothing.int8_layout import Layout, Pool, layout_of
from acr_ray.smoothing.int8_parameters import Int8Parameters, Steps, Weights
from acr_ray.smoothing.processor import processor_flags

FLAGS = ("avx512_vnni", "avx_vnni")  # of processors that add up products of 8-bit numbers without losing any


class Int8Network(nn.Module):
    """Float32 images in, float32 logits out.

    Args:
        graph: of the float32 network, batch norm folded, in evaluation mode; it is changed.
        parameters: found for this network by `int8_calibration.calibrate`.

    Raises:
        UserError: int8 cannot compute this network, this processor cannot compute int8, or the parameters are another
            network's.
    """

    def __init__(self, graph: fx.GraphModule, parameters: Int8Parameters) -> None:
        super().__init__()
        if problem := int8_problem():
            raise UserError(problem)
        self.network = _in_int8(graph, parameters)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).float()


def int8_problem() -> str | None:
    """What this machine lacks for int8, in one line; None if it has all that it needs."""
    flags = processor_flags()
    if not any(flag in flags for flag in FLAGS):
        return (
            "--dtype int8: this machine's processor has no VNNI (avx512_vnni or avx_vnni), without which sums of 8-bit "
            "products are cut off; leave --dtype int8 out"
        )
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        return f"--dtype int8: torch {torch.__version__} has no int8 convolutions here; leave --dtype int8 out"
    return None


def _in_int8(graph: fx.GraphModule, parameters: Int8Parameters) -> fx.GraphModule:
    layout = layout_of(graph)
    _check(layout, parameters, graph)
    modules, eight = dict(graph.named_modules()), layout.eight_bit
    steps, pools = {step.output: step for step in layout.steps}, {pool.node: pool for pool in layout.pools}
    taken: dict[fx.Node, fx.Node] = {}  # the 8-bit activation of each node that has one

    def place(name: str, module: nn.Module, after: fx.Node, *arguments: fx.Node) -> fx.Node:
        graph.add_submodule(name, module)
        with graph.graph.inserting_after(after):
            return graph.graph.call_module(name, arguments)

    def written(node: fx.Node) -> Steps:
        return parameters.activations[eight.get(node, node).name]

    for node in list(graph.graph.nodes):
        if node in layout.begins:
            taken[node] = place(f"int8_{node.name}", Quantise(written(node)), node, node)
        elif node in pools:
            taken[node] = place(f"int8_{node.name}", MaxPool(pools[node]), node, taken[node.all_input_nodes[0]])
        elif node in steps:
            step = steps[node]
            sources = [step.convolution.all_input_nodes[0], *([] if step.added is None else [step.added])]
            module = Int8Convolution(
                modules[str(step.convolution.target)],
                parameters.weights[step.convolution.name],
                written(node),
                [written(source) for source in sources],
                step.relu,
            )
            taken[node] = place(f"int8_{node.name}", module, node, *(taken[source] for source in sources))
        for user in [user for user in node.users if user in layout.after or user.op == "output"]:
            if node in eight:
                user.replace_input_with(
                    node, place(f"float_{node.name}", Dequantise(written(node)), taken[node], taken[node])
                )
    _in_float64(graph, layout)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    _choose_what_is_overwritten(graph)
    graph.recompile()
    return graph.eval()


def _check(layout: Layout, parameters: Int8Parameters, graph: fx.GraphModule) -> None:
    """Raises UserError if the parameters are not of this network."""
    modules = dict(graph.named_modules())
    activations = {node.name for node in (*layout.begins, *(step.output for step in layout.steps))}
    convolutions = {s.convolution.name: modules[str(s.convolution.target)].weight.shape for s in layout.steps}
    if activations != set(parameters.activations) or convolutions != {
        name: weights.weight.shape for name, weights in parameters.weights.items()
    }:
        raise UserError("--dtype int8: these int8 parameters are another network's")


def _in_float64(graph: fx.GraphModule, layout: Layout) -> None:
    """Compute what comes after in float64: there the order of a sum, which batches may change, decides no class."""
    for node in layout.after:
        if node.op == "call_module":
            graph.get_submodule(str(node.target)).double()
    for node in graph.graph.find_nodes(op="get_attr"):
        for user in [user for user in node.users if user in layout.after]:
            with graph.graph.inserting_after(node):
                user.replace_input_with(node, graph.graph.call_method("double", (node,)))


def _choose_what_is_overwritten(graph: fx.GraphModule) -> None:
    """Let a convolution write its sums over what is added to it, where nobody needs that any more."""
    order = {node: place for place, node in enumerate(graph.graph.nodes)}
    for node in order:
        module = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, Int8Convolution) and len(node.args) == 2:
            source, added = node.args
            assert isinstance(added, fx.Node)
            module.overwrites = source is not added and max(added.users, key=order.__getitem__) is node


class Quantise(nn.Module):
    """Floats to 8 bits, uint8 in channels-last order; what the steps do not reach becomes the nearest they do."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        # Operations of their own, each correctly rounded: a fused one rounds the ends of rows otherwise.
        whole = (x / self.steps.scale).round_().add_(self.steps.zero).clamp_(0, 255)
        return whole.to(torch.uint8).contiguous(memory_format=torch.channels_last)


class Dequantise(nn.Module):
    """8 bits to float64."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        return x.double().sub_(self.steps.zero).mul_(self.steps.scale)


class MaxPool(nn.Module):
    """The greatest of each window of 8-bit activations; torch has it for floats only."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        (high, wide), (down, right), (above, left) = self.pool.kernel, self.pool.stride, self.pool.padding
        x = F.pad(x, (left, left, above, above))  # with 0, the least
        rows, columns = (x.shape[2] - high) // down + 1, (x.shape[3] - wide) // right + 1
        found = x[:, :, :, : (columns - 1) * right + 1 : right]
        for offset in range(1, wide):
            found = torch.maximum(found, x[:, :, :, offset : offset + (columns - 1) * right + 1 : right])
        whole = found[:, :, : (rows - 1) * down + 1 : down]
        for offset in range(1, high):
            whole = torch.maximum(whole, found[:, :, offset : offset + (rows - 1) * down + 1 : down])
        return whole.contiguous(memory_format=torch.channels_last)


class Int8Convolution(nn.Module):
    """A convolution of 8-bit activations, with an addition and a ReLU where they follow it.

    Args:
        convolution: the float32 one; gives stride, padding, dilation, groups.
        weights: its own.
        output: how the result is written.
        sources: how the input is written, and what is added if anything is.
        relu: whether a ReLU follows.

    Attributes:
        overwrites: whether the result may be written over what is added.
    """

    def __init__(self, convolution: Any, weights: Weights, output: Steps, sources: list[Steps], relu: bool) -> None:
        super().__init__()
        self.input, self.output, self.added = sources[0], output, sources[1] if len(sources) > 1 else None
        self.relu, self.overwrites = relu, False
        self.scale, self.bias = weights.scale, weights.bias
        self.zeros = torch.zeros(len(weights.scale), dtype=torch.int32)
        self.place = [list(v) for v in (convolution.stride, convolution.padding, convolution.dilation)]
        self.groups = convolution.groups
        self.packed = torch.ops.onednn.qconv_prepack(
            weights.weight, self.scale, *self.input, *self.place, self.groups, None
        )

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        before = (x, *self.input, self.packed, self.scale, self.zeros)
        how = (self.bias, *self.place, self.groups, *self.output, torch.uint8)
        if added is None or self.added is None:
            return torch.ops.onednn.qconv2d_pointwise.default(*before, *how, "relu" if self.relu else "none", [], "")
        total = added if self.overwrites else added.clone()
        post: tuple[Any, ...] = ("sum", 1.0, "relu" if self.relu else None, [], "")
        return torch.ops.onednn.qconv2d_pointwise.binary(*before, total, *how, *self.added, *post)
