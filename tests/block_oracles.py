"""Blocks in float64 with explicit loops, from the parameters of a module: slow, and nothing of torch in them."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from torch import nn

Floats = NDArray[np.float64]
EPS = 1e-5


def state(module: nn.Module) -> dict[str, Floats]:
    return {name: tensor.double().numpy().copy() for name, tensor in module.state_dict().items()}


def conv(
    x: Floats,
    weight: Floats,
    bias: Floats | None = None,
    *,
    stride: int = 1,
    padding: tuple[int, int] | int | None = None,
    dilation: int = 1,
    groups: int = 1,
) -> Floats:
    """(C, H, W) to (D, H', W'): every output is a sum over its window, written as loops. Pads to keep the size."""
    outputs, inputs, rows, columns = weight.shape
    pads = (rows // 2, columns // 2) if padding is None else (padding, padding) if isinstance(padding, int) else padding
    x = np.pad(x, ((0, 0), (pads[0],) * 2, (pads[1],) * 2))
    sides = [(x.shape[i + 1] - dilation * (size - 1) - 1) // stride + 1 for i, size in enumerate((rows, columns))]
    answer = np.zeros((outputs, *sides))
    for d, i, j in itertools.product(range(outputs), *map(range, sides)):
        for c, a, b in itertools.product(range(inputs), range(rows), range(columns)):
            channel = d // (outputs // groups) * inputs + c
            answer[d, i, j] += weight[d, c, a, b] * x[channel, i * stride + a * dilation, j * stride + b * dilation]
    return answer if bias is None else answer + bias[:, None, None]


def transposed(x: Floats, weight: Floats, bias: Floats, *, stride: int, padding: int) -> Floats:
    """Every input pixel adds its multiple of the kernel (C, D, k, k) to the answer."""
    size = weight.shape[-1]
    sides = [(n - 1) * stride + size for n in x.shape[1:]]
    answer = np.zeros((weight.shape[1], *sides))
    for c, i, j in itertools.product(*map(range, x.shape)):
        for d, a, b in itertools.product(range(weight.shape[1]), range(size), range(size)):
            answer[d, i * stride + a, j * stride + b] += x[c, i, j] * weight[c, d, a, b]
    return answer[:, padding : sides[0] - padding, padding : sides[1] - padding] + bias[:, None, None]


def local(x: Floats, weight: Floats, bias: Floats, *, size: int, stride: int, padding: int) -> Floats:
    """Weights (places, D, C x size x size) of their own at every place."""
    x = np.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2))
    answer = np.zeros(bias.shape)
    for d, i, j in itertools.product(*map(range, bias.shape)):
        window = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
        place = i * bias.shape[2] + j
        answer[d, i, j] = sum(w * v for w, v in zip(weight[place, d], window.flatten(), strict=True)) + bias[d, i, j]
    return answer


def norm(x: Floats, parameters: dict[str, Floats], name: str) -> Floats:
    mean, var, weight, bias = (
        parameters[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + EPS) * weight + bias


def relu(x: Floats) -> Floats:
    return np.where(x > 0, x, 0.0)


def max_pool(x: Floats) -> Floats:
    """3x3, stride 1, the same size."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    answer = np.zeros_like(x)
    for c, i, j in itertools.product(*map(range, x.shape)):
        answer[c, i, j] = padded[c, i : i + 3, j : j + 3].max()
    return answer


def inception(x: Floats, p: dict[str, Floats]) -> Floats:
    def step(x: Floats, name: str) -> Floats:
        return relu(conv(x, p[f"{name}.weight"], p[f"{name}.bias"]))

    return np.concatenate(
        [
            step(x, "one.step1"),
            step(step(x, "three.step1"), "three.step3"),
            step(step(x, "five.step1"), "five.step3"),
            step(max_pool(x), "pool.step2"),
        ]
    )


