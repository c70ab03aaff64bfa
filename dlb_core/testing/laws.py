"""What a row claims about its op, whatever the mode: that a map is linear, a copy a copy, a function one-to-one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dlb_core.kernel.kinds import (
    Bilinear,
    Choice,
    Compound,
    Elementwise,
    Linear,
    LinearView,
    Lookup,
    Move,
    Normalise,
    Product,
    Row,
    Softmax,
    Sum,
    SumView,
)
from dlb_core.testing.bound import Bound
from dlb_core.testing.case import Arguments
from dlb_core.testing.oracle import matrix, origins
from dlb_core.testing.trial import BrokenProperty, NotAsked, Trial, finite

Law = Callable[[Trial, Bound, Arguments], None]
PROBED = 24  # elements that are changed one by one


def law(trial: Trial) -> None:
    """What the row says its op is."""
    declared = declared_row(trial)
    arguments = trial.arguments(trial.tensors(1, "distinct" if isinstance(declared, Move) else "mixed"))
    bound = trial.bind(arguments)
    # attention is a linear map of its values, with gates
    found = LAWS.get(Linear if isinstance(bound.row, (Linear, Bilinear)) else type(declared))
    if found is None:
        raise NotAsked(f"a row of kind {declared.kind} claims nothing about its op")
    if not finite(bound.output):
        raise NotAsked("the op gives nothing finite here")
    if has_complex(arguments, bound.output):
        raise NotAsked("complex values")
    found(trial, bound, arguments)


def has_complex(*values: Any) -> bool:
    """Is there a complex tensor among these?"""
    return any(isinstance(v, Tensor) and v.is_complex() for v in pytree.tree_leaves(values))


def declared_row(trial: Trial) -> Row:
    """The row at the case's node before it is narrowed; what is written with other rows has none of its own."""
    if isinstance(trial.row, Compound):
        raise NotAsked("it is written with other ops, whose rows are checked")
    if not isinstance(trial.row, Choice):
        return trial.row
    return trial.bind(trial.arguments(trial.tensors(1))).plan.steps[0].declared


def put(arguments: Arguments, name: str, value: Tensor) -> Arguments:
    """The arguments with another tensor in one place (``tensors.0``: in a list)."""
    base, _, index = name.rpartition(".")
    if not base:
        return {**arguments, name: value}
    return {**arguments, base: [value if i == int(index) else old for i, old in enumerate(arguments[base])]}


def get(arguments: Arguments, name: str) -> Tensor:
    """One tensor among the arguments, by its operand name."""
    base, _, index = name.rpartition(".")
    tensor: Tensor = arguments[base][int(index)] if base else arguments[name]
    return tensor


def outputs(value: Any) -> Tensor:
    """All floating outputs as one flat vector in float64."""
    tensors = [v for v in pytree.tree_leaves(value) if isinstance(v, Tensor) and v.is_floating_point()]
    return torch.cat([v.double().flatten() for v in tensors])


def _one_to_one(trial: Trial, bound: Bound, arguments: Arguments) -> None:
    view = bound.view()
    name = view[0] if isinstance(view, tuple) else next(iter(bound.plan.steps[0].receivers))
    _reaches_its_own(trial, bound.output, arguments, name)


def _reaches_its_own(trial: Trial, y: Any, arguments: Arguments, name: str) -> None:
    """An element of an operand reaches no output but those it is broadcast to."""
    x = get(arguments, name)
    if not isinstance(y, Tensor):
        raise BrokenProperty("an elementwise op has one output, this one several: declare it as a move or with rule()")
    try:
        reaches = torch.arange(x.numel(), device=x.device).reshape(x.shape).expand(y.shape)
    except RuntimeError:
        raise BrokenProperty(
            f"the output [{_sizes(y)}] is no broadcast of {name} [{_sizes(x)}]: the op is not elementwise in it"
        ) from None
    for i in range(min(x.numel(), PROBED)):
        other = x.clone(memory_format=torch.contiguous_format)
        other.view(-1)[i] += 0.25
        changed = (trial.run(put(arguments, name, other)) != y) & (reaches != i)
        if bool(changed.any()):
            at = changed.nonzero()[0].tolist()
            raise BrokenProperty(f"element {i} of {name} changes the output at {at} too: the op is not one-to-one")


def _sizes(t: Tensor) -> str:
    return ", ".join(map(str, t.shape))


def _linear(trial: Trial, bound: Bound, arguments: Arguments) -> None:
    """`apply` plus the bias is the op; it is linear; `transpose` is its transpose."""
    views = bound.view()
    for view in views if isinstance(views, tuple) else (views,):
        _map(trial, view, bound.output)


