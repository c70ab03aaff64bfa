"""What a user may ask by name: inputs, nodes, modules, and nodes that a pass took out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo import CASES, Net, traced

from dlb_core import DLBacktrace


class Paired(nn.Module):
    """One argument that is a dict of two tensors, one that is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.picture, self.table = nn.Linear(6, 4), nn.Linear(3, 4)

    def forward(self, batch: dict[str, Tensor], more: list[Tensor]) -> Tensor:
        return self.picture(batch["image"]) + self.table(batch["meta"]) + more[0] * 2


class Twice(nn.Module):
    """Calls one module two times."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.body(x)) * 3


class Cast(nn.Module):
    """Ends with a cast that changes nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().to(torch.float32)


def paired() -> tuple[DLBacktrace, dict[str, Any]]:
    torch.manual_seed(0)
    call = {"batch": {"image": torch.randn(2, 6), "meta": torch.randn(2, 3)}, "more": [torch.randn(2, 4)]}
    return DLBacktrace(Paired().eval(), call), call


def test_node_io_runs_from_the_first_input_to_the_output() -> None:
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(2, 3, 8, 8)
    node_io = DLBacktrace(model, x).predict(x)
    names = list(node_io)
    assert names[0] == "x"
    assert names[-1] == "output"
    assert node_io["x"].inputs == ()
    assert node_io["x"].output is x
    for i, name in enumerate(names[1:], start=1):
        earlier = {id(node_io[before].output) for before in names[:i]}
        assert id(node_io[name].inputs[0]) in earlier, name
    torch.testing.assert_close(node_io["output"].output, model(x))


def test_relevance_lists_the_inputs_first_and_the_output_last() -> None:
    x = torch.randn(2, 3, 8, 8)
    dlb = DLBacktrace(Net().eval(), x)
    order = list(dlb.predict(x))
    names = list(dlb.evaluation())
    assert names[0] == "x"
    assert names[-1] == "output"
    assert names == [name for name in order if name in names]  # sizes are in the node_io, but carry no relevance


@pytest.mark.parametrize("name", ["net", "digits", "bert-sdpa", "vit-eager", "llama-sdpa"])
def test_a_module_path_answers_with_the_modules_output(name: str) -> None:
    """Compared with what the module really returned; the attention's queries and keys carry no relevance."""
    case = CASES[name]
    model, call = case.model(), case.example()
    dlb = DLBacktrace(model, call, fold=False)
    outputs: dict[str, Any] = {}
    calls: Counter[str] = Counter()

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            calls[path] += 1
            outputs[path] = output.clone() if isinstance(output, Tensor) else None  # in-place steps may follow

        return hook

    for path, module in model.named_modules():
        module.register_forward_hook(note(path))
    with torch.no_grad():
        model(**call)
    relevance, node_io, view = dlb.explain(**call, keep="all").relevance, dlb.predict(**call), dlb.graph()
    answered = 0
    for path in [path for path, count in calls.items() if path and count == 1]:
        inside = [n for n, data in view.nodes(data=True) if f"{data['module']}.".startswith(f"{path}.")]
        if not inside or outputs[path] is None or inside[-1] not in relevance:
            continue
        assert relevance[path].shape == outputs[path].shape, path
        torch.testing.assert_close(node_io[inside[-1]].output, outputs[path], rtol=1e-4, atol=1e-4)
        assert relevance[path] is relevance[inside[-1]], path
        answered += 1
    assert answered >= 4


def test_a_module_called_twice_has_two_keys() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6)
    relevance = DLBacktrace(Twice().eval(), x).explain(x, mode="epsilon", keep="all").relevance
    assert relevance["body"] is relevance["tanh"]
    assert relevance["body@1"] is relevance["tanh_1"]
    assert not torch.equal(relevance["body"], relevance["body@1"])
    assert relevance["body.0@1"] is relevance["linear_1"]


def test_a_module_whose_last_step_changes_nothing_still_answers() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6)
    relevance = DLBacktrace(nn.Sequential(Cast(), nn.Linear(6, 2)).eval(), x).explain(x, keep="all").relevance
    assert relevance["0"] is relevance["relu"]


