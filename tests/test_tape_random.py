"""Random programs of views and writes: what the tape recorded on one input is the program, on any other input too."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dlb_core.kernel.layout import lay_out
from dlb_core.kernel.packs import registry
from dlb_core.kernel.program import Program
from dlb_core.kernel.run import run_forward
from dlb_core.kernel.tape import trace_tape

Draw = random.Random


def _dim(t: Tensor, draw: Draw) -> int:
    return draw.randrange(-t.dim(), t.dim())


def _cut(t: Tensor, draw: Draw) -> Tensor:
    dim = _dim(t, draw)
    start = draw.randrange(t.shape[dim])
    return t.movedim(dim, 0)[start : draw.randint(start + 1, t.shape[dim]) : draw.choice([1, 2])].movedim(0, dim)


def _split(t: Tensor, draw: Draw) -> Tensor:
    dim = _dim(t, draw)
    return draw.choice(t.split(draw.randint(1, t.shape[dim]), dim))


def _strides(t: Tensor, draw: Draw) -> Tensor:
    """A row of what lies behind it, where it lies in one piece."""
    if not t.is_contiguous() or t.numel() < 2:
        return t
    n = draw.randint(1, t.numel() - 1)
    return t.as_strided((n,), (1,), t.storage_offset() + draw.randint(0, t.numel() - n))


VIEWS: list[Callable[[Tensor, Draw], Tensor]] = [
    _cut,
    _split,
    _strides,
    lambda t, draw: t.select(_dim(t, draw), -1) if t.dim() > 1 else t.flip(0),
    lambda t, draw: t.transpose(_dim(t, draw), _dim(t, draw)),
    lambda t, draw: t.permute(draw.sample(range(t.dim()), t.dim())),
    lambda t, draw: t.reshape(-1),
    lambda t, draw: t.flatten(0, 1) if t.dim() > 1 else t.unsqueeze(0),
    lambda t, draw: t.unsqueeze(_dim(t, draw)),
    lambda t, draw: t.squeeze() if t.squeeze().dim() else t,
    lambda t, draw: t.diagonal() if t.dim() == 2 else t.T if t.dim() == 1 else t.mT,
    lambda t, draw: draw.choice(t.unbind(_dim(t, draw))) if t.dim() > 1 else t,
    lambda t, draw: draw.choice(t.chunk(2, _dim(t, draw))),
    lambda t, draw: t.detach(),
    lambda t, draw: t.data,
    lambda t, draw: t.contiguous(),
    lambda t, draw: nn.functional.dropout(t, 0.5, training=False),
    lambda t, draw: t.expand(2, *t.shape),
    lambda t, draw: t.clone(),
    lambda t, draw: t * 0.5,
]
WRITES: list[Callable[[Tensor, Tensor, Draw], object]] = [
    lambda t, other, draw: t.add_(1),
    lambda t, other, draw: t.mul_(other.mean()),
    lambda t, other, draw: t.sub_(other.reshape(-1)[0].clone(), alpha=2),
    lambda t, other, draw: t.copy_(other.reshape(-1)[-1].clone()),
    lambda t, other, draw: t.fill_(draw.random()),
    lambda t, other, draw: t.zero_(),
    lambda t, other, draw: t.tanh_(),
    lambda t, other, draw: torch.add(t.clone(), 1, out=t),
    lambda t, other, draw: t.__setitem__(..., other.sum() * 0.1),
    lambda t, other, draw: t.clamp_(min=0),
]


class Written(nn.Module):
    """A program drawn from one number: views and writes on a pool of tensors, of which all are returned."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("table", torch.arange(12.0, dtype=torch.float64).reshape(3, 4) / 10)

    def forward(self, x: Tensor) -> list[Tensor]:
        draw = random.Random(self.seed)
        pool = [x, x + 1, self.table]
        for _ in range(draw.randint(4, 16)):
            one = draw.choice(pool)
            if draw.random() < 0.5 and one.dim() < 5:
                pool.append(draw.choice(VIEWS)(one, draw))
            elif not expanded(one):
                draw.choice(WRITES)(one, draw.choice(pool), draw)
        return pool


def expanded(t: Tensor) -> bool:
    """Are several of its elements one? Writing to them is an error in torch as well, or depends on the order."""
    return any(step == 0 and size > 1 for step, size in zip(t.stride(), t.shape, strict=True))


def run(program: Program, x: Tensor) -> list[Tensor]:
    """The graph on an input; no op of it writes."""
    for node in program.graph.nodes:
        assert not getattr(getattr(node.target, "_schema", None), "is_mutable", False), node
    (entry,) = program.inputs
    assert entry.node is not None
    return run_forward(lay_out(program, registry()), {entry.node: x}, frozenset()).outputs


@pytest.mark.parametrize("start", range(0, 400, 50))
def test_the_recorded_graph_is_the_program(start: int) -> None:
    for seed in range(start, start + 50):
        torch.manual_seed(seed)
        x, other = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
        model = Written(seed).eval()
        before = x.clone()
        program = trace_tape(model, (x,), {})
        assert torch.equal(x, before)
        assert torch.equal(model.table, Written(0).table)
        for given in (x, other):
            for got, expected in zip(run(program, given), Written(seed).eval()(given.clone()), strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12, msg=f"seed {seed}")
