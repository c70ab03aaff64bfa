"""Where the values of a move came from, found by moving their numbers; the way back adds up by `index_add`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Call, Shares


def home(r: Tensor, places: Tensor, shape: Sequence[int]) -> Tensor:
    """Every r goes to the place its value was copied from; `index_add` gives the same bits on every run."""
    zeros = torch.zeros(torch.Size(shape).numel(), dtype=r.dtype, device=r.device)
    return zeros.index_add(0, places.reshape(-1), r.reshape(-1)).reshape(shape)


def constant_of(call: Call) -> str:
    """The account of a number that the op itself puts in."""
    return f"constant:{call.node.name}"


def by_places(moved: Callable[[Tensor, Call], Tensor], name: str = "self", *, counts: bool = True) -> Any:
    """The way back of `moved(x, call)`, which is asked where each element goes; counts: it takes integers."""

    def back(r: Tensor, call: Call) -> Tensor:
        shape = call.shape(name)
        dtype = torch.int64 if counts else torch.float64  # float64 is exact up to 2 ** 53
        places = torch.arange(shape.numel(), dtype=dtype, device=r.device).reshape(shape)
        return home(r, moved(places, call).long(), shape)

    return back


def by_numbers(*names: str, moved: Callable[..., Any], zeros: bool = False, counts: bool = True) -> Any:
    """The way back of `moved(call, *operands)` with several operands or several outputs, asked with numbers from 1.

    zeros: the op puts zeros between them, which are its own constant. One name that ends in ``*`` is a list.
    """

    def back(r: Any, call: Call) -> Shares:
        operands = list(_spread(names, call))
        shapes = [call.shape(name) for name in operands]
        sizes = [shape.numel() for shape in shapes]
        rs = r if isinstance(r, (tuple, list)) else [r]
        dtype = torch.int64 if counts else torch.float64
        numbers = torch.arange(1, sum(sizes) + 1, dtype=dtype, device=rs[0].device).split(sizes)
        given: Any = [part.reshape(shape) for part, shape in zip(numbers, shapes, strict=True)]
        places = moved(call, given) if names[0].endswith("*") else moved(call, *given)
        places = places if isinstance(places, (tuple, list)) else [places]
        flat = torch.cat([one.reshape(-1) for one in rs])
        came = home(flat, torch.cat([one.reshape(-1).long() for one in places]), [1 + sum(sizes)])
        parts = zip(operands, came[1:].split(sizes), shapes, strict=True)
        back_to = {name: part.reshape(shape) for name, part, shape in parts}
        return Shares(back_to, {constant_of(call): came[0]} if zeros else {})

    return back


def _spread(names: Sequence[str], call: Call) -> Sequence[str]:
    if not names[0].endswith("*"):
        return names
    name = names[0][:-1]
    return [f"{name}.{i}" for i in range(len(getattr(call, name)))]
