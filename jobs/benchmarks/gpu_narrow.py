"""``bench gpu``: convolutions of few channels, which have a kernel of their own, against torch's."""

from __future__ import annotations

import copy

import torch

from acr_ray.smoothing.narrow import convolution, packed, pixels_together
from acr_ray.training.narrow import use_narrow
from jobs.benchmarks.gpu_parts import Findings


def convolutions(found: Findings) -> None:
    """Convolutions of few channels against the same in float32; torch's own round their results likewise."""
    cases = [(3, 16, 32, 1), (16, 16, 32, 1), (32, 32, 16, 1), (64, 64, 8, 1), (16, 32, 32, 2), (16, 32, 9, 2)]
    for dtype in (torch.bfloat16, torch.float16):
        with found.check(f"convolutions of few channels, {str(dtype)[6:]}: torch's, and the same in any company") as v:
            apart = []
            for inputs, outputs, size, stride in cases[:2] if found.dry else cases:
                torch.manual_seed(3)
                x, weight = torch.randn(37, inputs, size, size), torch.randn(outputs, inputs, 3, 3)
                x, weight = (t.to(found.device, dtype) for t in (x, weight / (9 * inputs) ** 0.5))
                bias, pixels = torch.rand(outputs, device=found.device), pixels_together(inputs, stride)
                plain = torch.nn.functional.conv2d(x.float(), weight.float(), bias, stride, 1)
                shortcut = torch.rand_like(plain).to(dtype)
                how = (packed(weight, stride), bias.repeat(pixels))
                ours = convolution(x, *how, shortcut, stride, pixels, True)
                if not found.dry:  # the CPU's are torch's own
                    assert torch.equal(convolution(x[5:6], *how, shortcut[5:6], stride, pixels, True), ours[5:6])
                rounding = (plain + shortcut).abs().max() * torch.finfo(dtype).eps
                apart.append(float(((plain + shortcut).relu() - ours).abs().max() / rounding))
            v["largest_difference_in_roundings"] = max(apart)
            assert max(apart) <= 1


def gradients(found: Findings) -> None:
    """Gradients of convolutions of few channels against torch's own."""
    for dtype in (torch.bfloat16, torch.float16):
        with found.check(f"gradients of convolutions of few channels, {str(dtype)[6:]}: torch's") as v:
            apart: dict[str, float] = {}
            for channels, size in ((16, 32), (32, 16), (64, 8)):
                torch.manual_seed(0)
                layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(found.device)
                own = torch.nn.Sequential(copy.deepcopy(layer))
                assert use_narrow(own) == 1
                made = []
                x, gradient = torch.randn(2, 64, channels, size, size, device=found.device).to(dtype).float()
                for one in (layer, own):
                    given = x.clone().requires_grad_()
                    with torch.autocast(found.device, dtype, enabled=one is own):
                        one(given).backward(gradient.to(dtype if one is own else torch.float32))
                    weight = next(one.parameters())
                    made.append((given.grad, weight.grad))
                for name, a, b in zip(("input", "weight"), *made, strict=True):
                    apart[f"of_{name}_{channels}"] = float((a - b).norm() / a.norm())
            v |= {"relative_differences": apart}
            assert max(apart.values()) < 4 * torch.finfo(dtype).eps
