"""`through=`: which nodes, channels and heads relevance has to pass, from a caller's words to masks and cuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlb_core.inside import Heads, Inside, as_numbers, in_range
from dlb_core.kernel.plan import Plan
from dlb_core.kernel.through import Through, through
from dlb_core.routing import Routing


def conditions(
    wanted: Mapping[str, Any] | None,
    inside: Inside,
    plan: Plan,
    starts: Sequence[int],
    shapes: Sequence[Any],
    routing: Routing | None = None,
) -> Through | None:
    """What relevance from the slots `starts` has to pass; None for no condition.

    wanted: name of a node, module or input -> True or None (all of it), channels, or heads; see `DLBacktrace.explain`.
    routing: how the call was routed; a layer of experts takes the numbers of experts.
    Raises ValueError for what is not there, and for a node that no relevance reaches.
    """
    if wanted is None:
        return None
    if not isinstance(wanted, Mapping):
        raise ValueError(f"through={wanted!r}: give a dict, name -> channels, Heads(...), or True for the whole node")
    slots = plan.layout.slots
    names: dict[int, str] = {}
    masks: dict[int, Tensor] = {}
    for name, parts in wanted.items():
        if parts is None or parts is True:
            node = inside.find(name)
            names[slots[node.name]] = inside.label(node)
            continue
        if routing is not None and name in routing.layers:
            found = routing.masks(name, as_numbers(name, parts, "expert"), plan.dtype)
            names |= dict.fromkeys(found, name)
            masks |= {slot: masks[slot] * mask if slot in masks else mask for slot, mask in found.items()}
            continue
        node, axis, numbers = inside.parts(name, parts)
        slot = slots[node.name]
        names[slot] = inside.label(node)
        shape = shapes[slot]
        if not isinstance(shape, torch.Size):
            raise ValueError(f"through[{name!r}] has several outputs: name the node that takes one of them")
        what = "head" if isinstance(parts, Heads) or inside.axes.is_attention(node) else "channel"
        chosen = in_range(name, numbers, axis, shape, what)
        mask = axis.mask(chosen, shape, plan.dtype, plan.layout.program.device)
        masks[slot] = masks[slot] * mask if slot in masks else mask
    return through(plan, starts, names, masks) if names else None
