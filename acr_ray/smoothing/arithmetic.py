"""How a trained network is made ready to answer as often as possible. The result is what a certificate speaks of.

Folding, a lower precision and compiling all change the last bits of a logit, so they change (very rarely) which class
wins. That is no error: the network as prepared here is the classifier that is certified. But it is another one than
the same weights prepared otherwise, so jobs and `SmoothedClassifier` both come through here and the certificate
names the arithmetic.
"""

from __future__ import annotations

import copy

import torch
from torch import fx, nn

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FOLDED = "batch norm folded"


class Converting(nn.Module):
    """A network in another precision behind float32 inputs: noise is drawn and added in float32, then rounded."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x.to(self.dtype)).float()


def prepare(model: nn.Module, *, device: str = "cpu", dtype: str = "float32", compiled: bool = False) -> nn.Module:
    """A frozen copy of a model, in evaluation mode, for many forward passes and nothing else.

    Batch norm is folded into the convolution before it where the network can be traced, weights are channels-last.

    Args:
        model: maps ``(B, C, H, W)`` float32 to logits ``(B, K)``; not changed.
        device: ``"cpu"`` or a CUDA device.
        dtype: a key of `DTYPES`: the precision of weights and activations.
        compiled: pass it through ``torch.compile`` (on CUDA with CUDA graphs).
    """
    ready = folded(copy.deepcopy(model).eval().requires_grad_(False))
    if dtype != "float32":
        ready = Converting(ready, DTYPES[dtype])
    ready = ready.to(device=device, memory_format=torch.channels_last)
    if compiled:
        mode = "reduce-overhead" if torch.device(device).type == "cuda" else "default"
        return torch.compile(ready, mode=mode)
    return ready


def folded(model: nn.Module) -> nn.Module:
    """The same function with each `BatchNorm2d` that directly follows a `Conv2d` multiplied into its weights.

    ``γ (w*x + b - μ) / √(v + ε) + β`` is a convolution with weights ``s w`` and bias ``(b - μ) s + β``,
    ``s = γ / √(v + ε)``; computed in float64. A model that torch.fx cannot trace is returned as it is.

    Args:
        model: in evaluation mode; its modules may be changed.
    """
    if not has_batch_norm(model) or any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        return model
    try:
        graph = fx.symbolic_trace(model)
    except Exception:  # tracing runs the user's code with stand-ins for tensors: anything may be raised
        return model
    # A tensor that forward makes itself would be frozen at the value it had while tracing.
    own = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    if any(node.target not in own for node in graph.graph.find_nodes(op="get_attr")):
        return model
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        source = node.args[0] if node.args else None
        if not (_calls(node, nn.BatchNorm2d, modules) and _calls(source, nn.Conv2d, modules)):
            continue
        convolution, norm = modules[source.target], modules[node.target]
        shared = sum(n.op == "call_module" and n.target in (source.target, node.target) for n in graph.graph.nodes) > 2
        if len(source.users) > 1 or shared or norm.running_mean is None:
            continue
        _multiply_in(convolution, norm)
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph.eval()


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any `BatchNorm2d` is there; `prepare` leaves none in the networks that it can fold."""
    return any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def _calls(node: object, kind: type[nn.Module], modules: dict[str, nn.Module]) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_module" and type(modules[node.target]) is kind


def _multiply_in(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    before = 0.0 if convolution.bias is None else convolution.bias.double()
    bias = (before - norm.running_mean.double()) * scale
    bias = bias if norm.bias is None else bias + norm.bias.double()
    dtype = convolution.weight.dtype
    weight = convolution.weight.double() * scale[:, None, None, None]
    convolution.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
