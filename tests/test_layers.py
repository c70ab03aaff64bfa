"""Layers with a rule of their own: their nodes become one, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, RuleError
from dlb_core.rules import Shares, elementwise


class Swish(nn.Module):
    """x * sigmoid(beta * x) with a learned beta, which no pack has a rule for as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor([0.5, 1.0, 1.5, 2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


class Pair(nn.Module):
    """Two inputs, two outputs."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a + b, a * b


class Paired(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.pair = nn.Linear(3, 4), nn.Linear(3, 4), Pair()

    def forward(self, x: Tensor) -> Tensor:
        added, times = self.pair(self.left(x), self.right(x))
        return added - times


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), Swish(), nn.Linear(4, 2), nn.Sequential(nn.Linear(2, 4), Swish())).eval()


X = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 2.0]])


def test_a_registered_layer_is_one_node_that_computes_the_same() -> None:
    net = model()
    dlb = DLBacktrace(net, X)
    before = dlb.predict(X)["output"].output
    dlb.register_layer(Swish, lambda call, r, mode: Shares({"input": r}))
    node_io = dlb.predict(X)
    torch.testing.assert_close(node_io["output"].output, before)
    torch.testing.assert_close(dlb.predict(X[:1])["output"].output, net(X[:1]))
    kinds = [data["op"] for _, data in dlb.graph().nodes(data=True)]
    assert sum(op.startswith("layer::") and op.endswith(".Swish") for op in kinds) == 2
    assert "aten::sigmoid.default" not in kinds


def test_the_rule_runs_and_the_ledger_closes() -> None:
    dlb = DLBacktrace(model(), X)
    asked: list[torch.Size] = []

    def half(call, r, mode):  # type: ignore[no-untyped-def]
        asked.append(call.input.shape)
        return Shares({"input": r / 2}, lost_in_swish=(r / 2).sum())

    dlb.register_layer(Swish, half)
    relevance = dlb.explain(X, mode="default", keep="all").relevance
    assert asked == [torch.Size([2, 4]), torch.Size([2, 4])]
    assert relevance.ledger.accounts["lost_in_swish"] == pytest.approx(150)
    assert relevance.ledger.inputs["input"] == pytest.approx(50, rel=1e-4)
    torch.testing.assert_close(relevance["0"], relevance["1"] / 2)


def test_a_kind_may_be_the_rule_and_other_engines_do_not_see_it() -> None:
    net = model()
    dlb, other = DLBacktrace(net, X), DLBacktrace(net, X)
    dlb.register_layer(Swish, elementwise("mine"))
    assert dlb.explain(X).ledger.inputs["input"] == pytest.approx(200, rel=1e-4)
    assert any(row["op"].startswith("layer::") for row in dlb.plan().table().records())
    assert not any(row["op"].startswith("layer::") for row in other.plan().table().records())


def test_several_inputs_and_outputs() -> None:
    torch.manual_seed(0)
    net = Paired().eval()
    dlb = DLBacktrace(net, X)

    def rule(call, r, mode):  # type: ignore[no-untyped-def]
        added, times = r
        return Shares({"input": added / 2 + times / 4, "input_1": added / 2 + times * 3 / 4})

    dlb.register_layer(Pair, rule)
    torch.testing.assert_close(dlb.predict(X)["output"].output, net(X))
    explanation = dlb.explain(X, mode="epsilon", targets=[0, 1])
    assert [ledger.seed for ledger in explanation.ledger] == [200, 200]


def test_a_layer_rule_that_loses_units_or_the_shape_names_itself() -> None:
    dlb = DLBacktrace(model(), X)
    dlb.register_layer(Swish, lambda call, r, mode: Shares({"input": r.sum()}))
    with pytest.raises(RuleError, match=r"layer::.*Swish.*registered here"):
        dlb.explain(X)
    dlb.register_layer(Swish, lambda call, r, mode: Shares({"input": r / 3}))
    with pytest.raises(Exception, match=r"not conserved at node .*layer::.*Swish"):
        dlb.explain(X)


class AsFloat(nn.Module):
    """Does nothing to what is float already: all that is traced of it is an assertion that nobody reads."""

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float32)


def test_a_layer_that_leaves_nothing_behind_is_no_obstacle() -> None:
    dlb = DLBacktrace(nn.Sequential(nn.Linear(3, 4), AsFloat(), nn.Linear(4, 2)).eval(), X)
    dlb.register_layer(AsFloat, lambda call, r, mode: Shares({"input": r}))
    assert dlb.explain(X).ledger.inputs["input"] == pytest.approx(200, rel=1e-4)
