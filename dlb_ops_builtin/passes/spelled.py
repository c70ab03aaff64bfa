"""Gates that are spelled out become the op that they are: sigmoid, hard-sigmoid and softmax, by what they compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from dlb_core.rules import Program, Registry, bound_arguments, fake_tensors, op_name

aten = torch.ops.aten
Found = tuple[Any, tuple[Any, ...]]  # an op and its arguments


class Spelled:
    """1 / (1 + exp(-x)), exp(x) / (1 + exp(x)), (1 + tanh(x / 2)) / 2; relu6(x + 3) / 6, clamp(x / 6 + 1/2, 0, 1);
    exp(x) / sum exp(x) with or without its maximum taken off, exp(x - logsumexp(x)), exp(log_softmax(x)).

    So that they are gates where the fused ones are, and `attnlrp` has its rule for them.
    """

    name = "spelled gates"
    order = 14
    phase = "rewrite"
    switch: str | None = None

    def run(self, program: Program, registry: Registry) -> list[str]:
        done = []
        for node in list(program.graph.nodes):
            found = _recognised(node)
            if found is not None and _alike(node, found[1][0]):
                op, arguments = found
                with program.graph.inserting_before(node):
                    written = program.graph.create_node("call_function", op, arguments, {}, name=op._opname)
                written.meta = dict(node.meta)
                done.append(f"{node.name} is {written.name}")
                program.drop(node, written)
        return done


def _recognised(node: fx.Node) -> Found | None:
    return next((found for look in (_sigmoid, _hard_sigmoid, _softmax) if (found := look(node)) is not None), None)


def _alike(node: fx.Node, x: fx.Node) -> bool:
    """Has the node the shape and dtype of x, as the op's value would?"""
    mine, other = fake_tensors(node)[0], fake_tensors(x)[0]
    return mine.dtype == other.dtype and mine.shape == other.shape


def _sigmoid(node: fx.Node) -> Found | None:
    divided = _quotient(node)
    if divided is not None:
        over, under = divided
        exponential = _shifted(under, 1, 1)
        exponent = _argument(exponential, "exp")
        if exponent is not None and over == 1:
            return _of(exponent, aten.sigmoid.default, -1)
        if exponent is not None and _same(over, exponential):
            return aten.sigmoid.default, (exponent,)
    half = _argument(_shifted(node, 0.5, 0.5), "tanh")
    return None if half is None else _of(half, aten.sigmoid.default, 2)


def _of(x: fx.Node, op: Any, factor: float) -> Found | None:
    """op(factor * x), where x is itself a multiple that undoes the factor."""
    root = _shifted(x, 1 / factor, 0)
    return None if root is None else (op, (root,))


def _hard_sigmoid(node: fx.Node) -> Found | None:
    clamped = _clamped(_shifted(node, 1 / 6, 0), 0, 6)
    x = None if clamped is None else _shifted(clamped, 1, 3)
    if x is None:
        clamped = _clamped(node, 0, 1)
        x = None if clamped is None else _shifted(clamped, 1 / 6, 0.5)
    return None if x is None else (aten.hardsigmoid.default, (x,))


def _softmax(node: fx.Node) -> Found | None:
    exponent = _argument(node, "exp")
    if exponent is not None:
        known = _bound(exponent, "log_softmax", "_log_softmax")
        if known is not None:
            return aten.softmax.int, (known["self"], known["dim"])
        return _less(exponent, "logsumexp")
    divided = _quotient(node)
    if divided is None:
        return None
    over, under = divided
    total, exponent = _bound(under, "sum"), _argument(over, "exp")
    if total is None or exponent is None or not _same(total["self"], over) or not total["keepdim"]:
        return None
    dims = total.get("dim")
    if dims is None or len(dims) != 1:
        return None
    less = _less(exponent, "amax", "max")
    same = less is not None and less[1][1] % _rank(over) == dims[0] % _rank(over)
    return less if same else (aten.softmax.int, (exponent, dims[0]))


