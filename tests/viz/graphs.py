"""What the tests of graphs share: a small model with branches, and books that are made up."""

from __future__ import annotations

import random
from functools import cache

import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, Ledger
from dlb_core.kernel.ledger import NodeEntry


class Block(nn.Module):
    """A residual branch around which the values are laid out anew, and one module that holds nothing but another."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Sequential(nn.Linear(6, 6)))
        self.branch = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.branch(x.transpose(0, 1).contiguous().transpose(0, 1))
        return self.inner(y)


class Two(nn.Module):
    """Two inputs, blocks in a list, a flatten, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.flat, self.head = nn.Flatten(), nn.Linear(12, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        for block in self.blocks:
            left = block(left)
        return self.head(self.flat(torch.stack([left, right], dim=1)))


def example(rows: int = 2) -> tuple[Tensor, Tensor]:
    """Inputs of `Two`."""
    made = torch.Generator().manual_seed(1)
    return torch.randn(rows, 6, generator=made), torch.randn(rows, 6, generator=made)


@cache
def model() -> Two:
    """The same weights at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Two().eval()


@cache
def evaluated() -> DLBacktrace:
    """`Two`, evaluated in a signed mode: nobody evaluates it again."""
    dlb = DLBacktrace(model(), example(), relevance_dtype=torch.float64)
    dlb.predict(*example())
    dlb.evaluation("epsilon")
    return dlb


def entry(name: str, edges: dict[str, float], rule: str = "linear", **about: object) -> NodeEntry:
    """A node that hands on what its edges say and books the rest."""
    told = {"op": "aten::linear.default", "modules": (), "pack": "", "into": 1.0, "accounts": {}, "scale": 2.0, **about}
    return NodeEntry(name=name, rule=rule, out=sum(edges.values()), edges=edges, **told)  # type: ignore[arg-type]


def books(nodes: list[NodeEntry], inputs: dict[str, float], seeded: dict[str, float]) -> Ledger:
    """A ledger of nodes in the order in which relevance met them."""
    seed = sum(seeded.values())
    by_node = {node.name: node for node in nodes}
    return Ledger(seed, inputs, {}, 1.0, 1.0, abs(seed) or 1.0, 1e-5, by_node=by_node, seeded=seeded)


def drawn_by_lot(number: int, count: int) -> Ledger:
    """Books of a random graph: every node shares what it got among earlier ones, with signs, and books a bit of it."""
    chance = random.Random(number)
    names = ["x", "y", *(f"n{i}" for i in range(count))]
    came = dict.fromkeys(names, 0.0)
    came[names[-1]] = 100.0
    nodes = []
    for place in range(len(names) - 1, 1, -1):
        name, booked = names[place], chance.choice([0.0, 0.0, 1.0])
        earlier = {names[place - 1], *chance.choices(names[max(0, place - 7) : place], k=chance.choice([0, 0, 1, 2]))}
        cuts = [chance.uniform(-1, 1.5) for _ in earlier]
        edges = {
            other: cut * (came[name] - booked) / sum(cuts) for other, cut in zip(sorted(earlier), cuts, strict=True)
        }
        for other, units in edges.items():
            came[other] += units
        rule = chance.choice(["linear", "elementwise", "sum"])
        nodes.append(entry(name, edges, rule, into=came[name], accounts={"bias": booked} if booked else {}))
    return books(nodes, {"x": came["x"], "y": came["y"]}, {names[-1]: 100.0})
