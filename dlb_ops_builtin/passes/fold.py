"""Folds an evaluated BatchNorm into the convolution or dense layer before it."""

from __future__ import annotations

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
    eps = norm.args[7]
    assert isinstance(eps, float)
    weight, bias = (
        _parameter(program, layer.args[1]),
        _parameter(program, layer.args[2] if len(layer.args) > 2 else None),
    )
    gain, beta, mean, var = (_parameter(program, a) for a in norm.args[1:5])
    assert weight is not None
    present = [p for p in (weight, bias, gain, beta, mean, var) if p is not None]

    def unpack(values: tuple[Tensor, ...]) -> list[Tensor | None]:
        """The six tensors in float64, None where the layer has none."""
        given = iter(values)
        return [None if p is None else next(given).double() for p in (weight, bias, gain, beta, mean, var)]

    def new_weight(*values: Tensor) -> Tensor:
        w, _, g, _, _, v = unpack(values)
        assert w is not None and v is not None  # noqa: PT018
        return (w * _scale(g, v, eps).reshape(-1, *[1] * (w.dim() - 1))).to(weight.tensor.dtype)

    def new_bias(*values: Tensor) -> Tensor:
        _, b, g, shift, m, v = unpack(values)
        assert m is not None and v is not None  # noqa: PT018
        folded = ((0 if b is None else b) - m) * _scale(g, v, eps)
        return (folded if shift is None else folded + shift).to(weight.tensor.dtype)

    named = beta or mean
    assert named is not None
    folded_weight = program.derive(weight.name, present, new_weight)
    folded_bias = program.derive(named.name, present, new_bias)
    layer.args = (layer.args[0], folded_weight, folded_bias, *layer.args[3:])
    program.drop(norm, layer)


def _parameter(program: Program, node: object) -> Parameter | None:
    return program.parameters[node.name] if isinstance(node, fx.Node) else None


def _scale(gain: Tensor | None, var: Tensor, eps: float) -> Tensor:
    inverse = (var + eps).rsqrt()
    return inverse if gain is None else inverse * gain
