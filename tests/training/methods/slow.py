"""Every attack and every loss again: one image, one copy, one step at a time, straight from the formulas."""

import math

import torch

from acr_ray.data.chance import uniforms


def softmax(f, x):
    powers = torch.exp(f(x[None])[0])
    return powers / powers.sum()


def cross_entropy(f, x, y):
    return -torch.log(softmax(f, x)[y])


def divergence(p, q):
    return sum(a * (torch.log(a) - torch.log(b)) for a, b in zip(p, q, strict=True) if a != 0)


def mean_prediction(f, x, draws, beta=1.0):
    return sum(softmax(lambda z: beta * f(z), x + d) for d in draws) / len(draws)


def quantile(p):
    return math.sqrt(2) * torch.erfinv(2 * p - 1)


def ascent(objective, at):
    at = at.clone().requires_grad_()
    slope = torch.autograd.grad(objective(at), at)[0]
    return slope / slope.norm()


def draws_of(batch, i):
    return [batch.noise[i * batch.m + j] for j in range(batch.m)]


def each(batch):
    return [(x, int(y), draws_of(batch, i)) for i, (x, y) in enumerate(zip(batch.images, batch.labels, strict=True))]


# attacks


def pgd(f, x, y, draws, steps, step, radius=None):
    found, start = [], x
    for _ in range(steps):
        x = x + step * ascent(lambda at: -torch.log(mean_prediction(f, at, draws)[y]), x)
        x = x.clamp(0, 1)
        if radius is not None and (x - start).norm() > radius:
            x = start + radius * (x - start) / (x - start).norm()
        found.append(x)
    return found


def ddn(f, x, y, draws, steps, gamma, radius):
    farthest = torch.maximum(x, 1 - x).norm()
    delta, best, smallest, norm = (
        torch.zeros_like(x),
        torch.zeros_like(x),
        farthest,
        torch.as_tensor(radius, dtype=x.dtype),
    )
    for k in range(steps):
        fooled = int(mean_prediction(f, x + delta, draws).argmax()) != y
        if fooled and delta.norm() < smallest:
            best, smallest = delta, delta.norm()
        rate = 0.01 + (1 - 0.01) * (1 + math.cos(math.pi * k / steps)) / 2
        delta = delta + rate * ascent(lambda at: -torch.log(mean_prediction(f, x + at, draws)[y]), delta)
        norm = min(norm * (1 - gamma if fooled else 1 + gamma), farthest)
        delta = (x + delta * norm / delta.norm()).clamp(0, 1) - x
    return x + (best if best.norm() <= radius else best * radius / best.norm())


def worst_noise(f, x, target, delta, steps, radius):
    noise, mean, size = delta, delta.mean(), (delta**2).mean().sqrt()
    for _ in range(steps):
        noise = noise + 2 * radius / steps * ascent(lambda at: divergence(target, softmax(f, x + at)), noise)
        away = noise - delta
        noise = delta + (away if away.norm() <= radius else away * radius / away.norm())
        noise = mean + size * (noise - noise.mean()) / (noise**2).mean().sqrt()
    return noise


# losses of a batch


def gaussian(f, batch):
    return sum(cross_entropy(f, x + d, y) for x, y, draws in each(batch) for d in draws) / len(batch.noise)


def smoothadv(f, batch, s):
    epsilon, total = s.epsilon * min(1, (int(batch.progress) + 1) / s.warmup), 0
    for x, y, draws in each(batch):
        if s.attack == "pgd":
            worst = pgd(f, x, y, draws, s.steps, 2 * epsilon / s.steps, epsilon)[-1]
        else:
            worst = ddn(f, x, y, draws, s.steps, s.gamma, epsilon)
        total = total + sum(cross_entropy(f, worst + d, y) for d in draws) / batch.m
    return total / len(batch.images)


def consistency(f, batch, s):
    total = 0
    for x, y, draws in each(batch):
        mean = mean_prediction(f, x, draws)
        likeness = sum(divergence(mean, softmax(f, x + d)) for d in draws) / batch.m
        spread = -sum(p * torch.log(p) for p in mean)
        total = total + sum(cross_entropy(f, x + d, y) for d in draws) / batch.m
        total = total + s.weight * likeness + s.eta * spread
    return total / len(batch.images)


def macer(f, batch, s):
    total = 0
    for x, y, draws in each(batch):
        total = total - torch.log(mean_prediction(f, x, draws)[y])
        soft = mean_prediction(f, x, draws, s.beta)
        first, second = sorted(range(len(soft)), key=lambda c: -float(soft[c].detach()))[:2]
        if first != y or soft[first] == 1 or soft[second] == 0:
            continue
        margin = quantile(soft[first]) - quantile(soft[second])
        if margin < s.gamma:
            total = total + s.weight * batch.sigma / 2 * (s.gamma - margin)
    return total / len(batch.images)


def smoothmix(f, batch, s):
    warm, total = min(1, (int(batch.progress) + 1) / s.warmup), 0
    for i, (x, y, draws) in enumerate(each(batch)):
        path = pgd(f, x, y, draws, s.steps, s.step_size)
        if s.one_step:
            away = path[0] - x
            x = x + (away if away.norm() <= warm * s.step_size else away * warm * s.step_size / away.norm())
        share = float(uniforms(batch.seeds[i : i + 1], 1)[0, 0]) / 2
        mean = mean_prediction(f, x, draws)
        mixed = (1 - share) * x + share * path[-1]
        target = (1 - share) * mean + share / len(mean)
        for d in draws:
            total = total + cross_entropy(f, x + d, y) / batch.m
            if int(mean.argmax()) == y:
                total = total + s.eta * warm * divergence(target, softmax(f, mixed + d)) / batch.m
    return total / len(batch.images)


def catrs(f, batch, s):
    total, confident = 0, []
    for i, (x, y, draws) in enumerate(each(batch)):
        target = torch.nn.functional.one_hot(torch.tensor(y), batch.classes).double()
        right = sum(int(f((x + d)[None])[0].argmax()) == y for d in draws) / batch.m
        count = max(1, sum(float(u) < right for u in uniforms(batch.seeds[i : i + 1], batch.m)[0]))
        losses = sorted((cross_entropy(f, x + d, y) for d in draws), key=lambda value: float(value.detach()))
        total = total + sum(losses[:count]) / batch.m
        confident.append(count == batch.m)
        if confident[-1]:
            noise = [worst_noise(f, x, target, d, s.steps, s.epsilon) for d in draws]
            total = total + s.weight * max(
                (divergence(target, softmax(f, x + n)) for n in noise), key=lambda value: float(value.detach())
            )
    return total / len(batch.images), confident


def stability(f, batch, s):
    total = 0
    for x, y, draws in each(batch):
        clean = softmax(f, x)
        total = total + cross_entropy(f, x, y)
        for d in draws:
            noisy = softmax(f, x + d)
            total = total - s.weight * sum(p * torch.log(q) for p, q in zip(clean, noisy, strict=True)) / batch.m
    return total / len(batch.images)
