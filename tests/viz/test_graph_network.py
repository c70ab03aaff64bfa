"""`dlb.graph()` after an evaluation: units on nodes and edges, folded by module and by layout."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, Ledger
from viz.graphs import evaluated, example, model


@pytest.fixture
def dlb() -> DLBacktrace:
    return evaluated()


@pytest.fixture
def ledger(dlb: DLBacktrace) -> Ledger:
    found: Ledger = dlb._evaluated.ledgers[0]
    return found


def test_nodes_and_edges_carry_what_the_ledger_recorded(dlb: DLBacktrace, ledger: Ledger) -> None:
    view = dlb.graph()
    assert (view.graph["evaluated"], view.graph["seed"], view.graph["mode"]) == ("epsilon", ledger.seed, "epsilon")
    for name, entry in ledger.by_node.items():
        node = view.nodes[name]
        assert (node["relevance"], node["booked"], node["residual"]) == (entry.into, entry.booked, entry.residual)
        assert node["accounts"] == entry.accounts
    assert {name: view.nodes[name]["relevance"] for name in dlb.input_names} == ledger.inputs
    flow = {(a, b): units for a, b, units in view.edges(data="flow") if units}
    assert flow == {(a, e.name): units for e in ledger.by_node.values() for a, units in e.edges.items() if units}
    passive = [data for name, data in view.nodes(data=True) if name not in (*ledger.by_node, *dlb.input_names)]
    assert passive
    assert all(data["relevance"] == data["booked"] == data["residual"] == 0 for data in passive)


def test_the_rules_are_those_that_ran_unless_others_are_asked_for(dlb: DLBacktrace) -> None:
    assert {data["rule"] for _, data in dlb.graph().nodes(data=True)} >= {"epsilon/linear", "epsilon/sum"}
    other = dlb.graph("default")
    assert "default/linear" in {data["rule"] for _, data in other.nodes(data=True)}
    assert (other.graph["mode"], other.graph["evaluated"]) == ("default", "epsilon")


def test_folded_by_module(dlb: DLBacktrace, ledger: Ledger) -> None:
    view, books = dlb.graph(modules=1), ledger.by_module()
    for path in ("blocks.0", "blocks.1"):
        node = view.nodes[path]
        assert (node["relevance"], node["booked"]) == pytest.approx((books[path]["in"], books[path]["booked"]))
        assert (node["op"], node["kind"], node["module"]) == ("module", "module", path)
        assert node["ops"] == sum(data["module"].startswith(path) for _, data in dlb.graph().nodes(data=True))
    assert view.edges["blocks.0", "blocks.1"]["flow"] == pytest.approx(books["blocks.1"]["out"])
    assert {"blocks.0.branch", "blocks.1.branch"} <= {*dlb.graph(modules=2)}
    assert {*dlb.graph(modules=9)} == {*dlb.graph()}
    assert [name for name, data in view.nodes(data=True) if data["output"]] == [
        name for name, data in dlb.graph().nodes(data=True) if data["output"]
    ]


def test_folded_by_layout(dlb: DLBacktrace) -> None:
    whole, view = dlb.graph(), dlb.graph(fold_layout=True)
    gone = {*whole} - {*view}
    assert gone
    assert {whole.nodes[name]["kind"] for name in gone} <= {"move", "constant"}
    assert all(whole.nodes[name] == {**view.nodes[name], "output": whole.nodes[name]["output"]} for name in view)
    assert not any(data["dtype"] is None for _, data in view.nodes(data=True))
    for name, data in view.nodes(data=True):
        went = math.fsum(units for *_, units in view.in_edges(name, data="flow"))
        if data["op"] != "input":
            assert went == pytest.approx(data["relevance"] - data["booked"] - data["residual"], abs=1e-9)


def test_what_fills_or_keeps_a_part_is_no_layout() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.register_buffer("hidden", torch.tensor([True, False, False, False]))

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.reshape(-1, 4)).masked_fill(self.hidden, 2.0)[:, 1:].t()

    dlb = DLBacktrace(Masked().eval(), torch.randn(2, 2, 2), tracer="tape")
    ops = [data["op"].partition(".")[0] for _, data in dlb.graph(fold_layout=True).nodes(data=True)]
    assert ops == ["input", "aten::linear", "aten::masked_fill", "aten::slice"]
    assert len(dlb.graph()) > len(ops)


def test_a_module_and_an_input_of_one_name_are_two() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.last = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Linear(3, 2)

        def forward(self, table: Tensor) -> Tensor:
            return self.last(self.table(table))

    view = DLBacktrace(Named().eval(), torch.randn(1, 3), tracer="tape").graph(modules=1, fold_layout=True)
    assert [*view] == ["table", "table.(module)", "linear_1"]
    assert [*view.edges] == [("table", "table.(module)"), ("table.(module)", "linear_1")]


@pytest.mark.parametrize("modules", [0, -1, 1.5, True])
def test_a_depth_below_one_is_refused(dlb: DLBacktrace, modules: int) -> None:
    with pytest.raises(ValueError, match="modules="):
        dlb.graph(modules=modules)


def test_without_an_evaluation_nothing_is_measured() -> None:
    dlb = DLBacktrace(model(), example(), tracer="tape")
    dlb.predict(*example())
    for view in (dlb.graph(), dlb.graph(modules=1, fold_layout=True)):
        assert "evaluated" not in view.graph
        assert not any("relevance" in data for _, data in view.nodes(data=True))
        assert not any("flow" in data for *_, data in view.edges(data=True))
    with pytest.raises(ValueError, match="target=1: nothing was evaluated"):
        dlb.graph(target=1)


def test_the_graph_of_a_tape_is_the_one_that_was_evaluated() -> None:
    class Turning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) if x.sum() > 0 else self.other(self.one(x).relu())

    dlb = DLBacktrace(Turning().eval(), torch.ones(1, 3), tracer="tape")
    dlb.predict(-torch.ones(1, 3))
    relevance = dlb.evaluation("epsilon")
    dlb.predict(torch.ones(1, 3))
    assert {data["module"] for _, data in dlb.graph().nodes(data=True)} == {"", "one", "other"}
    assert dlb.graph().nodes["x"]["relevance"] == relevance.ledger.inputs["x"]
    assert "other" in dlb.visualize().dot
    dlb.evaluation("epsilon")
    assert {data["module"] for _, data in dlb.graph().nodes(data=True)} == {"", "one"}


def test_no_tensor_of_an_evaluation_is_kept() -> None:
    dlb = DLBacktrace(model(), example(), tracer="tape")
    dlb.predict(*example(3))
    dlb.evaluation()
    kept = dlb._evaluated
    assert not any(isinstance(value, Tensor) for ledger in kept.ledgers for value in ledger.accounts.values())
    assert {*vars(kept)} == {"engine", "mode", "starts", "name", "ledgers", "difference"}


def test_what_goes_past_the_nodes_between_has_an_edge_of_its_own() -> None:
    class Swish(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2.0 + 1.0
            return y * y.sigmoid()

    dlb = DLBacktrace(Swish().eval(), torch.randn(1, 3), tracer="tape")
    dlb.predict(torch.randn(1, 3))
    ledger = dlb.evaluation("epsilon").ledger
    view = dlb.graph()
    for entry in ledger.by_node.values():
        for source, units in entry.edges.items():
            assert view.edges[source, entry.name]["flow"] == units
