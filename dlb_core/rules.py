"""All that a pack's author imports: rows by kind, formulas, modes, `Shares`, and the hook marker.

A row says what an op is; a mode says how relevance goes through its kind. ``RULES = [elementwise("ns::op")]``
with ``@hookimpl def dlb_rules(): return RULES`` and an entry point in the group ``dlb.packs`` is a pack.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from dlb_core.experts import SITES, ExpertRows, ExpertSite
from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.composites import Composite, Part, part
from dlb_core.kernel.facts import Facts, facts, operand_nodes
from dlb_core.kernel.kinds import (
    Accumulate,
    AccumulateView,
    Attention,
    AttentionView,
    Bilinear,
    Choice,
    Compound,
    Constant,
    Elementwise,
    Linear,
    LinearView,
    Lookup,
    Move,
    Normalise,
    NormaliseView,
    OpRule,
    PairCall,
    Pairs,
    Product,
    Row,
    Share,
    Softmax,
    SoftmaxView,
    Sum,
    SumView,
    is_complex,
    sum_to,
    vjp,
)
from dlb_core.kernel.layers import layer_op
from dlb_core.kernel.modes import BoundMode, Formula, Mode, formula
from dlb_core.kernel.ops import bound_arguments, fake_tensors, module_chain, module_path, op_name
from dlb_core.kernel.packs import hookimpl
from dlb_core.kernel.program import Parameter, Program
from dlb_core.kernel.registry import GraphPass, Registry
from dlb_core.kernel.unrolled import Cells, Unrolled
from dlb_core.kernel.written import write

__all__ = [
    "SITES",
    "Accumulate",
    "AccumulateView",
    "Attention",
    "AttentionView",
    "Bilinear",
    "BoundMode",
    "Call",
    "Cells",
    "Choice",
    "Composite",
    "Compound",
    "Constant",
    "Elementwise",
    "ExpertRows",
    "ExpertSite",
    "Facts",
    "Formula",
    "GraphPass",
    "Linear",
    "LinearView",
    "Lookup",
    "Mode",
    "Move",
    "Normalise",
    "NormaliseView",
    "OpRule",
    "PairCall",
    "Pairs",
    "Parameter",
    "Part",
    "Product",
    "Program",
    "Registry",
    "Row",
    "Share",
    "Shares",
    "Softmax",
    "SoftmaxView",
    "Sum",
    "SumView",
    "Unrolled",
    "accumulate",
    "attention",
    "bilinear",
    "bound_arguments",
    "choice",
    "compound",
    "constant",
    "elementwise",
    "facts",
    "fake_tensors",
    "formula",
    "hookimpl",
    "is_complex",
    "layer_rule",
    "linear",
    "lookup",
    "module_chain",
    "module_path",
    "move",
    "normalise",
    "op_name",
    "operand_nodes",
    "pairs",
    "part",
    "product",
    "rule",
    "share",
    "softmax",
    "sum_",
    "sum_to",
    "unrolled",
    "vjp",
    "write",
]


Names = str | tuple[str, ...]


def _line() -> str:
    """Where the pack's author wrote the row, for `dlb ops`."""
    frame = sys._getframe(2)
    return f"{frame.f_globals.get('__name__', '?')}:{frame.f_lineno}"