def _less(node: fx.Node, *names: str) -> Found | None:
    """softmax(x) for x - f(x), f one of these reductions of one dimension, kept."""
    bound = _bound(node, "sub")
    if bound is None or bound.get("alpha", 1) != 1:
        return None
    taken = bound["other"]
    if isinstance(taken, fx.Node) and op_name(taken.target).endswith("getitem") and taken.args[1] == 0:
        taken = taken.args[0]
    reduction = _bound(taken, *names)
    if reduction is None or reduction["self"] is not bound["self"] or not reduction.get("keepdim"):
        return None
    dim = reduction["dim"]
    if isinstance(dim, (list, tuple)):
        if len(dim) != 1:
            return None
        (dim,) = dim
    return aten.softmax.int, (bound["self"], dim)


# reading the graph


def _bound(node: Any, *names: str) -> Mapping[str, Any] | None:
    """The arguments of a node that is one of these ops."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return None
    namespace, _, rest = op_name(node.target).partition("::")
    return bound_arguments(node) if namespace == "aten" and rest.partition(".")[0] in names else None


def _argument(node: Any, name: str) -> fx.Node | None:
    bound = _bound(node, name)
    return None if bound is None else bound["self"]


def _same(one: Any, other: Any, depth: int = 5) -> bool:
    """The same value: one node, or the same op twice on the same values."""
    if one is other or not (isinstance(one, fx.Node) and isinstance(other, fx.Node)):
        return one is other or (not isinstance(one, fx.Node) and not isinstance(other, fx.Node) and bool(one == other))
    alike = one.op == other.op == "call_function" and one.target is other.target and one.kwargs == other.kwargs
    if not alike or not depth or len(one.args) != len(other.args):
        return False
    return all(_same(a, b, depth - 1) for a, b in zip(one.args, other.args, strict=True))


def _rank(node: fx.Node) -> int:
    return fake_tensors(node)[0].dim()


def _clamped(node: Any, low: float, high: float) -> fx.Node | None:
    """What is clamped to these bounds."""
    if high == 6 and (x := _argument(node, "relu6")) is not None:
        return x
    for name, bounds in (("clamp", ("min", "max")), ("hardtanh", ("min_val", "max_val"))):
        bound = _bound(node, name)
        if bound is not None and [bound[b] for b in bounds] == [low, high]:
            x = bound["self"]
            return x if isinstance(x, fx.Node) else None
    return None


def _quotient(node: fx.Node) -> tuple[Any, Any] | None:
    """Numerator and denominator: of a division, a reciprocal, a product with a reciprocal."""
    bound = _bound(node, "div")
    if bound is not None:
        return None if bound.get("rounding_mode") else (bound["self"], bound["other"])
    under = _argument(node, "reciprocal")
    if under is not None:
        return 1, under
    bound = _bound(node, "mul")
    if bound is not None:
        for one, other in (("self", "other"), ("other", "self")):
            under = _argument(_without_factor(bound[other]), "reciprocal")
            if under is not None and isinstance(bound[one], fx.Node):
                return bound[one], under
    return None


def _without_factor(node: Any) -> Any:
    """Python's 1 / x is a reciprocal times 1."""
    bound = _bound(node, "mul")
    one = bound is not None and not isinstance(bound["other"], fx.Node) and bound["other"] == 1
    return bound["self"] if bound is not None and one else node


STEPS: dict[str, Callable[[Mapping[str, Any], float], tuple[float, float]]] = {  # of x: the factor and what is added
    "add": lambda bound, k: (1, k * bound.get("alpha", 1)),
    "sub": lambda bound, k: (1, -k * bound.get("alpha", 1)),
    "rsub": lambda bound, k: (-bound.get("alpha", 1), k),
    "mul": lambda bound, k: (k, 0),
    "div": lambda bound, k: (1 / k, 0) if k and not bound.get("rounding_mode") else (math.nan, 0),
    "neg": lambda bound, k: (-1, 0),
}


def _shifted(node: Any, factor: float, added: float) -> fx.Node | None:
    """x, where the node is factor * x + added, written with numbers in however many steps."""
    a, b = 1.0, 0.0
    while isinstance(node, fx.Node):
        if (a, b) != (1.0, 0.0) and math.isclose(a, factor) and math.isclose(b, added, abs_tol=1e-12):
            return node
        bound = _bound(node, *STEPS)
        number = 0 if bound is None else bound.get("other", 0)
        if bound is None or not isinstance(number, (int, float)) or not isinstance(bound["self"], fx.Node):
            return None
        name = op_name(node.target).removeprefix("aten::").partition(".")[0]
        scale, more = STEPS[name](bound, number)
        a, b, node = a * scale, b + a * more, bound["self"]
    return None
