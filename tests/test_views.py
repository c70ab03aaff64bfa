"""What can be looked at before and beside an explanation: the graph and the plan."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor, nn
from zoo import CASES, Net, traced

from dlb_core import DLBacktrace


@pytest.fixture(scope="module")
def net() -> DLBacktrace:
    return DLBacktrace(Net().eval(), torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize("name", ["digits", "bert-eager", "llama-sdpa"])
def test_the_graph_is_in_topological_order_and_complete(name: str) -> None:
    dlb, call = traced(name), CASES[name].example()
    view = dlb.graph()
    assert nx.is_directed_acyclic_graph(view)
    place = {node: i for i, node in enumerate(view.nodes)}
    assert all(place[a] < place[b] for a, b in view.edges)
    assert list(view.nodes) == [key for key in dlb.predict(**call) if key != "output"]
    assert [n for n, data in view.nodes(data=True) if data["kind"] == "input"] == dlb.input_names
    assert sum(data["output"] for _, data in view.nodes(data=True)) == 1


def test_a_node_of_the_graph_says_what_it_is(net: DLBacktrace) -> None:
    nodes: dict[str, dict[str, Any]] = dict(net.graph().nodes(data=True))
    conv = nodes["conv2d"]
    assert conv["op"] == "aten::conv2d.default"
    assert (conv["kind"], conv["rule"], conv["pack"], conv["module"]) == (
        "linear",
        "default/linear",
        "builtin",
        "conv1",
    )
    assert conv["parameters"] == ["conv1.weight", "conv1.bias"]
    assert conv["hyperparameters"] == {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    batch, *rest = conv["shape"]
    assert isinstance(batch, str)
    assert rest == [16, 8, 8]
    assert conv["dtype"] == "torch.float32"
    assert conv["active"]
    assert nodes["x"]["op"] == "input"
    assert nodes["x"]["shape"] == (batch, 3, 8, 8)
    assert nodes["linear"]["output"]


def test_the_edges_name_the_argument_they_feed(net: DLBacktrace) -> None:
    view = net.graph()
    assert view.edges["x", "conv2d"]["argument"] == "input"
    assert view.edges["conv2d", "relu"]["argument"] == "self"


def test_a_node_that_carries_no_relevance_has_no_rule() -> None:
    view = traced("llama-sdpa").graph("epsilon")
    cosines = [data for _, data in view.nodes(data=True) if data["op"].startswith("aten::cos")]
    assert cosines
    assert all(data["rule"] is None and not data["active"] for data in cosines)


def test_the_plan_says_which_rule_runs_where(net: DLBacktrace) -> None:
    records = {record["node"]: record for record in net.plan("epsilon").table().records()}
    assert list(records) == ["conv2d", "relu", "adaptive_avg_pool2d", "view", "linear"]
    assert {record["pack"] for record in records.values()} == {"builtin"}
    assert records["conv2d"]["rule"] == "epsilon/linear"
    assert records["conv2d"]["relevance goes to"] == "input"
    assert records["linear"]["module"] == "fc"
    assert "aten::conv2d.default" in str(net.plan("default").table())


def test_the_plan_shows_the_options_it_was_bound_with(net: DLBacktrace) -> None:
    assert "eps=0.5" in str(net.plan("epsilon", eps=0.5).table())
    assert "bias='redistribute'" in str(net.plan("epsilon", bias="redistribute").table())
    with pytest.raises(ValueError, match=r"unknown mode 'gradient'; the modes are: auto, alpha-beta, .*, z-plus"):
        net.plan("gradient")


def test_a_plan_binds_gates_to_what_they_let_through() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.value = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.gate(x).sigmoid() * self.value(x)

    table = DLBacktrace(Gated().eval(), torch.randn(2, 4)).plan("epsilon").table()
    records = {record["node"]: record for record in table.records()}
    assert "linear" not in records  # the gate gets nothing, so nothing runs above it
    assert [r["relevance goes to"] for r in records.values() if r["op"] == "aten::mul.Tensor"] == ["other"]


def test_the_modes_and_the_inputs_are_listed(net: DLBacktrace) -> None:
    assert {"default", "epsilon"} <= set(net.modes)
    assert net.input_names == ["x"]
    assert repr(net) == f"DLBacktrace({len(net.graph()) - 1} ops, inputs ['x'], relevance in torch.float32)"