def _map(trial: Trial, view: LinearView, output: Tensor) -> None:
    t, name = trial.tensors(20), view.name
    x, w = view.x, view.weight
    mapped = view.apply(x, w)
    whole = mapped if view.bias is None else mapped + view.bias
    scale = float(output.abs().max()) if output.numel() else 0.0
    trial.close(whole, output, f"`apply` of {name}, plus the bias, is not what the op gives", scale=scale)
    other = t.normal(*x.shape)
    trial.close(
        view.apply(x + 2 * other, w),
        mapped + 2 * view.apply(other, w),
        f"`apply` is not linear in {name}",
        scale=10 * scale,
    )
    if view.row.weight is not None and w is not None:  # computed weights may enter as they like
        more = t.normal(*w.shape)
        trial.close(
            view.apply(x, w + 2 * more),
            mapped + 2 * view.apply(x, more),
            "`apply` is not linear in the weight that it is given",
            scale=10 * scale,
        )
    if w is None and x.numel() <= 200:
        smallest = matrix(lambda v: view.apply(v.to(x), None).double(), x.shape).min() if x.numel() else 0.0
        if smallest < 0:
            raise BrokenProperty(
                f"`apply` has a negative weight ({float(smallest):.4g}); without weight= its weights must be >= 0"
            )
    s = t.normal(*mapped.shape)
    for weight, text in ((w, ""), *(((w.abs(), " with |weight|"),) if w is not None else ())):
        back = view.transpose(s, weight)
        if back.shape != x.shape:
            raise BrokenProperty(
                f"`transpose` gives shape [{_sizes(back)}], but {name} has [{_sizes(x)}]: sum broadcast dimensions back"
            )
        ahead, behind = float((s * view.apply(x, weight)).sum()), float((back * x).sum())
        size = float((s * view.apply(x, weight)).abs().sum() + (back * x).abs().sum())
        if abs(ahead - behind) > 1e-6 * size:
            raise BrokenProperty(
                f"`transpose` is not the transpose of `apply`{text}: "
                f"<s, apply({name})> = {ahead:.6g}, but <transpose(s), {name}> = {behind:.6g}"
            )


def _sum(trial: Trial, bound: Bound, arguments: Arguments) -> None:
    """The terms, with their factors, add up to the op."""
    row = bound.plan.steps[0].declared
    assert isinstance(row, Sum)
    terms = SumView(row, bound.call()).terms
    total: Any = sum(terms.values())
    trial.close(total, bound.output, f"the terms {', '.join(terms)} with their `factors` do not add up to the op")


def _product(trial: Trial, bound: Bound, arguments: Arguments) -> None:
    """f(a) g(b), pointwise: y(a, b) y(a', b') = y(a', b) y(a, b')."""
    row = bound.plan.steps[0].declared
    assert isinstance(row, Product)
    a, b = row.a, row.b
    if not all(isinstance(arguments.get(name), Tensor) for name in (a, b)):
        raise NotAsked("a factor is a number")
    for name in (a, b):
        _reaches_its_own(trial, bound.output, arguments, name)
    other_a = put(arguments, a, get(arguments, a) + 0.25)
    other_b, both = (put(given, b, get(arguments, b) + 0.25) for given in (arguments, other_a))
    trial.close(
        bound.output * trial.run(both),
        trial.run(other_a) * trial.run(other_b),
        f"the op is not the pointwise product of {a} (or a function of it) and {b}",
    )


def _copies(trial: Trial, bound: Bound, arguments: Arguments) -> None:
    """With every operand shifted by a quarter an output follows, if it is a copy, or stays, if it is a constant."""
    if trial.case.program is not None:
        raise NotAsked("other ops are around it")
    names = [n for n in bound.row.operands(bound.plan.steps[0].bound) if _is_floating(arguments, n)]
    shifted = arguments
    for name in names:
        shifted = put(shifted, name, get(arguments, name) + 0.25)
    before, after = outputs(bound.output), outputs(trial.run(shifted))
    if before.shape != after.shape:
        raise NotAsked("its shape depends on values")
    copied = torch.zeros_like(before, dtype=torch.bool)
    for name in names:
        copied |= origins(before, get(arguments, name)).any(1)
    follows = copied & torch.isclose(after - before, torch.full_like(before, 0.25), rtol=1e-4)
    wrong = ~follows & (after != before)
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        raise BrokenProperty(
            f"output {at} is {float(before[at]):.6g}, which is a copy of no element of {', '.join(names)}: "
            "the op is no move"
        )


def _is_floating(arguments: Arguments, name: str) -> bool:
    try:
        value: Any = get(arguments, name)
    except KeyError:
        return False
    return isinstance(value, Tensor) and value.is_floating_point()


def _lookup(trial: Trial, bound: Bound, arguments: Arguments) -> None:
    row, call = bound.plan.steps[0].declared, bound.call()
    assert isinstance(row, Lookup)
    rows = getattr(call, row.table)[getattr(call, row.ids)]
    trial.close(rows, bound.output, f"the op does not give the rows of {row.table} at {row.ids}")


def _softmax(trial: Trial, bound: Bound, arguments: Arguments) -> None:
    y, dim = bound.output, bound.call().dim
    if not y.numel():
        return
    if bool((y < 0).any()):
        raise BrokenProperty("a softmax gives weights >= 0, this op does not")
    sums = y.sum(dim)
    trial.close(sums, torch.ones_like(sums), f"the weights along dim {dim} do not sum to 1")


def _normalise(trial: Trial, bound: Bound, arguments: Arguments) -> None:
    """The shift is what the op gives more than it does without its bias."""
    row = bound.plan.steps[0].declared
    assert isinstance(row, Normalise)
    bias = arguments.get(row.bias) if row.bias else None
    if not isinstance(bias, Tensor) or row.shift is not None:
        raise NotAsked("no plain bias")
    shift = bound.output - trial.run({**arguments, str(row.bias): torch.zeros_like(bias)})
    lifted = bias.expand(shift.shape) if bias.dim() <= shift.dim() else bias
    trial.close(lifted, shift, f"the op does not add {row.bias} last, broadcast over its output: give shift=")


LAWS: dict[type[Row], Law] = {
    Elementwise: _one_to_one,
    Linear: _linear,
    Bilinear: _linear,
    Sum: _sum,
    Product: _product,
    Move: _copies,
    Lookup: _lookup,
    Softmax: _softmax,
    Normalise: _normalise,
}
