"""Models that differ by how one function is written, and their relevance in every mode."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlb_core import DLBacktrace, Relevance

from .harness import MODES, ModeName, pack

Form = Callable[..., Tensor]


class Between(nn.Module):
    """A form between two dense layers, with tensors of its own: w, b (trailing size) where it wants them."""

    def __init__(self, form: Form, size: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.before, self.after = nn.Linear(4, size), nn.Linear(size, 3)
        self.w, self.b = nn.Parameter(torch.randn(size)), nn.Parameter(torch.randn(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.form(self.before(x), self.w, self.b))


#: every registered mode: those with two policies for biases in both, the others in their own
EVERY: list[ModeName] = [*MODES, *((name, None) for name in pack().modes if name not in ("default", "epsilon"))]
WITHOUT_EPS = ("default", "contrastive", "alpha-beta", "z-plus")


def options_of(mode: str) -> dict[str, Any]:
    """A stabiliser that takes next to nothing, and what a mode cannot do without."""
    given = dict(pack().modes[mode].example)
    return given if mode in WITHOUT_EPS else {**given, "eps": 1e-9}


def explained(model: nn.Module, *inputs: Tensor, **options: Any) -> dict[ModeName, Relevance]:
    """Relevance in every mode, for a seed with both signs; the trace is made once."""
    dlb = DLBacktrace(model.double().eval(), inputs, dynamic_shapes=None, **options)
    dlb.predict(*inputs)
    output = model(*inputs)
    target = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {(n, b): dlb.evaluation(n, target=target, multiplier=1.0, bias=b, **options_of(n)) for n, b in EVERY}


@lru_cache(maxsize=8)
def fused_reference(build: Callable[[Form], nn.Module], form: Form) -> tuple[Tensor, dict[ModeName, Relevance]]:
    """Output and relevance of a fused form, which several written ones are compared with."""
    model = build(form)
    return model.double().eval()(X), explained(model, X)


def assert_agree(build: Callable[[Form], nn.Module], fused: Form, written: Form, but: Collection[str] = ()) -> None:
    """The same function, and the same relevance of the input in every mode `but` these."""
    output, relevance = fused_reference(build, fused)
    model = build(written)
    torch.testing.assert_close(model.double().eval()(X), output)
    for mode, got in explained(model, X).items():
        if mode[0] not in but:
            assert_close(got["x"], relevance[mode]["x"], mode)


def assert_close(got: Tensor, expected: Tensor, mode: ModeName) -> None:
    """Equal but for the little that a stabiliser keeps at every node more."""
    assert float(expected.abs().sum()) > 0
    atol = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=atol, msg=lambda text: f"{mode}: {text}")


X = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


MIX = torch.randn(6, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def by_sum(t: Tensor) -> Tensor:
    return t / t.sum(-1, keepdim=True)
