"""Two maps from their sum and their difference: for and against, each with books of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from dlb_core.kernel.ledger import Ledger, NodeEntry

Half = Callable[[Any, Any], Any]


def half(sign: int) -> Half:
    """(sum + difference) / 2 for the map of what speaks for a target (1), with a minus of what speaks against (-1)."""
    return lambda total, difference: (total + sign * difference) / 2


def half_tensors(total: Any, difference: Any, sign: int) -> Any:
    """One map of a node; a node with several outputs has a tuple, with None where nothing was asked."""
    if isinstance(total, Tensor):
        return half(sign)(total, difference)
    pairs = zip(total, difference, strict=True)
    return tuple(None if a is None or b is None else half(sign)(a, b) for a, b in pairs)


def half_ledger(total: Ledger, difference: Ledger, sign: int) -> Ledger:
    """The books of one map: what left it for the other, or came from there, is the account `crossed`."""
    mix = half(sign)
    inputs = _mixed(total.inputs, difference.inputs, mix)
    seed = mix(total.seed, difference.seed)
    return Ledger(
        seed=seed,
        inputs=inputs,
        accounts=_mixed(total.accounts, difference.accounts, mix),
        scale=total.scale,
        input_scale=math.fsum(map(abs, inputs.values())),  # neither map is negative anywhere
        seed_scale=abs(seed),
        tolerance=max(total.tolerance, difference.tolerance),
        by_node={name: _half_entry(entry, difference.by_node[name], mix) for name, entry in total.by_node.items()},
        seeded=_mixed(total.seeded, difference.seeded, mix),
    )


def _half_entry(total: NodeEntry, difference: NodeEntry, mix: Half) -> NodeEntry:
    return NodeEntry(
        name=total.name,
        op=total.op,
        modules=total.modules,
        rule=total.rule,
        pack=total.pack,
        into=mix(total.into, difference.into),
        out=mix(total.out, difference.out),
        accounts=_mixed(total.accounts, difference.accounts, mix),
        scale=total.scale,
        tolerance=max(total.tolerance, difference.tolerance),
        edges=_mixed(total.edges, difference.edges, mix),
        shape=total.shape,
    )


def _mixed(total: Mapping[str, float], difference: Mapping[str, float], mix: Half) -> dict[str, float]:
    names = dict.fromkeys((*total, *difference))
    return {name: mix(total.get(name, 0.0), difference.get(name, 0.0)) for name in names}
