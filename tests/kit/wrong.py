"""Ops of a third party, and rules for them of which each breaks one property."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Row, Shares, bilinear, elementwise, linear, lookup, move, normalise, product, rule, sum_
from dlb_core.testing import Case, Tensors


@torch.library.custom_op("kit::curve", mutates_args=())
def curve(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


@torch.library.custom_op("kit::dense", mutates_args=())
def dense(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    y = x @ w
    return y if b is None else y + b


@torch.library.custom_op("kit::beside", mutates_args=())
def beside(x: Tensor, y: Tensor) -> Tensor:
    return 2 * x + y


@torch.library.custom_op("kit::half", mutates_args=())
def half(x: Tensor) -> Tensor:
    return x[..., : x.shape[-1] // 2].clone()


@torch.library.custom_op("kit::noise", mutates_args=())
def noise(x: Tensor) -> Tensor:
    return x + torch.rand_like(x)


@torch.library.custom_op("kit::rows", mutates_args=())
def rows(table: Tensor, ids: Tensor) -> Tensor:
    return table.flip(0)[ids]


@torch.library.custom_op("kit::norm", mutates_args=())
def norm(x: Tensor, b: Tensor) -> Tensor:
    return x / (x.abs().amax(-1, keepdim=True) + 1) + 2 * b


for op in (curve, noise):
    op.register_fake(torch.empty_like)
dense.register_fake(lambda x, w, b=None: x.new_empty(*x.shape[:-1], w.shape[-1]))
beside.register_fake(lambda x, y: torch.empty_like(x + y))
rows.register_fake(lambda table, ids: table.new_empty(*ids.shape, *table.shape[1:]))
norm.register_fake(lambda x, b: torch.empty_like(x))
half.register_fake(lambda x: x.new_empty(*x.shape[:-1], x.shape[-1] // 2))

KIT: Any = torch.ops.kit


def halved(t: Tensors) -> dict[str, Any]:
    return {"x": t(2, 6)}


HALF = Case(KIT.half.default, halved, ("x",), batch=("x",))


def of(op: str, **more: Any) -> Callable[[Callable[..., Shares]], Row]:
    """`rule`, in a word."""
    return rule(op, **more)


@of("kit::curve")
def adds_units(call: Any, r: Tensor, mode: Any) -> Shares:
    return Shares({"x": r * 1.001})


@of("kit::curve")
def fills_the_account(call: Any, r: Tensor, mode: Any) -> Shares:
    return Shares({"x": r / 2}, lost=(r / 2).sum() * 0.99)


@of("kit::curve", reads=("x",))
def changes_its_argument(call: Any, r: Tensor, mode: Any) -> Shares:
    call.x.mul_(1.5)
    return Shares({"x": r})


@of("kit::curve")
def changes_what_came_in(call: Any, r: Tensor, mode: Any) -> Shares:
    return Shares({"x": r.mul_(1.0)})


@of("kit::curve", reads=("x", "output"))
def divides_by_zero(call: Any, r: Tensor, mode: Any) -> Shares:
    return Shares({"x": r / call.output * call.output})


@of("kit::curve")
def mixes_the_batch(call: Any, r: Tensor, mode: Any) -> Shares:
    return Shares({"x": r.mean(0, keepdim=True).expand(r.shape) if r.dim() and len(r) else r})


@of("kit::curve")
def is_not_linear(call: Any, r: Tensor, mode: Any) -> Shares:
    weights = torch.softmax(r.flatten().abs(), 0).reshape(r.shape)
    return Shares({"x": r.sum() * weights} if r.numel() else {"x": r})


@of("kit::curve")
def looks_at_numbers(call: Any, r: Tensor, mode: Any) -> Shares:
    return Shares({"x": r * (1.0 if float(r.sum()) > -1e9 else 2.0)})


@of("kit::curve")
def counts_dimensions_from_the_seeds(call: Any, r: Tensor, mode: Any) -> Shares:
    return Shares({"x": torch.tensor(r.tolist(), dtype=r.dtype)})


@of("kit::curve")
def reads_what_it_did_not_name(call: Any, r: Tensor, mode: Any) -> Shares:
    positive = call.x > 0
    return Shares({"x": torch.where(positive, r, r)})


@of("kit::curve")
def wrong_shape(call: Any, r: Tensor, mode: Any) -> Shares:
    return Shares({"x": r.sum()})


@of("kit::curve")
def in_float32_only(call: Any, r: Tensor, mode: Any) -> Shares:
    return Shares({"x": r.double()})


@of("kit::curve")
def to_nobody(call: Any, r: Tensor, mode: Any) -> Shares:
    return Shares({"input": r})


@of("kit::curve")
def not_shares(call: Any, r: Tensor, mode: Any) -> Any:
    return {"x": r}


@of("kit::curve")
def prints(call: Any, r: Tensor, mode: Any) -> Shares:
    torch._dynamo.graph_break()
    return Shares({"x": r})


def _apply(x: Tensor, w: Tensor, call: Any) -> Tensor:
    return x @ w


def _back(s: Tensor, w: Tensor, call: Any) -> Tensor:
    return s @ w.mT


def wrong_linear(**wrong: Any) -> Row:
    right: dict[str, Any] = {"x": "x", "weight": "w", "bias": "b", "apply": _apply, "transpose": _back}
    return linear("kit::dense", **{**right, **wrong})


#: what is wrong -> the row, cases, the property that finds it, what the message has to say
WRONG: dict[str, tuple[Row, list[Case] | None, str, str]] = {
    "adds units": (adds_units, None, "conservation", "ConservationError: relevance is not conserved at node"),
    "fills an account": (fills_the_account, None, "conservation", "accounts: lost"),
    "changes its argument": (changes_its_argument, None, "untouched", "its argument 'x' in place: return new tensors"),
    "changes the relevance": (changes_what_came_in, None, "untouched", "the relevance that came in in place"),
    "divides by zero": (divides_by_zero, None, "zeros", "NaN or infinite"),
    "mixes the batch": (mixes_the_batch, None, "batch", "relevance of x of a batch member differs from what it gets"),
    "is not linear in the seed": (is_not_linear, None, "seed", "relevance of x is not linear in the seed: at "),
    "breaks under vmap": (looks_at_numbers, None, "vmap", "fails under torch.vmap over seeds"),
    "leaves the graph": (prints, None, "compile", "does not compile as one graph"),
    "forgets reads": (reads_what_it_did_not_name, None, "reads", "did not name in reads="),
    "gives the wrong shape": (wrong_shape, None, "conservation", "returned shape [] for operand 'x' of shape [2, 3]"),
    "gives the wrong dtype": (in_float32_only, None, "dtypes", "is torch.float64, but torch.float32 came in"),
    "gives to nobody": (to_nobody, None, "conservation", "gave relevance to 'input'; its operands are ['x']"),
    "returns no Shares": (not_shares, None, "conservation", "return Shares({operand: relevance})"),
    "a transpose that is none": (
        wrong_linear(transpose=lambda s, w, call: s @ (2 * w).mT),
        None,
        "law",
        "`transpose` is not the transpose of `apply`: <s, apply(x)> = ",
    ),
    "a transpose of signs": (
        wrong_linear(transpose=lambda s, w, call: s @ (w if bool((w < 0).any()) else 2 * w).mT),
        None,
        "law",
        "`transpose` is not the transpose of `apply` with |weight|",
    ),
    "a transpose of another shape": (
        wrong_linear(transpose=lambda s, w, call: (s @ w.mT).sum(0)),
        None,
        "law",
        "`transpose` gives shape [3], but x has [2, 3]: sum broadcast dimensions back",
    ),
    "an apply that is not the op": (
        wrong_linear(apply=lambda x, w, call: 2 * x @ w),
        None,
        "law",
        "is not what the op",
    ),
    "an apply with its own weight": (
        wrong_linear(apply=lambda x, w, call: x @ call.w, transpose=None),
        None,
        "law",
        "not linear in the weight that it is given",
    ),
    "a forgotten bias": (wrong_linear(bias=None), None, "law", "plus the bias, is not what the op gives"),
    "an operand that the op lacks": (
        wrong_linear(weight="weight"),
        None,
        "arguments",
        "the row names 'weight' as its weight; the op's arguments are x, w, b",
    ),
    "weights that are negative": (
        linear("kit::curve", x="x", apply=lambda x, w, call: -x),
        None,
        "law",
        "`apply` of x, plus the bias, is not what the op gives",
    ),
    "elementwise, but a map": (elementwise("kit::dense", x="x"), None, "law", "is not elementwise in it"),
    "elementwise, but reversed": (
        elementwise("aten::cumsum", x="self"),
        None,
        "law",
        "element 0 of self changes the output at [0, 1] too: the op is not one-to-one",
    ),
    "elementwise, but of another shape": (elementwise("kit::half"), [HALF], "law", "is no broadcast of x [2, 6]"),
    "a sum without its factor": (sum_("kit::beside", x=("x", "y")), None, "law", "do not add up to the op"),
    "a sum that is a product": (product("kit::beside", a="x", b="y"), None, "law", "not the pointwise product"),
    "bilinear, but a sum": (
        bilinear("kit::beside", a="x", b="y", apply=lambda a, b, call: a * b),
        None,
        "law",
        "`apply`",
    ),
    "a move that loses units": (
        move("kit::half", back=lambda r, call: torch.cat([r / 2, r * 0], -1)),
        [HALF],
        "conservation",
        "relevance is not conserved",
    ),
    "a move to the wrong place": (
        move("kit::half", back=lambda r, call: torch.cat([torch.zeros_like(r), r], -1)),
        [HALF],
        "places",
        "relevance of x, against the dense oracle: at ",
    ),
    "a move that is a curve": (
        move("kit::curve", back=lambda r, call: r),
        None,
        "places",
        "relevance of x, against the dense oracle",
    ),
    "a lookup of other rows": (
        lookup("kit::rows", ids="ids", table="table"),
        None,
        "law",
        "the rows of table at ids",
    ),
    "a norm of another bias": (normalise("kit::norm", x="x", bias="b"), None, "law", "does not add b last"),
    "an op that rolls dice": (elementwise("kit::noise"), None, "forward", "gives other values when it is run again"),
    "a forward of its own that differs": (
        elementwise("kit::curve", forward=lambda x: x * 1.01),
        None,
        "forward",
        "forward= does not give what the op gives",
    ),
}
