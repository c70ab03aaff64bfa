"""Two ops for routed experts: every row through the linear layer of its own expert, and its gradient in the weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IDS = (torch.int64, torch.int32)


@torch.library.custom_op(
    "dlb_moe::expert_linear",
    mutates_args=(),
    schema="(Tensor x, Tensor index, Tensor weight, Tensor? bias=None, bool transposed=False) -> Tensor",
)
def expert_linear(
    x: Tensor, index: Tensor, weight: Tensor, bias: Tensor | None = None, transposed: bool = False
) -> Tensor:
    """y[r] = weight[index[r]] x[r] + bias[index[r]].

    x: [*rows, I]; an expanded x is not copied out before its rows are gathered. index: [*rows], integers from 0 to
    E - 1. weight: [E, O, I], or [E, I, O] if transposed. bias: [E, O]. Returns [*rows, O]. Raises RuntimeError where
    sizes or dtypes do not fit, IndexError where an expert does not exist.
    """
    _check(x, index, weight, bias, transposed)
    maps = weight if transposed else weight.mT
    if not index.numel():
        return x.new_empty(*index.shape, maps.shape[-1])
    order, groups = _by_expert(index, maps.shape[0])
    rows = _gathered(x, order)
    if _has_kernel(rows, maps):
        made = F.grouped_mm(rows, maps, offs=_ends(groups, maps))
    else:
        made = rows.new_empty(rows.shape[0], maps.shape[-1])
        sizes = [*groups.values()]
        for expert, part, out in zip(groups, rows.split(sizes), made.split(sizes), strict=True):
            torch.mm(part, maps.select(0, expert), out=out)
    places = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=order.device))
    y = made.index_select(0, places)
    if bias is not None:
        y += bias.index_select(0, index.reshape(-1))
    return y.reshape(*index.shape, maps.shape[-1])


@torch.library.custom_op(
    "dlb_moe::expert_outer",
    mutates_args=(),
    schema="(Tensor a, Tensor b, Tensor index, SymInt experts) -> Tensor",
)
def expert_outer(a: Tensor, b: Tensor, index: Tensor, experts: int) -> Tensor:
    """y[e] = the sum of a[r]^T b[r] over the rows r of expert e: what `expert_linear` is transposed in its weight.

    a: [*rows, A]. b: [*rows, B]. index: [*rows]. Returns [experts, A, B], zeros for experts nobody chose. Raises as
    `expert_linear` does.
    """
    _check_rows("a", a, index)
    _check_rows("b", b, index)
    out = a.new_zeros(experts, a.shape[-1], b.shape[-1])
    if index.numel():
        order, groups = _by_expert(index, experts)
        sizes = [*groups.values()]
        left, right = (_gathered(t, order).split(sizes) for t in (a, b))
        for expert, mine, theirs in zip(groups, left, right, strict=True):
            torch.mm(mine.mT, theirs, out=out[expert])
    return out


def _by_expert(index: Tensor, experts: int) -> tuple[Tensor, dict[int, int]]:
    """The rows sorted by expert, and how many each expert that has any has: all that leaves the device, at once."""
    ids, order = index.reshape(-1).sort(stable=True)
    ends = torch.searchsorted(ids, torch.arange(experts, dtype=ids.dtype, device=ids.device), right=True)
    first, last, *ends_of = torch.cat([ids[:1], ids[-1:], ends]).tolist()
    if first < 0 or last >= experts:
        raise IndexError(
            f"expert_linear: index names expert {first if first < 0 else last}, but weight has {experts}, 0 to "
            f"{experts - 1}; ids that stand for experts of another device are not supported"
        )
    sizes = (end - start for start, end in itertools.pairwise([0, *ends_of]))
    return order, {expert: size for expert, size in enumerate(sizes) if size}


def _ends(groups: dict[int, int], maps: Tensor) -> Tensor:
    """Where the rows of each expert end."""
    sizes = (groups.get(expert, 0) for expert in range(maps.shape[0]))
    return torch.tensor([*itertools.accumulate(sizes)], dtype=torch.int32, device=maps.device)


def _gathered(x: Tensor, order: Tensor) -> Tensor:
    """The rows of x in this order. Of an expanded x only what there is in memory is laid out."""
    lead = x.shape[:-1]
    copies = [d for d in range(len(lead)) if x.stride(d) == 0 and lead[d] > 1]
    if not copies:
        return x.reshape(-1, x.shape[-1]).index_select(0, order)
    for dim in copies:
        x = x.narrow(dim, 0, 1)
    held = x.shape[:-1]
    places = torch.arange(held.numel(), device=x.device).reshape(held).expand(lead).reshape(-1)
    return x.reshape(-1, x.shape[-1]).index_select(0, places.index_select(0, order))


def _has_kernel(rows: Tensor, maps: Tensor) -> bool:
    """Does torch multiply such groups in one go? On the CPU its kernel is a loop as ours, but takes fewer dtypes."""
    if rows.device.type != "cuda" or rows.dtype is not torch.bfloat16:
        return False
    if torch.cuda.get_device_capability(rows.device) < (8, 0):
        return False
    whole = 16 // rows.element_size()  # it asks for strides of whole 16 bytes, one of the last two of them 1
    strides = (rows.stride(0), maps.stride(0), max(maps.stride()[1:]))
    return 1 in maps.stride()[1:] and all(stride % whole == 0 for stride in strides)


def _check(x: Tensor, index: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> None:
    """That sizes and dtypes fit; sizes may be symbols."""
    wanted = "experts, inputs, outputs" if transposed else "experts, outputs, inputs"
    _must(weight.dim() == 3, lambda: f"weight has shape {list(weight.shape)}: expected [{wanted}]")
    _check_rows("x", x, index)
    wide, high = (1, 2) if transposed else (2, 1)
    _must(
        x.shape[-1] == weight.shape[wide],
        lambda: f"x has {x.shape[-1]} features: weight {list(weight.shape)}, [{wanted}], takes {weight.shape[wide]}",
    )
    _must(x.dtype == weight.dtype, lambda: f"x is {x.dtype} and weight {weight.dtype}: expected one dtype")
    if bias is not None:
        of_each = torch.Size((weight.shape[0], weight.shape[high]))
        _must(bias.shape == of_each, lambda: f"bias has shape {list(bias.shape)}: expected {list(of_each)}")
        _must(bias.dtype == x.dtype, lambda: f"x is {x.dtype} and bias {bias.dtype}: expected one dtype")


def _check_rows(name: str, rows: Tensor, index: Tensor) -> None:
    _must(index.dtype in IDS, lambda: f"index is {index.dtype}: expected int64 or int32, the ids of the rows' experts")
    _must(
        rows.dim() == index.dim() + 1 and rows.shape[:-1] == index.shape,
        lambda: f"{name} has shape {list(rows.shape)}, index {list(index.shape)}: expected one expert for every row",
    )


def _must(holds: Any, why: Callable[[], str]) -> None:
    torch._check(holds, lambda: f"expert_linear: {why()}")


# --- shapes, gradients, batches -------------------------------------------------------------------------------------


@expert_linear.register_fake
def _(x: Tensor, index: Tensor, weight: Tensor, bias: Tensor | None = None, transposed: bool = False) -> Tensor:
    _check(x, index, weight, bias, transposed)
    return x.new_empty(*index.shape, weight.shape[-1 if transposed else -2])


@expert_outer.register_fake
def _(a: Tensor, b: Tensor, index: Tensor, experts: int) -> Tensor:
    _check_rows("a", a, index)
    _check_rows("b", b, index)
    return a.new_empty(experts, a.shape[-1], b.shape[-1])


def _keep_linear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, index, weight, _, ctx.transposed = inputs
    ctx.save_for_backward(x if weight.requires_grad else None, index, weight)
    ctx.experts = weight.shape[0]


def _linear_back(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None, None]:
    x, index, weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad  # an argument left out has no place there
    gx = expert_linear(grad, index, weight, None, not ctx.transposed) if wanted[0] else None
    gw = gb = None
    if wanted[2]:
        gw = expert_outer(*((x, grad) if ctx.transposed else (grad, x)), index, ctx.experts)
    if len(wanted) > 3 and wanted[3]:
        rows = grad.reshape(-1, grad.shape[-1])
        gb = rows.new_zeros(ctx.experts, rows.shape[-1]).index_add(0, index.reshape(-1), rows)
    return gx, None, gw, gb, None


def _keep_outer(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, b, index, _ = inputs
    ctx.save_for_backward(a, b, index)


def _outer_back(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    a, b, index = ctx.saved_tensors
    to_a, to_b, *_ = ctx.needs_input_grad
    ga = expert_linear(b, index, grad, None, False) if to_a else None
    gb = expert_linear(a, index, grad, None, True) if to_b else None
    return ga, gb, None, None


expert_linear.register_autograd(_linear_back, setup_context=_keep_linear)
expert_outer.register_autograd(_outer_back, setup_context=_keep_outer)


@expert_linear.register_vmap
def _(
    info: Any, dims: Any, x: Tensor, index: Tensor, weight: Tensor, bias: Tensor | None = None, transposed: bool = False
) -> tuple[Tensor, int]:
    """The members' rows are more rows; where weights differ from member to member, their experts are more experts."""
    size = info.batch_size
    x, index = _members(x, dims[0], size), _members(index, dims[1], size)
    if dims[2] is not None or (bias is not None and dims[3] is not None):
        index = _renumbered(index, weight.shape[-3] if dims[2] is None else weight.movedim(dims[2], 0).shape[1])
        weight = _members(weight, dims[2], size).flatten(0, 1)
        bias = None if bias is None else _members(bias, dims[3], size).flatten(0, 1)
    return expert_linear(x, index, weight, bias, transposed), 0


@expert_outer.register_vmap
def _(info: Any, dims: Any, a: Tensor, b: Tensor, index: Tensor, experts: int) -> tuple[Tensor, int]:
    """The members' experts are more experts."""
    size = info.batch_size
    a, b, index = (_members(t, dim, size) for t, dim in zip((a, b, index), dims, strict=False))
    out = expert_outer(a, b, _renumbered(index, experts), size * experts)
    return out.unflatten(0, (size, experts)), 0


def _members(t: Tensor, dim: int | None, size: int) -> Tensor:
    """The members of a batch along dimension 0."""
    return t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)


def _renumbered(index: Tensor, experts: int) -> Tensor:
    """Ids of all members' experts in one row; one that does not exist must not become another member's."""
    shift = experts * torch.arange(index.shape[0], device=index.device).reshape(-1, *[1] * (index.dim() - 1))
    return torch.where((index >= 0) & (index < experts), index + shift, -1)
