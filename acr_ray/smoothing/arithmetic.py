"""How a trained network is made ready to answer as often as possible. The result is what a certificate speaks of.

Folding, a lower precision and compiling all change the last bits of a logit, so they change (very rarely) which class
wins. That is no error: the network as prepared here is the classifier that is certified. But it is another one than
the same weights prepared otherwise, so jobs and `SmoothedClassifier` both come through here and the certificate
names the arithmetic.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, TypeGuard

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from acr_ray.settings import UserError
from acr_ray.smoothing.compiled import Compiled
from acr_ray.smoothing.int8_network import Int8Network
from acr_ray.smoothing.int8_parameters import Int8Parameters
from acr_ray.smoothing.narrow import fuse_narrow
from acr_ray.smoothing.tracing import PASSES

LOWER = {"bfloat16": torch.bfloat16, "float16": torch.float16}
FOLDED = "batch norm folded"
FUSED = "narrow convolutions fused"


def use_float32(kind: Literal["ieee", "tf32"]) -> None:
    """Choose how this process multiplies float32 numbers on a GPU.

    torch's default is TF32 (10 bits of mantissa) in convolutions and IEEE in matrix products, which is neither. Also
    fixes cuDNN's choice of algorithms: by its heuristics, never by timing, which could choose otherwise in another
    process and change the last bits of its logits; and among those whose sums have a fixed order, since a resumed run
    must go where one that was never stopped goes.
    """
    torch.backends.cuda.matmul.fp32_precision = kind
    torch.backends.cudnn.conv.fp32_precision = kind  # type: ignore[attr-defined]  # unknown to torch's stubs
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


class Converting(nn.Module):
    """A network in another precision behind float32 inputs: noise is drawn and added in float32, then rounded."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x.to(self.dtype)).float()


def input_dtype(model: nn.Module) -> torch.dtype:
    """The precision that a prepared network rounds its inputs to."""
    network = model.network if isinstance(model, Compiled) else model
    return network.dtype if isinstance(network, Converting) else torch.float32


class Float32Linear(nn.Linear):
    """A last layer that computes in float32 whatever precision its inputs have.

    Logits rounded to 8 bits of mantissa are often equal, and ``argmax`` would give all ties to the lowest class.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x.float(), self.weight, self.bias)


def prepare(
    model: nn.Module,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    compiled: bool = False,
    rows: Sequence[int] = (),
    int8: Int8Parameters | None = None,
) -> nn.Module:
    """Make a frozen copy of a model, in evaluation mode, for many forward passes and nothing else.

    Batch norm is folded into the convolution before it if the network can be traced; weights are channels-last. In
    bfloat16 and float16 the last linear layer stays in float32 if the network can be traced; compiled for a GPU,
    convolutions of few channels have a kernel of their own there, see `narrow`. Sets how the process
    multiplies float32 numbers, see `use_float32`: what is prepared last decides for all.

    Args:
        model: maps ``(B, C, H, W)`` float32 to logits ``(B, K)``; not changed.
        device: ``"cpu"`` or a CUDA device.
        dtype: ``float32``, ``tf32``, ``int8`` or a key of `LOWER`: the precision of weights and activations.
        compiled: pass it through ``torch.compile`` (on CUDA with CUDA graphs), see `Compiled`.
        rows: batch sizes to compile for as they are; others are padded.
        int8: of this network, as `int8_calibration.calibrate` found them; needed for ``int8``, which is of CPUs.

    Raises:
        UserError: ``int8`` cannot compute this network, or not on this machine.
    """
    use_float32("tf32" if dtype == "tf32" else "ieee")
    if dtype == "int8":
        if int8 is None or device != "cpu" or compiled:
            raise UserError("--dtype int8: needs int8 parameters and a CPU, and is not compiled")
        return Int8Network(int8_graph(model), int8)
    ready = _rounded(model, dtype)
    _fused(ready, device, compiled)
    # torch's stubs lack the signature with both.
    ready = ready.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Compiled(ready, device, rows) if compiled else ready


def described(model: nn.Module, device: str, dtype: str, compiled: bool) -> str:
    """What `prepare` makes of a model, in the words of a certificate; its first word is the precision."""
    ready = _rounded(model, dtype)
    norm = f", {FOLDED}" if has_batch_norm(model) and not has_batch_norm(ready) else ""
    words = f"{dtype} on {device}{norm}{', compiled' if compiled else ''}"
    return f"{words}, {FUSED}" if _fused(ready, device, compiled) else words


def _fused(ready: nn.Module, device: str, compiled: bool) -> int:
    """Fuse the narrow convolutions of a network in lower precision that is compiled for a GPU. Returns how many."""
    if not (compiled and torch.device(device).type == "cuda" and isinstance(ready, Converting)):
        return 0
    return fuse_narrow(ready.network) if isinstance(ready.network, fx.GraphModule) else 0


def _rounded(model: nn.Module, dtype: str) -> nn.Module:
    """A frozen copy with batch norm folded, in this precision."""
    ready = folded(copy.deepcopy(model).eval().requires_grad_(False))
    return in_lower_precision(ready, LOWER[dtype]) if dtype in LOWER else ready


def int8_graph(model: nn.Module) -> fx.GraphModule:
    """A frozen copy of a network as a graph with batch norm folded in. Raises UserError if torch.fx cannot trace it."""
    ready = folded(copy.deepcopy(model).eval().requires_grad_(False))
    graph = ready if isinstance(ready, fx.GraphModule) else traced(ready)
    if graph is None:
        raise UserError(
            "--dtype int8: torch.fx cannot trace this network (hooks, or a forward that depends on its input); leave "
            "--dtype int8 out"
        )
    return graph.eval()


def in_lower_precision(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert a network, all but a last linear layer that gives the logits and nothing else.

    Args:
        model: float32, traced by `folded` or not; its modules are changed.
    """
    graph = model if isinstance(model, fx.GraphModule) else traced(model)
    name = _last_linear(graph) if graph is not None else None
    if graph is None or name is None:
        return Converting(model.to(dtype), dtype)
    last = graph.get_submodule(name)
    assert isinstance(last, nn.Linear)  # as `_last_linear` found
    head = Float32Linear(last.in_features, last.out_features, bias=last.bias is not None)
    head.load_state_dict(last.state_dict())
    graph.to(dtype)
    graph.set_submodule(name, head.requires_grad_(False))
    return Converting(graph.eval(), dtype)


