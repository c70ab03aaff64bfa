"""Folds an evaluated BatchNorm into the convolution or dense layer before it, else into the one after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from dlb_core.rules import Linear, Parameter, Program, Registry, bound_arguments, facts, fake_tensors, op_name


@dataclass(frozen=True)
class Layer:
    """How an op's weight is laid out: [out, in / groups, *kernel], transposed [in, out / groups, *kernel]."""

    dims: int  # of the kernel; none for a dense layer
    transposed: bool = False

    @property
    def rank(self) -> int:
        """Of the values whose channel is BatchNorm's: a batch of three-dimensional texts is no [batch, channel]."""
        return self.dims + 2


LAYERS = {
    "aten::linear": Layer(0),
    **{f"aten::conv{dims}d": Layer(dims) for dims in (1, 2, 3)},
    **{f"aten::conv_transpose{dims}d": Layer(dims, transposed=True) for dims in (1, 2, 3)},
}
FLATTENS = ("aten::view", "aten::_unsafe_view", "aten::reshape", "aten::flatten")
TENSORS = ("weight", "bias", "running_mean", "running_var")


class Fold:
    """With scale g / sqrt(var + eps) and shift beta - mean * scale, one of each per channel:

    layer, then norm: w' = w * scale over the outputs, b' = b * scale + shift, where nobody else reads the layer;
    norm, then layer: w' = w * scale over the inputs, b' = b + w shift, where the norm is read by nothing but the layer
    (it may be flattened on the way), and nobody else reads what it normalises. Not where zeros are padded: they would
    have to be shifted too. The layer's `folded` fact and the names that a pass took out say who answers for the norm;
    the new bias has the norm's name in the books.
    """

    name = "fold"
    order = 20
    phase = "rewrite"
    switch: str | None = "fold"

    def run(self, program: Program, registry: Registry) -> list[str]:
        done = []
        for node in list(program.graph.nodes):
            norm = _norm(node, program)
            if norm is None:
                continue
            layer = _before(norm, program, registry)
            if layer is None:
                layer = _after(norm, program, registry)
            if layer is not None:
                done.append(f"{node.name} folded into {layer.name}")
        return done