def pre_activation(x: Floats, p: dict[str, Floats], stride: int, sizes: tuple[int, ...]) -> Floats:
    active = relu(norm(x, p, "first.norm"))
    here = active
    for i in range(len(sizes)):
        here = relu(norm(here, p, f"body.active{i}.norm")) if i else here
        strided = stride if i == len(sizes) - 2 else 1  # the first of two, the second of three
        here = conv(here, p[f"body.conv{i + 1}.weight"], stride=strided)
    return here + (conv(active, p["shortcut.weight"], stride=stride) if "shortcut.weight" in p else x)


def dense(x: Floats, p: dict[str, Floats], depth: int) -> Floats:
    for i in range(1, depth + 1):
        here = x
        for active, layer in (("active1", "conv1"), ("active", "conv")):
            if f"layer{i}.body.{layer}.weight" in p:
                here = conv(relu(norm(here, p, f"layer{i}.body.{active}.norm")), p[f"layer{i}.body.{layer}.weight"])
        x = np.concatenate([x, here])
    return x


def streams(x: Floats, p: dict[str, Floats], stride: int, prefix: str = "") -> Floats:
    """Equation 1 with its four convolutions and two batch norms."""
    r, t = np.split(x, 2)
    weight = p[f"{prefix}conv.weight"]
    after, before = len(weight) // 2, len(r)
    rr, tr = weight[:after, :before], weight[:after, before:]
    rt, tt = weight[after:, :before], weight[after:, before:]
    project = p.get(f"{prefix}shortcut.weight")
    kept = r if project is None else conv(r, project, stride=stride)
    residual = conv(r, rr, stride=stride) + conv(t, tr, stride=stride) + kept
    transient = conv(r, rt, stride=stride) + conv(t, tt, stride=stride)
    return relu(norm(np.concatenate([residual, transient]), p, f"{prefix}active.norm"))


def resnet_in_resnet(x: Floats, p: dict[str, Floats], stride: int) -> Floats:
    r, t = np.split(streams(streams(x, p, stride, "layer1."), p, 1, "layer2."), 2)
    past = np.zeros_like(r)
    shrunk = x[: len(x) // 2, ::stride, ::stride]
    past[: len(shrunk)] = shrunk
    return np.concatenate([r + past, t])


def poly(x: Floats, p: dict[str, Floats], kind: str, order: int, scale: float) -> Floats:
    def block(x: Floats, number: int, time: int) -> Floats:
        found = []
        for branch in itertools.count():
            if f"blocks.{number}.branches.{branch}.0.conv.weight" not in p:
                break
            here = x
            for step in itertools.count():
                name = f"blocks.{number}.branches.{branch}.{step}"
                if f"{name}.conv.weight" not in p:
                    break
                here = relu(norm(conv(here, p[f"{name}.conv.weight"]), p, f"{name}.norms.{time}"))
            found.append(here)
        last = f"blocks.{number}.lasts.{time}"
        return norm(conv(np.concatenate(found), p[f"{last}.conv.weight"]), p, f"{last}.norm")

    answer, here = x, x
    for k in range(order):
        here = block(relu(x if kind == "way" else here), *((0, k) if kind == "poly" else (k, 0)))
        answer = answer + scale * here
    return relu(answer)


def fractal(x: Floats, p: dict[str, Floats], columns: int) -> Floats:
    """The recursion f_{c+1}(z) = join(f_c(f_c(z)), f_1(z)), with joins that follow each other made one."""
    used = [0] * columns

    def single(x: Floats, column: int) -> Floats:
        name = f"columns.{column}.{used[column]}"
        used[column] += 1
        return relu(norm(conv(x, p[f"{name}.conv.weight"]), p, f"{name}.norm"))

    def ends(x: Floats, number: int) -> list[Floats]:
        """What reaches the last join of f_number, whose columns are the `number` longest."""
        short = single(x, columns - number)
        if number == 1:
            return [short]
        inner = np.mean(ends(x, number - 1), axis=0)
        return [short, *ends(inner, number - 1)]

    return np.mean(ends(x, columns), axis=0)
