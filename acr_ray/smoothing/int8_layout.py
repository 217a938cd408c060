"""Which parts of a network int8 takes: its convolutions with what follows them, and what may stand before and after.

From the first convolution to the last, activations stay in 8 bits. What comes before (normalisation) is float32, what
comes after (pooling, the linear layers) float64. Anything else in between would have to leave the 8 bits and come back:
such networks are refused.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from acr_ray.settings import UserError

ADDS = (operator.add, operator.iadd, torch.add)
RELUS = (F.relu, torch.relu, torch.relu_)
PASSED_ON = (nn.Identity, nn.Dropout, nn.Dropout2d)  # in evaluation mode
#: What may come after the convolutions: little work beside them, or the network is not one for int8.
HEADS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.MaxPool2d, nn.Flatten, nn.Linear, nn.ReLU)


@dataclass(frozen=True)
class Step:
    """A convolution and what is computed with it, while its sums are still whole.

    Attributes:
        convolution: its node.
        added: the activation that is added to it; None: none.
        output: the node whose value this is: the convolution's, the addition's, or that of a ReLU after either.
        relu: whether it ends with a ReLU.
    """

    convolution: fx.Node
    added: fx.Node | None
    output: fx.Node
    relu: bool


@dataclass(frozen=True)
class Pool:
    """A max-pooling of 8-bit activations: sizes as ``(height, width)``."""

    node: fx.Node
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """The parts of a network.

    Attributes:
        steps: in the order in which they are computed.
        pools: likewise.
        begins: float32 activations that are brought into 8 bits.
        after: nodes that depend on 8-bit activations, but are float64.
    """

    steps: tuple[Step, ...]
    pools: tuple[Pool, ...]
    begins: tuple[fx.Node, ...]
    after: frozenset[fx.Node]

    @property
    def eight_bit(self) -> dict[fx.Node, fx.Node]:
        """The nodes whose values are 8-bit activations, and the node whose steps each has: a pooling its input's."""
        own = {step.output: step.output for step in self.steps}
        for pool in self.pools:
            (source,) = pool.node.all_input_nodes
            own[pool.node] = own.get(source, source)
        return own


def layout_of(graph: fx.GraphModule) -> Layout:
    """Find the parts of a network.

    Args:
        graph: batch norm folded, in evaluation mode; modules that do nothing there are taken out of it.

    Raises:
        UserError: int8 cannot compute it; says what stands in the way.
    """
    _take_out(graph)
    modules = dict(graph.named_modules())
    steps = {step.output: step for step in _steps(graph, modules)}
    inside = {node for step in steps.values() for node in _inner(step)}
    pools: list[Pool] = []
    begins: dict[fx.Node, None] = {}
    eight: set[fx.Node] = set()
    after: dict[fx.Node, None] = {}
    for node in graph.graph.nodes:
        if node in inside:
            continue
        if (step := steps.get(node)) is not None:
            for source in (step.convolution.all_input_nodes[0], *([] if step.added is None else [step.added])):
                if source in after:
                    raise _refused(next(n for n in after if _leads_to(n, source)), modules)
                if source not in eight:
                    begins[source] = None
            eight.add(node)
        elif (pool := _pool(node, modules)) is not None and node.all_input_nodes[0] in eight:
            pools.append(pool)
            eight.add(node)
        elif any(source in eight or source in after for source in node.all_input_nodes):
            if node.op == "call_module" and not any(_is(node, kind, modules) for kind in HEADS):
                raise _refused(node, modules)
            after[node] = None
    if not steps:
        raise UserError("--dtype int8: this network has no convolution (nn.Conv2d) that int8 could compute")
    return Layout(tuple(steps.values()), tuple(pools), tuple(begins), frozenset(after))


def _steps(graph: fx.GraphModule, modules: dict[str, nn.Module]) -> list[Step]:
    """In the order of their outputs."""
    order = {node: place for place, node in enumerate(graph.graph.nodes)}
    convolutions = [node for node in order if _is(node, nn.Conv2d, modules) and _usual(modules[str(node.target)])]
    added: dict[fx.Node, tuple[fx.Node, fx.Node]] = {}  # by convolution: what is added, and the addition
    for node in order:
        if not _adds(node):
            continue
        # The later of two: all that is added to it is there by then.
        fitting = [c for c in convolutions if c in node.args and len(c.users) == 1 and c not in added]
        if fitting:
            chosen = max(fitting, key=order.__getitem__)
            (other,) = (arg for arg in node.args if arg is not chosen)
            assert isinstance(other, fx.Node)  # as `_adds` found
            added[chosen] = (other, node)
    found = []
    for convolution in convolutions:
        other, last = added.get(convolution, (None, convolution))
        (user, *more) = last.users or [None]
        relu = user is not None and not more and _is_relu(user, modules)
        found.append(Step(convolution, other, user if relu else last, relu))
    return sorted(found, key=lambda step: order[step.output])


def _inner(step: Step) -> list[fx.Node]:
    """The nodes of a step whose values nobody else sees."""
    chain, node = [], step.convolution
    while node is not step.output:
        chain.append(node)
        (node,) = node.users
    return chain


def _adds(node: fx.Node) -> bool:
    """Whether a node adds two tensors of the graph, and changes none that is used elsewhere."""
    by_method = node.op == "call_method" and node.target in ("add", "add_")
    if not by_method and not (node.op == "call_function" and node.target in ADDS):
        return False
    if node.kwargs or len(node.args) != 2 or not all(isinstance(arg, fx.Node) for arg in node.args):
        return False
    in_place = node.target in (operator.iadd, "add_")
    first, second = node.args
    return first is not second and (not in_place or len(first.users) == 1)  # type: ignore[union-attr]


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return (node.op == "call_function" and node.target in RELUS) or _is(node, nn.ReLU, modules)


def _pool(node: fx.Node, modules: dict[str, nn.Module]) -> Pool | None:
    if not _is(node, nn.MaxPool2d, modules):
        return None
    module: Any = modules[str(node.target)]
    if module.ceil_mode or module.return_indices or _pair(module.dilation) != (1, 1):
        return None
    return Pool(node, _pair(module.kernel_size), _pair(module.stride), _pair(module.padding))


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _is(node: fx.Node, kind: type[nn.Module], modules: dict[str, nn.Module]) -> bool:
    return node.op == "call_module" and type(modules[str(node.target)]) is kind


def _usual(convolution: Any) -> bool:
    return convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)


def _take_out(graph: fx.GraphModule) -> None:
    """Erase modules that give their input back."""
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        if any(_is(node, kind, modules) for kind in PASSED_ON):
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.graph.erase_node(node)


def _leads_to(node: fx.Node, target: fx.Node) -> bool:
    seen, ahead = {node}, [node]
    while ahead:
        now = ahead.pop()
        if now is target:
            return True
        ahead += [user for user in now.users if user not in seen]
        seen |= set(now.users)
    return False


def _refused(node: fx.Node, modules: dict[str, nn.Module]) -> UserError:
    return UserError(
        f"--dtype int8: this network's {_called(node, modules)} stands in the way: between convolutions int8 has ReLU, "
        "additions and max-pooling, and after them pooling and linear layers; leave --dtype int8 out"
    )


def _called(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    """What a node is, for messages."""
    if node.op == "call_module":
        return f"{node.target} ({str(modules[str(node.target)])[:120]})"
    return f"{getattr(node.target, '__name__', node.target)}"