def _tuple(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _tags(common: dict[str, Any]) -> dict[str, Any]:
    return {**common, "tags": frozenset(common.get("tags", ()))}


def constant(op: str, **common: Any) -> Constant:
    """An op that carries no relevance and ends activity: comparisons, shapes, arg-max."""
    return Constant(op=op, source=_line(), **_tags(common))


def elementwise(op: str, x: Names = (), **common: Any) -> Elementwise:
    """A one-to-one op: R_x = R_y. With several operands the first that may receive takes all (a / b: a)."""
    return Elementwise(op=op, x=_tuple(x), source=_line(), **_tags(common))


def product(op: str, a: str, b: str, **common: Any) -> Product:
    """A pointwise product: identity by a constant, all to the signal beside a gate, else half to each."""
    return Product(op=op, a=a, b=b, source=_line(), **_tags(common))


def sum_(op: str, x: Names, factors: Callable[[Call], Mapping[str, Any]] | None = None, **common: Any) -> Sum:
    """y = sum_k f_k x_k with broadcasting; `factors(call)` gives the f_k that are not 1."""
    return Sum(op=op, x=_tuple(x), factors=factors, source=_line(), **_tags(common))


def linear(
    op: str,
    *,
    x: str,
    apply: Callable[[Any, Any, Call], Tensor],
    weight: str | None = None,
    weights: Callable[[Call], Tensor] | None = None,
    bias: str | None = None,
    transpose: Callable[[Tensor, Any, Call], Tensor] | None = None,
    **common: Any,
) -> Linear:
    """y = A(x; weight) + bias. `apply(x, w, call)` leaves the bias out and takes any weight; `transpose(s, w, call)`
    goes back (default: the vector-Jacobian product of `apply`). Without `weight` the fixed weights are >= 0, or
    `weights(call)` computes them.
    """
    fields: dict[str, Any] = {"weight": weight, "weights": weights, "bias": bias, "transpose": transpose}
    return Linear(op=op, x=x, apply=apply, source=_line(), **fields, **_tags(common))


def accumulate(
    op: str,
    *,
    x: Names,
    apply: Callable[[Mapping[str, Tensor], Call], Tensor],
    factors: Callable[[Call], Mapping[str, Any]] | None = None,
    **common: Any,
) -> Accumulate:
    """What flows from two operands into one sum: `apply(parts, call)` puts together what tensors for the operands, by
    name, add up to, with weights that are not negative; `factors(call)` gives what the op multiplies them by.
    """
    return Accumulate(op=op, x=_tuple(x), apply=apply, factors=factors, source=_line(), **_tags(common))


def pairs(inner: Linear | Bilinear) -> Pairs:
    """A linear map that mixes real and imaginary parts: `inner` sees complex tensors as real ones with a last
    dimension of two, and its `call` says which are complex (`call.is_complex(name)`).
    """
    return inner.become(Pairs, inner=inner)


def choice(op: str, x: Names, choose: Callable[[Mapping[str, Any]], Row], **common: Any) -> Choice:
    """An op whose arguments say what it is: `choose(arguments)` gives its row, which names its operands.

    x: all operands that any of the rows has.
    """
    return Choice(op=op, x=_tuple(x), choose=choose, source=_line(), **_tags(common))


def bilinear(
    op: str,
    *,
    a: str,
    b: str,
    apply: Callable[[Any, Any, Call], Tensor],
    transpose_a: Callable[[Tensor, Any, Call], Tensor] | None = None,
    transpose_b: Callable[[Tensor, Any, Call], Tensor] | None = None,
    **common: Any,
) -> Bilinear:
    """y = A(a, b), linear in each: `transpose_a(s, b, call)`, `transpose_b(s, a, call)` (default: by vjp)."""
    fields: dict[str, Any] = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    return Bilinear(op=op, a=a, b=b, apply=apply, source=_line(), **fields, **_tags(common))


def normalise(
    op: str,
    *,
    x: str,
    weight: str | None = None,
    bias: str | None = None,
    shift: Callable[[Call], Tensor | None] | None = None,
    scale: Callable[[Call], Tensor] | None = None,
    **common: Any,
) -> Normalise:
    """A normaliser: identity to x, its statistics are constants, `shift(call)` (default: the bias) an addend, and
    `scale(call)` what x is multiplied by.
    """
    fields: dict[str, Any] = {"weight": weight, "bias": bias, "shift": shift, "scale": scale}
    return Normalise(op=op, x=x, source=_line(), **fields, **_tags(common))


def softmax(op: str, *, x: str, **common: Any) -> Softmax:
    """A softmax over the argument `dim`; what it weights treats it as a gate."""
    return Softmax(op=op, x=x, source=_line(), **_tags({**common, "tags": {"gate", *common.get("tags", ())}}))


def attention(
    op: str,
    *,
    q: str,
    k: str,
    v: str,
    apply: Callable[[Any, Any, Any, Any, Call], Tensor],
    mask: str | None = None,
    scale: Callable[[Call], float | None] | None = None,
    **common: Any,
) -> Attention:
    """softmax(scale * q k^T + mask) v; `apply(q, k, v, mask, call)` is the op on other operands, `scale(call)` a
    number, or None for one over the root of q's width.
    """
    fields: dict[str, Any] = {"mask": mask, "scale": scale, "apply": apply}
    return Attention(op=op, q=q, k=k, v=v, source=_line(), **fields, **_tags(common))


def move(op: str, x: Names = (), back: Callable[[Any, Call], Any] | None = None, **common: Any) -> Move:
    """Every output element is a copy of one input element or a constant; `back(r, call)` returns relevance per
    operand, or `Shares` where constants take part (default: the op's vector-Jacobian product).
    """
    return Move(op=op, x=_tuple(x), back=back, source=_line(), **_tags(common))


def share(
    op: str,
    *,
    x: str,
    weigh: Callable[[Tensor, Call], Tensor] | None = None,
    gather: Callable[[Tensor, Call], Tensor] | None = None,
    back: Callable[[Tensor, Call], Tensor] | None = None,
    **common: Any,
) -> Share:
    """A reduction that is no sum: R_x = w / gather(w) R_y, `weigh(x, call)` >= 0 and `gather(w, call)` the plain sum
    over what the op reduces, in its output's shape; equal shares where all w are zero. Or `back(r, call)` gives R_x.
    """
    return Share(op=op, x=x, weigh=weigh, gather=gather, back=back, source=_line(), **_tags(common))


def compound(op: str, *, written: Callable[..., Any], **common: Any) -> Compound:
    """An op written with others: `written` takes its arguments by name (those it needs) in ordinary torch code."""
    return Compound(op=op, written=written, source=_line(), **_tags(common))


def unrolled(
    op: str,
    *,
    x: Names,
    cell: Callable[..., Any],
    example: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    activities: Callable[[frozenset[str]], Sequence[frozenset[str]]],
    back: Callable[[Any, Call, Cells], Shares],
    **common: Any,
) -> Unrolled:
    """An op that repeats a cell over data-dependent many steps: `back(r, call, cells)` walks them; see `Unrolled`."""
    fields: dict[str, Any] = {"example": example, "activities": activities, "back": back}
    return Unrolled(op=op, x=_tuple(x), cell=cell, source=_line(), **fields, **_tags(common))


def lookup(op: str, *, ids: str, table: str, **common: Any) -> Lookup:
    """Rows of a table by integer ids: relevance sums over the row onto the id."""
    return Lookup(op=op, ids=ids, table=table, source=_line(), **_tags(common))


def rule(
    op: str,
    *,
    reads: tuple[str, ...] = (),
    operands: Iterable[str] = (),
    modes: tuple[str, ...] | None = None,
    **common: Any,
) -> Callable[[Callable[[Call, Any, BoundMode], Shares]], OpRule]:
    """Decorator: a formula `(call, r, mode) -> Shares` of one op's own, for every mode or those in `modes`.

    reads: the arguments whose values it looks at, ``output`` for the node's own. operands: the arguments that can
    receive (default: the first tensor argument).
    """
    source = _line()

    def make(run: Callable[[Call, Any, BoundMode], Shares]) -> OpRule:
        own = Formula(run, reads)
        return OpRule(op=op, x=tuple(operands), own=own, modes=modes, source=source, **_tags(common))

    return make


def layer_rule(
    cls: type, *, reads: tuple[str, ...] = (), modes: tuple[str, ...] | None = None, **common: Any
) -> Callable[[Callable[[Call, Any, BoundMode], Shares]], OpRule]:
    """Decorator: a formula `(call, r, mode) -> Shares` for a module class, whose nodes become one.

    The operands are what flows into the module: ``input``, then ``input_1``, ... in the order of first use; its
    parameters come by their names in it, with ``_`` for dots. Return such rows from the hook ``dlb_layer_rules``.
    """
    source = _line()

    def make(run: Callable[[Call, Any, BoundMode], Shares]) -> OpRule:
        return OpRule(op=layer_op(cls), x=(), own=Formula(run, reads), modes=modes, source=source, **_tags(common))

    return make
