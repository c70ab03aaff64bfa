"""Layers of experts found in graphs: the token, the expert and the weight of every row, in every form of a mixture.

The oracle runs every expert on every token in plain torch. What a row holds must be what that expert makes of that
token; all that is weighed must be there, and relevance must be where the formula puts it.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace
from dlb_core.rules import SITES, ExpertSite

from .forms import EXPERTS, FORMS, WIDTH, Net


class Row(NamedTuple):
    """What a site says about rows in one call: values [n, H], and token, expert and weight of each."""

    value: Tensor
    token: Tensor
    expert: Tensor
    weight: Tensor


def read(dlb: DLBacktrace, *inputs: Any, **named: Any) -> list[tuple[ExpertSite, Row, Tensor]]:
    """Every site of a call with all of its rows that go somewhere, and the value where they are added up."""
    dlb.predict(*inputs, **named)
    assert dlb._last is not None
    engine, prediction = dlb._last
    values = prediction.activations.values

    def of(node: Any) -> Any:
        return values[engine.layout.slots[node.name]]

    found = []
    for site in engine.program.sites[SITES]:
        rows = []
        for part in site.rows:
            value = of(part.node)
            token, expert = part.places(*(of(node) for node in part.reads))
            assert token.shape == expert.shape == (math.prod(value.shape[:-1]),)
            assert token.dtype == expert.dtype == torch.int64
            weight = of(part.weight)
            weight = weight if part.weigh is None else part.weigh(weight, value.shape[:-1])
            kept = expert >= 0
            row = Row(value.reshape(-1, value.shape[-1]), token, expert, weight.reshape(-1))
            rows.append(Row(*(column[kept] for column in row)))
        entry = of(site.entry)
        found.append((site, Row(*(torch.cat(column) for column in zip(*rows, strict=True))), entry))
    return found


def check(site: ExpertSite, row: Row, entry: Tensor, returned: Tensor, weight: Tensor) -> None:
    """Rows against what every expert makes of every token [S, E, H] and the weights [S, E]."""
    tokens, experts = weight.shape
    assert site.experts == experts
    assert entry.shape[:-1].numel() == tokens
    torch.testing.assert_close(row.value, returned[row.token, row.expert])
    table = torch.zeros_like(weight).index_put((row.token, row.expert), row.weight.to(weight), accumulate=True)
    torch.testing.assert_close(table, weight)
    counts = torch.zeros(tokens * experts).index_add(0, row.token * experts + row.expert, torch.ones(len(row.token)))
    assert (counts <= 1).all()
    assert (counts[weight.flatten() != 0] == 1).all()
    mixed = (returned * weight.unsqueeze(-1)).sum(1)
    torch.testing.assert_close(entry.reshape(mixed.shape), mixed)


@pytest.mark.parametrize("form", FORMS)
def test_every_row_is_what_its_expert_makes_of_its_token(form: str) -> None:
    net, dlb, x = traced(form)
    ((site, row, entry),) = read(dlb, x)
    tokens = net.before(x).reshape(-1, WIDTH)
    check(site, row, entry, net.moe.returned(tokens), net.moe.weights(tokens)[0])
    assert site.name == ("moe" if "slices" in form or form in ("batches", "einsum over experts") else "moe.experts")
    assert entry.shape == x.shape
    assert site.probability is not None
    found = dlb.explain(x, mode="epsilon", eps=1e-12, target=1).relevance.experts[site.name]
    torch.testing.assert_close(found.probability.flatten(0, 1), net.moe.router(tokens).softmax(-1))
    torch.testing.assert_close(found.by_token.flatten(0, 1), by_formula(net, x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("form", ["masks by slot", "sorted by expert", "token by token", "stack, sum", "stack last"])
@pytest.mark.parametrize(("shape", "k"), [((7,), 2), ((1,), 1), ((3, 4), EXPERTS)], ids=["no tokens", "one", "all"])
def test_other_shapes_than_tokens_and_two_of_four(form: str, shape: tuple[int, ...], k: int) -> None:
    net, x = made(form, k), rows(*shape)
    tokens = net.before(x).reshape(-1, WIDTH)
    ((site, row, entry),) = read(DLBacktrace(net, (rows(*shape),), tracer="tape"), x)
    check(site, row, entry, net.moe.returned(tokens), net.moe.weights(tokens)[0])
    assert entry.shape == x.shape


@pytest.mark.parametrize("form", ["one by one", "stack first", "matmul, stack last", "picked", "batches"])
def test_an_exported_site_holds_for_other_sizes(form: str) -> None:
    net = made(form)
    dlb = DLBacktrace(net, (rows(2, 5),), dynamic_shapes={"x": {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}})
    assert dlb.tracer == "export"
    for x in (rows(3, 9), rows(1, 4)):
        tokens = net.before(x).reshape(-1, WIDTH)
        ((site, row, entry),) = read(dlb, x)
        check(site, row, entry, net.moe.returned(tokens), net.moe.weights(tokens)[0])


@pytest.mark.parametrize("form", ["masks", "index_add", "sorted by expert", "where", "stack last", "einsum"])
def test_what_enters_arrives_or_is_booked(form: str) -> None:
    _, dlb, x = traced(form)
    dlb.predict(x)
    for mode in ("default", "epsilon", "gamma", "z-plus", "attnlrp"):
        found = dlb.evaluation(mode=mode, target=1)
        ((name, layer),) = found.experts.items()
        assert dlb._last is not None
        (site,) = dlb._last[0].program.sites[SITES]
        assert name == site.name
        entered = found[site.entry.name]
        parts = [found[part.node.name] for part in site.rows]
        near = 1e-9 * float(entered.abs().sum())
        assert abs(layer.entered - float(entered.sum())) <= near
        assert abs(float(layer.relevance.sum()) + sum(layer.accounts.values()) - layer.entered) <= near
        assert abs(sum(float(part.sum()) for part in parts) - float(layer.relevance.sum())) <= near
        assert ("router" in layer.accounts) == (mode == "attnlrp")


@cache
def traced(form: str) -> tuple[Net, DLBacktrace, Tensor]:
    net, x = made(form), rows(2, 5)
    return net, DLBacktrace(net, (x,)), x


def made(form: str, k: int = 2) -> Net:
    torch.manual_seed(1)
    return Net(form, k).double().eval()


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


class Rest(nn.Module):
    """What comes behind the mixture of a net."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.head = net.head

    forward = Net.rest


@cache
def entering(*shape: int) -> Tensor:
    """Epsilon relevance of a mixture's output; nets of all forms are the same."""
    net = made("einsum")
    mixed = net.moe(net.before(rows(*shape))).detach()
    return (
        DLBacktrace(Rest(net).eval(), (mixed,)).explain(mixed, mode="epsilon", eps=1e-12, target=1).relevance["mixed"]
    )


def by_formula(net: Net, x: Tensor) -> Tensor:
    """Epsilon relevance by token and expert, [S, E]: what comes to the mixture, shared by what is weighed there."""
    tokens = net.before(x).reshape(-1, WIDTH)
    weighed = net.moe.returned(tokens) * net.moe.weights(tokens)[0].unsqueeze(-1)
    return (entering(*x.shape[:-1]).reshape(-1, 1, WIDTH) * weighed / weighed.sum(1, keepdim=True)).sum(-1)
