"""What the graph says about signs: enough to see that an exponential is a decay, a number in (0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import fx

from dlb_core.rules import Linear, Move, Product, Registry, Row, bound_arguments, fake_tensors, op_name

Signs = frozenset[int]  # +1: nowhere negative, -1: nowhere positive; a zero is both
UNKNOWN: Signs = frozenset()
UP, DOWN, ZERO = frozenset({1}), frozenset({-1}), frozenset({1, -1})

ABOVE = {
    *("exp", "exp2", "softplus", "sigmoid", "hardsigmoid", "softmax", "_softmax", "relu", "relu6"),
    *("abs", "square", "sqrt", "rsqrt", "norm", "linalg_vector_norm", "var", "std", "ones", "ones_like"),
}
BELOW = {"log_sigmoid", "log_softmax"}
NOTHING = {"zeros", "zeros_like"}
DECAYS = {"exp", "exp2"}


def decays(nodes: Iterable[fx.Node], registry: Registry) -> set[fx.Node]:
    """The exponentials of what is nowhere positive: what they multiply fades, as under a sigmoid."""
    signs: dict[fx.Node, Signs] = {}
    found = set()
    for node in nodes:
        if node.op == "call_function" and fake_tensors(node):
            signs[node] = _signs(node, registry.row_at(node), signs)
            exponent = node.args[0] if node.args else None
            if _name(node) in DECAYS and isinstance(exponent, fx.Node) and -1 in signs.get(exponent, UNKNOWN):
                found.add(node)
    return found


def _name(node: fx.Node) -> str:
    return op_name(node.target).removeprefix("aten::").partition(".")[0]


def _signs(node: fx.Node, row: Row | None, signs: Mapping[fx.Node, Signs]) -> Signs:
    name, bound = _name(node), bound_arguments(node)

    def of(value: Any) -> Signs:
        if isinstance(value, fx.Node):
            return signs.get(value, UNKNOWN)
        if isinstance(value, (int, float)):
            return ZERO if value == 0 else UP if value > 0 else DOWN if value < 0 else UNKNOWN
        return UNKNOWN

    if name in ABOVE:
        return UP
    if name in BELOW:
        return DOWN
    if name in NOTHING:
        return ZERO
    if name in ALGEBRA:
        return ALGEBRA[name](bound, of) | _falling(node, name, bound, signs)
    if isinstance(row, Product):
        return _times(of(bound[row.a]), of(bound[row.b]))
    if isinstance(row, Linear) and row.weight is None and row.bias is None:
        return of(bound[row.x])  # fixed weights are not negative
    if isinstance(row, Move):
        fill = bound.get("value")
        return _all([*map(of, _spread(bound.get(n) for n in row.carriers)), of(0 if fill is None else fill)])
    return UNKNOWN


def _spread(values: Iterable[Any]) -> Iterator[Any]:
    """The values, those of lists one by one; what is left out takes no part."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from value
        elif value is not None:
            yield value


def _all(parts: Iterable[Signs]) -> Signs:
    return frozenset.intersection(*parts)


def _times(a: Signs, b: Signs) -> Signs:
    return frozenset(x * y for x in a for y in b) if ZERO not in (a, b) else ZERO


def _turned(signs: Signs) -> Signs:
    return frozenset(-s for s in signs)


Of = Callable[[Any], Signs]


def _sum(bound: Mapping[str, Any], of: Of) -> Signs:
    return _all([of(bound["self"]), _times(of(bound["other"]), of(bound.get("alpha", 1)))])


def _difference(bound: Mapping[str, Any], of: Of) -> Signs:
    return _all([of(bound["self"]), _turned(_times(of(bound["other"]), of(bound.get("alpha", 1))))])


def _clamp(bound: Mapping[str, Any], of: Of) -> Signs:
    """Bounds decide, else clamping at numbers of either side keeps what was known only where it pulls to zero."""
    low, high = bound.get("min"), bound.get("max")
    above = isinstance(low, (int, float)) and low >= 0
    below = isinstance(high, (int, float)) and high <= 0
    kept = of(bound["self"])
    if low is not None and not (isinstance(low, (int, float)) and low <= 0):
        kept -= DOWN
    if high is not None and not (isinstance(high, (int, float)) and high >= 0):
        kept -= UP
    return kept | (UP if above else UNKNOWN) | (DOWN if below else UNKNOWN)


def _power(bound: Mapping[str, Any], of: Of) -> Signs:
    exponent = bound["exponent"]
    even = isinstance(exponent, (int, float)) and exponent % 2 == 0
    return UP if even else of(bound["self"]) & UP


ALGEBRA: dict[str, Callable[[Mapping[str, Any], Of], Signs]] = {
    "neg": lambda bound, of: _turned(of(bound["self"])),
    "add": _sum,
    "sub": _difference,
    "rsub": lambda bound, of: _turned(_difference(bound, of)),
    "div": lambda bound, of: _times(of(bound["self"]), of(bound["other"])),
    "reciprocal": lambda bound, of: of(bound["self"]),
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp,
    "pow": _power,
}


def _falling(node: fx.Node, name: str, bound: Mapping[str, Any], signs: Mapping[fx.Node, Signs]) -> Signs:
    """What its own maximum is taken off is nowhere positive. A running sum of what is nowhere positive falls: its last,
    less any of it, is nowhere positive.
    """
    last, run = bound.get("self"), bound.get("other")
    if name != "sub" or not isinstance(last, fx.Node) or not isinstance(run, fx.Node) or bound.get("alpha", 1) != 1:
        return UNKNOWN
    if run.op != "call_function":
        return UNKNOWN
    if _maximum_of(run) is last:
        return DOWN
    if last.op != "call_function" or (_name(run), _name(last)) != ("cumsum", "slice"):
        return UNKNOWN
    rank = fake_tensors(run)[0].dim()
    summed, cut = bound_arguments(run), bound_arguments(last)
    along = cut["self"] is run and cut["dim"] % rank == summed["dim"] % rank
    return signs.get(summed["self"], UNKNOWN) & DOWN if along and cut["start"] == -1 else UNKNOWN


def _maximum_of(node: fx.Node) -> Any:
    """What a node is the maximum of, over some of its dimensions, which are kept; over all of them they need not be."""
    if op_name(node.target).endswith("getitem") and node.args[1] == 0 and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    if node.op != "call_function" or _name(node) not in ("amax", "max"):
        return None
    bound = bound_arguments(node)
    return bound["self"] if bound.get("keepdim") or "dim" not in bound else None
