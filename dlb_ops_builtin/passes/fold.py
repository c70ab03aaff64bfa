"""Folds an evaluated BatchNorm into the convolution or dense layer before it."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from dlb_core.rules import Linear, Parameter, Program, Registry, op_name


class Fold:
    """w' = w * g / sqrt(var + eps), b' = (b - mean) * g / sqrt(var + eps) + beta, one per output channel.

    Only where the layer's output has no other reader. The folded layer answers for its BatchNorm too; the
    new bias keeps the BatchNorm's name in the books.
    """

    name = "fold"
    order = 20
    phase = "rewrite"
    switch: str | None = "fold"

    def run(self, program: Program, registry: Registry) -> list[str]:
        done = []
        for norm in list(program.graph.nodes):
            if norm.op == "call_function" and op_name(norm.target).startswith("aten::batch_norm"):
                layer = norm.args[0]
                if isinstance(layer, fx.Node) and _foldable(layer, norm, program, registry):
                    _fold(program, layer, norm)
                    done.append(f"{norm.name} folded into {layer.name}")
        return done


FOLDABLE = ("aten::conv1d.default", "aten::conv2d.default", "aten::conv3d.default", "aten::linear.default")


def _foldable(layer: fx.Node, norm: fx.Node, program: Program, registry: Registry) -> bool:
    if layer.op != "call_function" or op_name(layer.target) not in FOLDABLE or len(layer.users) != 1:
        return False
    row = registry.find(layer.target)
    if not isinstance(row, Linear) or norm.args[5]:
        return False
    if op_name(layer.target) == "aten::linear.default" and layer.meta["val"].dim() != 2:
        return False  # BatchNorm's channel is dimension 1, a dense layer's is the last
    tensors = [*layer.args[1:3], *norm.args[1:5]]
    return all(a is None or (isinstance(a, fx.Node) and a.name in program.parameters) for a in tensors)


def _fold(program: Program, layer: fx.Node, norm: fx.Node) -> None:
    _, gain, beta, mean, var = norm.args[:5]
    eps = norm.args[7]
    weight, bias = layer.args[1], layer.args[2] if len(layer.args) > 2 else None

    def parameter(node: object) -> Parameter | None:
        return program.parameters[node.name] if isinstance(node, fx.Node) else None

    w, b, g, be, m, v = (parameter(a) for a in (weight, bias, gain, beta, mean, var))
    assert w is not None and m is not None and v is not None
    sources = [p for p in (w, b, g, be, m, v) if p is not None]

    def named(values: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return {name: value.double() for name, value in zip((p.name for p in sources), values, strict=True)}

    def scale(t: dict[str, Tensor]) -> Tensor:
        inverse = (t[v.name] + eps).rsqrt()
        return inverse if g is None else inverse * t[g.name]

    def new_weight(*values: Tensor) -> Tensor:
        t = named(values)
        shaped = scale(t).reshape(-1, *[1] * (t[w.name].dim() - 1))
        return (t[w.name] * shaped).to(w.tensor.dtype)

    def new_bias(*values: Tensor) -> Tensor:
        t = named(values)
        before = t[b.name] if b is not None else torch.zeros_like(t[m.name])
        after = t[be.name] if be is not None else torch.zeros_like(before)
        return ((before - t[m.name]) * scale(t) + after).to(w.tensor.dtype)

    folded_weight = program.derive(w.name, sources, new_weight)
    folded_bias = program.derive((be or m).name, sources, new_bias)
    layer.args = (layer.args[0], folded_weight, folded_bias, *layer.args[3:])
    program.drop(norm, layer)