def test_a_folded_convolution_answers_for_its_batch_norm() -> None:
    relevance = traced("digits").explain(**CASES["digits"].example(), keep="all").relevance
    assert relevance["stem.1"] is relevance["stem.0"]
    assert relevance["stem.1"] is relevance["conv2d"]
    assert relevance["batch_norm"] is relevance["conv2d"]
    assert "batch_norm" not in list(relevance)


def test_without_folding_the_batch_norm_is_a_node_of_its_own() -> None:
    case = CASES["digits"]
    call = case.example()
    relevance = DLBacktrace(case.model(), call, fold=False).explain(**call, mode="epsilon", keep="all").relevance
    assert "batch_norm" in list(relevance)
    assert relevance["stem.1"] is relevance["batch_norm"]
    assert not torch.equal(relevance["stem.1"], relevance["stem.0"])


@pytest.mark.parametrize("mode", ["default", "epsilon"])
def test_folding_changes_no_relevance_of_the_inputs(mode: str) -> None:
    case = CASES["digits"]
    model, call = case.model(torch.float64), case.example(dtype=torch.float64)
    folded, plain = (DLBacktrace(model, call, fold=fold).explain(**call, mode=mode) for fold in (True, False))
    torch.testing.assert_close(folded.output, plain.output)
    largest = float(plain.inputs["image"].abs().max())
    torch.testing.assert_close(folded.inputs["image"], plain.inputs["image"], rtol=0, atol=1e-3 * largest)


def test_inputs_inside_a_structure_are_named_by_their_path() -> None:
    dlb, call = paired()
    names = ["batch.image", "batch.meta", "more.0"]
    assert dlb.input_names == names
    assert list(dlb.predict(**call))[:3] == names
    explanation = dlb.explain(**call)
    assert list(explanation.inputs) == names
    assert set(explanation.ledger.inputs) == set(names)
    assert explanation.inputs["batch.meta"].shape == (2, 3)
    assert set(names) <= set(dlb.graph().nodes)


def test_an_input_inside_a_structure_can_be_asked_for_like_any_node() -> None:
    dlb, call = paired()
    assert set(dlb.explain(**call, keep=["batch.image"]).relevance) >= {"batch.image"}


def test_an_argument_may_be_called_output() -> None:
    class Model(nn.Module):
        def forward(self, output: Tensor) -> Tensor:
            return (output * 2).relu()

    x = torch.randn(2, 3)
    dlb = DLBacktrace(Model().eval(), x)
    node_io = dlb.predict(x)
    assert list(node_io)[-1] == "output"
    torch.testing.assert_close(list(node_io.values())[-1].output, (x * 2).relu())
    assert next(iter(node_io)) != "output"
    explanation = dlb.explain(x, target=0)
    assert float(sum(t.sum() for t in explanation.inputs.values())) == pytest.approx(200)


def test_a_node_with_several_outputs_has_a_tuple() -> None:
    class Splits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.split([1, 2, 3], dim=1)[1] * 2

    x = torch.randn(4, 6)
    dlb = DLBacktrace(Splits().eval(), x)
    relevance = dlb.explain(x, target=0, keep="all").relevance
    (name,) = (name for name, value in relevance.items() if isinstance(value, tuple))
    assert [part.shape for part in relevance[name]] == [part.shape for part in dlb.predict(x)[name].output]
    assert [float(part.sum()) for part in relevance[name]] == [0, 400, 0]
    several = dlb.explain(x, targets=[0, 1], keep=[name]).relevance[name]
    assert [part.shape for part in several] == [(2, 4, 1), (2, 4, 2), (2, 4, 3)]


def test_a_name_without_relevance_says_why() -> None:
    relevance = traced("bert-sdpa").explain(**CASES["bert-sdpa"].example(), keep="all").relevance
    reasons = {
        "no_such_node": "no such node, module or input",
        "attention_mask": "explain_inputs=",
        "bert.embeddings.position_embeddings": "depends on no explained input",
        "bert.encoder.layer.0.attention.self.query": "no relevance reaches this node",
    }
    for name, reason in reasons.items():
        assert name not in relevance
        with pytest.raises(KeyError, match=reason):
            relevance[name]


def test_a_relevance_cannot_be_changed() -> None:
    x = torch.randn(2, 3, 8, 8)
    relevance: Any = DLBacktrace(Net().eval(), x).explain(x).relevance
    with pytest.raises(TypeError):
        relevance["x"] = torch.zeros(2)