def _last_linear(graph: fx.GraphModule) -> str | None:
    """Name of the linear layer whose output is the network's, if it is called nowhere else."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    last, modules = output.args[0], dict(graph.named_modules())
    if not _calls(last, nn.Linear, modules):
        return None
    return str(last.target) if sum(node.target == last.target for node in graph.graph.nodes) == 1 else None


def folded(model: nn.Module) -> nn.Module:
    """The same function with each `BatchNorm2d` that directly follows a `Conv2d` multiplied into its weights.

    ``γ (w*x + b - μ) / √(v + ε) + β`` is a convolution with weights ``s w`` and bias ``(b - μ) s + β``,
    ``s = γ / √(v + ε)``; computed by torch, in float64. A model that torch.fx cannot trace is returned as it is.

    Args:
        model: in evaluation mode; its modules may be changed.
    """
    graph = traced(model) if has_batch_norm(model) else None
    if graph is None:
        return model
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        source = node.args[0] if node.args else None
        if not (_calls(node, nn.BatchNorm2d, modules) and _calls(source, nn.Conv2d, modules)):
            continue
        convolution, norm = modules[str(source.target)], modules[str(node.target)]
        assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)  # as `_calls` has just said
        shared = sum(n.op == "call_module" and n.target in (source.target, node.target) for n in graph.graph.nodes) > 2
        if len(source.users) > 1 or shared or norm.running_mean is None:
            continue
        _multiply_in(convolution, norm)
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph.eval()


def traced(model: nn.Module) -> fx.GraphModule | None:
    """The same network as a graph; None if torch.fx cannot be trusted to give the same function."""
    if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        return None
    try:
        with PASSES.tracing():
            graph = fx.symbolic_trace(model)
    except Exception:  # tracing runs the user's code with stand-ins for tensors: anything may be raised
        return None
    # A tensor that forward makes itself would be frozen at the value it had while tracing.
    own = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    return None if any(node.target not in own for node in graph.graph.find_nodes(op="get_attr")) else graph


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any `BatchNorm2d` is there; `prepare` leaves none in the networks that it can fold."""
    return any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def _calls(node: object, kind: type[nn.Module], modules: dict[str, nn.Module]) -> TypeGuard[fx.Node]:
    return isinstance(node, fx.Node) and node.op == "call_module" and type(modules[str(node.target)]) is kind


def _multiply_in(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None  # a norm without them is not folded
    dtype, learned = convolution.weight.dtype, (convolution.bias, norm.weight, norm.bias)
    bias, scale, shift = (None if value is None else value.double() for value in learned)
    weight, bias = fuse_conv_bn_weights(
        convolution.weight.double(), bias, norm.running_mean.double(), norm.running_var.double(), norm.eps, scale, shift
    )
    convolution.weight = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
    convolution.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