@dataclass(frozen=True)
class Norm:
    """A BatchNorm by its running statistics; each of its tensors is the model's own, or None where it has none."""

    node: fx.Node
    x: fx.Node
    eps: float
    tensors: Mapping[str, Parameter | None]

    @property
    def named(self) -> Parameter:
        """Whose name the folded bias has: its own bias, else the mean that it subtracts."""
        named = self.tensors["bias"] or self.tensors["running_mean"]
        assert named is not None
        return named

    def affine(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Scale and shift, one per channel."""
        scale = (values["running_var"] + self.eps).rsqrt() * values.get("weight", 1)
        return scale, values.get("bias", 0) - values["running_mean"] * scale


def _norm(node: fx.Node, program: Program) -> Norm | None:
    if node.op != "call_function" or op_name(node.target) != "aten::batch_norm.default":
        return None
    bound = bound_arguments(node)
    tensors = {name: _parameter(program, bound[name]) for name in TENSORS}
    given = all(bound[name] is None or tensors[name] is not None for name in TENSORS)
    if bound["training"] or tensors["running_mean"] is None or tensors["running_var"] is None or not given:
        return None  # it normalises by the batch, or by what the model computes
    return Norm(node, bound["input"], bound["eps"], tensors)


def _before(norm: Norm, program: Program, registry: Registry) -> fx.Node | None:
    """Folds into the layer whose output is normalised."""
    node = norm.x
    layer = _layer(node, program, registry)
    if layer is None or _rank(node) != layer.rank or not _only_reader(norm.node, node, program):
        return None
    groups = bound_arguments(node).get("groups", 1)

    def fold(scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        over = _over_seconds(weight, scale, groups) if layer.transposed else scale.reshape(-1, *[1] * (layer.dims + 1))
        return weight * over, shift if bias is None else bias * scale + shift

    _rewrite(program, node, norm, fold)
    program.drop(norm.node, node)
    return node


def _after(norm: Norm, program: Program, registry: Registry) -> fx.Node | None:
    """Folds into the layer that reads what was normalised."""
    node = _reader(norm.node, program)
    flat = node is not None and _flattens(node)
    if node is not None and flat:
        node = _reader(node, program)
    layer = None if node is None else _layer(node, program, registry)
    if node is None or layer is None or not _only_reader(norm.node, norm.x, program) or not _whole(node, layer):
        return None
    if layer.dims if flat else _rank(norm.node) != layer.rank:
        return None
    groups = bound_arguments(node).get("groups", 1)

    def fold(scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        repeat = weight.shape[1] * groups // len(scale)  # of a channel, when its pixels were flattened
        scale, shift = (_over_seconds(weight, t.repeat_interleave(repeat), groups) for t in (scale, shift))
        moved = (weight * shift).flatten(1).sum(1)
        return weight * scale, moved if bias is None else bias + moved

    _rewrite(program, node, norm, fold)
    program.drop(norm.node, norm.x)
    return node


def _layer(node: fx.Node, program: Program, registry: Registry) -> Layer | None:
    """The layout of a layer whose map is the op's own and whose weights are the model's."""
    if node.op != "call_function":
        return None
    layer = LAYERS.get(op_name(node.target).partition(".")[0])
    if layer is None or not isinstance(registry.find(node.target), Linear):
        return None
    bound = bound_arguments(node)
    known = all(bound[name] is None or _parameter(program, bound[name]) for name in ("weight", "bias"))
    return layer if known else None


def _whole(node: fx.Node, layer: Layer) -> bool:
    """Does every output see every tap of its kernel, so that a shift of the input is one of the output?"""
    padding = bound_arguments(node).get("padding", "valid")
    return not layer.transposed and (padding == "valid" if isinstance(padding, str) else not any(padding))


def _flattens(node: fx.Node) -> bool:
    """[batch, channel, ...] to [batch, channel * ...]."""
    if node.op != "call_function" or op_name(node.target).partition(".")[0] not in FLATTENS:
        return False
    before, after = fake_tensors(node.args[0])[0].shape, fake_tensors(node)[0].shape  # type: ignore[arg-type]
    return len(before) > 2 == len(after) and bool(before[0] == after[0])


def _reader(node: fx.Node, program: Program) -> fx.Node | None:
    """The one node that reads this one, as its input."""
    readers = list(node.users)
    if len(readers) != 1 or not _only_reader(readers[0], node, program):
        return None
    first = readers[0].args[0] if readers[0].op == "call_function" and readers[0].args else None
    return readers[0] if first is node else None


def _only_reader(reader: fx.Node, node: fx.Node, program: Program) -> bool:
    return list(node.users) == [reader] and node not in program.outputs


def _rank(node: fx.Node) -> int:
    return fake_tensors(node)[0].dim()


def _over_seconds(weight: Tensor, values: Tensor, groups: int) -> Tensor:
    """One value per channel, over a weight's second axis: its first holds the groups one after the other."""
    grouped = values.reshape(groups, 1, weight.shape[1], *[1] * (weight.dim() - 2))
    return grouped.expand(groups, weight.shape[0] // groups, *grouped.shape[2:]).flatten(0, 1)


def _rewrite(
    program: Program,
    node: fx.Node,
    norm: Norm,
    fold: Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]],
) -> None:
    """Gives the layer its new weight and bias, worked out in float64 and again whenever the model's tensors change."""
    bound = bound_arguments(node)
    layer = {name: _parameter(program, bound[name]) for name in ("weight", "bias")}
    weight = layer["weight"]
    assert weight is not None
    sources = {**{f"layer.{n}": p for n, p in layer.items()}, **norm.tensors}
    present = {name: parameter for name, parameter in sources.items() if parameter is not None}

    def part(index: int) -> Callable[..., Tensor]:
        def compute(*values: Tensor) -> Tensor:
            known = {name: value.double() for name, value in zip(present, values, strict=True)}
            scale, shift = norm.affine(known)
            folded = fold(scale, shift, known["layer.weight"], known.get("layer.bias"))[index]
            return folded.to(weight.tensor.dtype)

        return compute

    names = (weight.name, norm.named.name)
    new = [program.derive(name, list(present.values()), part(i)) for i, name in enumerate(names)]
    node.args = tuple({**bound, "weight": new[0], "bias": new[1]}.values())
    node.kwargs = {}
    facts(node).folded += (norm.node.name,)


def _parameter(program: Program, node: Any) -> Parameter | None:
    return program.parameters.get(node.name) if isinstance(node, fx.Node) else None
