"""How a model may be called, what it may return, and what may change from call to call."""

from __future__ import annotations

from collections import UserDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from zoo import CASES, MLP, Net, traced

from dlb_core import DLBacktrace, Explanation, InputMismatchError


class Flexible(nn.Module):
    """Two tensors, one that may be missing, a number and a switch; [B, 6], [B, 6] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(
        self, x: Tensor, other: Tensor, shift: Tensor | None = None, scale: float = 2.0, gated: bool = False
    ) -> Tensor:
        y = self.fc(x) + other[:, :3] * scale
        y = y if shift is None else y + shift
        return y.sigmoid() if gated else y


class Several(nn.Module):
    """Two results in whatever `wrap` makes of them."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.first, self.second, self.wrap = nn.Linear(6, 3), nn.Linear(6, 2), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(x.argmax(-1), self.first(x), self.second(x))


class Pair(NamedTuple):
    logits: Tensor
    scores: Tensor


def assert_explains_alike(one: Explanation, other: Explanation) -> None:
    assert list(one.inputs) == list(other.inputs)
    for name, tensor in one.inputs.items():
        assert torch.equal(tensor, other.inputs[name]), name
    assert torch.equal(one.output, other.output)
    assert one.ledger == other.ledger


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 6)


def test_the_calls_of_the_core_api() -> None:
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(1, 3, 24, 24)
    dlb = DLBacktrace(model=model, input_for_graph=(x,), device="cpu")
    node_io = dlb.predict(x)
    predicted = node_io[list(node_io)[-1]][1].argmax()
    assert predicted == model(x).argmax()
    relevance = dlb.evaluation(mode="default", multiplier=100.0, task="multi-class classification")
    assert relevance.target == [int(predicted)]
    assert relevance["x"].shape == x.shape
    assert relevance["conv2d"].shape == (1, 16, 24, 24)
    assert float(relevance["x"].sum()) == pytest.approx(100, abs=1e-3)
    assert next(p for p in model.parameters()).device.type == "cpu"


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict", "mapping"])
def test_one_input_may_come_alone_in_a_tuple_or_by_name(form: str, x: Tensor) -> None:
    forms: dict[str, Any] = {"tensor": x, "tuple": (x,), "dict": {"x": x}, "mapping": UserDict(x=x)}
    model = MLP().eval()
    dlb = DLBacktrace(model, forms[form])
    expected = dlb.explain(x)
    assert_explains_alike(dlb.explain(forms[form]), expected)
    assert_explains_alike(dlb.explain(x=x), expected)
    torch.testing.assert_close(dlb.predict(forms[form])["output"].output, model(x))


def test_arguments_by_position_and_by_name_are_the_same_call(x: Tensor) -> None:
    model = Flexible().eval()
    dlb = DLBacktrace(model, (x, x + 1))
    by_position = dlb.explain(x, x + 1)
    assert_explains_alike(dlb.explain(x, other=x + 1), by_position)
    assert_explains_alike(dlb.explain(other=x + 1, x=x), by_position)
    assert_explains_alike(DLBacktrace(model, {"other": x, "x": x}).explain(x, x), dlb.explain(x, x))


def test_traced_numbers_and_switches_are_part_of_the_trace(x: Tensor) -> None:
    model = Flexible().eval()
    dlb = DLBacktrace(model, {"x": x, "other": x, "scale": 3.0, "gated": True})
    torch.testing.assert_close(dlb.predict(x, x, scale=3.0, gated=True)["output"].output, model(x, x, None, 3.0, True))
    with pytest.raises(InputMismatchError, match=r"'scale' is a constant of the trace: expected 3\.0, got 4\.0"):
        dlb.predict(x, x, scale=4.0, gated=True)


def test_an_input_may_be_left_out_as_traced(x: Tensor) -> None:
    model = Flexible().eval()
    dlb = DLBacktrace(model, (x, x, None))
    torch.testing.assert_close(dlb.predict(x, x, None)["output"].output, model(x, x))
    with pytest.raises(InputMismatchError, match="Trace again"):
        dlb.predict(x, x, x[:, :3])


def test_every_floating_input_is_explained(x: Tensor) -> None:
    explanation = DLBacktrace(Flexible().eval(), (x, x + 1)).explain(x, x + 1)
    assert sum(explanation.ledger.inputs.values()) == pytest.approx(300, abs=1e-3)
    assert all(units > 0 for units in explanation.ledger.inputs.values())


def test_explain_inputs_decides_who_receives(x: Tensor) -> None:
    explanation = DLBacktrace(Flexible().eval(), (x, x + 1), explain_inputs=["x"]).explain(x, x + 1, mode="epsilon")
    assert list(explanation.inputs) == ["x"]
    assert any(name.startswith("constant:") for name in explanation.ledger.accounts)
    with pytest.raises(ValueError, match="explain_inputs names nobody: the tensor inputs are x, other"):
        DLBacktrace(Flexible().eval(), (x, x), explain_inputs=["nobody"])


def test_an_input_that_nothing_reads_gets_nothing(x: Tensor) -> None:
    class Ignores(nn.Module):
        def forward(self, x: Tensor, unused: Tensor) -> Tensor:
            return x * 2

    explanation = DLBacktrace(Ignores().eval(), (x, x)).explain(x, x)
    assert torch.equal(explanation.inputs["unused"], torch.zeros_like(x))


def test_an_input_that_is_only_scaled_is_explained_without_a_predict(x: Tensor) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x: Tensor, more: Tensor) -> Tensor:
            return self.fc(x) + (more * 2).tanh()

    dlb = DLBacktrace(Scaled().eval(), (x, x))
    dlb.predict(x, x + 1)
    for name, tensor in dlb.explain(x, x + 1).inputs.items():
        assert torch.equal(tensor, dlb.evaluation()[name])


def test_a_model_that_returns_its_input_passes_all_of_it(x: Tensor) -> None:
    explanation = DLBacktrace(nn.Identity().eval(), x).explain(x, target=2)
    assert torch.equal(explanation.inputs["input"], 100.0 * nn.functional.one_hot(torch.tensor([2] * 3), 6))


@pytest.mark.parametrize(
    ("wrap", "by_name"),
    [
        (lambda i, a, b: (i, a, b), None),
        (lambda i, a, b: {"index": i, "logits": a, "scores": b}, "scores"),
        (lambda i, a, b: {"index": i, "head": {"logits": a, "scores": b}}, "head.scores"),
        (lambda i, a, b: (i, Pair(a, b)), None),
    ],
    ids=["tuple", "dict", "nested dict", "named tuple"],
)
def test_output_chooses_among_several_and_is_the_first_floating_one_by_default(
    wrap: Any, by_name: str | None, x: Tensor
) -> None:
    model = Several(wrap).eval()
    torch.testing.assert_close(DLBacktrace(model, x).explain(x).output, model.first(x))
    torch.testing.assert_close(DLBacktrace(model, x, output=2).explain(x).output, model.second(x))
    if by_name:
        torch.testing.assert_close(DLBacktrace(model, x, output=by_name).explain(x).output, model.second(x))
    with pytest.raises(ValueError, match=r"output='nothing': the model's floating outputs are 1.*2"):
        DLBacktrace(model, x, output="nothing")
    with pytest.raises(ValueError, match="output=0: the model's floating outputs"):
        DLBacktrace(model, x, output=0)


def test_the_output_of_transformers_is_chosen_by_its_field() -> None:
    case = CASES["bert-sdpa"]
    model, call = case.model(), case.example()
    explanation = DLBacktrace(model, call, output="logits").explain(**call)
    torch.testing.assert_close(explanation.output, model(**call).logits)


def test_a_text_model_takes_its_first_arguments_by_position() -> None:
    case = CASES["bert-sdpa"]
    model, call = case.model(), case.example()
    by_name = traced(case.name)
    by_position = DLBacktrace(model, (call["input_ids"], call["attention_mask"]))
    assert_explains_alike(by_position.explain(*call.values()), by_name.explain(**call))
    assert_explains_alike(by_position.explain(**call), by_name.explain(*call.values()))


def test_integers_are_explained_where_a_lookup_reads_them() -> None:
    case = CASES["bert-sdpa"]
    call = {**case.example(), "token_type_ids": torch.randint(0, 2, (2, 7))}
    explanation = DLBacktrace(case.model(), call).explain(**call)
    assert {name: tuple(t.shape) for name, t in explanation.inputs.items()} == {
        "input_ids": (2, 7),
        "token_type_ids": (2, 7),
    }
    assert sum(explanation.ledger.inputs.values()) == pytest.approx(200, abs=1e-3)


def test_ids_that_are_shifted_into_one_table_are_explained() -> None:
    class Columns(nn.Module):
        """Every column has its own rows of the table; a count goes in beside them and is no id."""

        def __init__(self) -> None:
            super().__init__()
            self.table, self.fc = nn.Embedding(9, 4), nn.Linear(4, 3)
            self.register_buffer("offsets", torch.tensor([0, 3, 5]))

        def forward(self, ids: Tensor, counts: Tensor) -> Tensor:
            known = (counts + self.offsets).float().mean(1, keepdim=True)
            return self.fc(self.table(ids + self.offsets).sum(1)) + known

    ids, counts = torch.tensor([[2, 0, 3], [1, 1, 0]]), torch.randint(0, 5, (2, 3))
    dlb = DLBacktrace(Columns().eval(), (ids, counts))
    for mode in ("default", "epsilon"):
        explanation = dlb.explain(ids, counts, mode=mode, target=1)
        assert {name: tuple(t.shape) for name, t in explanation.inputs.items()} == {"ids": (2, 3)}
        assert not any("offsets" in account for account in explanation.ledger.accounts)
    assert dlb.explain(ids, counts, target=1).ledger.inputs["ids"] == pytest.approx(200, abs=1e-3)


def test_a_cast_integer_is_explained_only_when_it_is_listed() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 2)

        def forward(self, counts: Tensor) -> Tensor:
            return self.fc(counts.float())

    counts = torch.randint(0, 5, (3, 6))
    with pytest.raises(ValueError, match="explain_inputs="):
        DLBacktrace(Counts().eval(), counts).explain(counts)
    explanation = DLBacktrace(Counts().eval(), counts, explain_inputs=["counts"]).explain(counts)
    assert explanation.inputs["counts"].shape == (3, 6)
    assert explanation.ledger.inputs == pytest.approx({"counts": 300.0}, abs=1e-3)


def exported(model: nn.Module, x: Tensor) -> ExportedProgram:
    return export(model, (x,), dynamic_shapes=({0: Dim.AUTO},))


def test_an_exported_program_is_explained_like_its_model(x: Tensor) -> None:
    model = MLP().eval()
    dlb = DLBacktrace(exported(model, x), x)
    for call in (x, x[:1]):
        assert_explains_alike(dlb.explain(call, mode="epsilon"), DLBacktrace(model, x).explain(call, mode="epsilon"))
    assert dlb.explain(x, keep=["fc2"]).relevance["fc2"].shape == (3, 12)


def test_an_exported_program_takes_no_other_example_or_shapes_than_its_own(x: Tensor) -> None:
    program = exported(MLP().eval(), x)
    with pytest.raises(InputMismatchError, match="expected"):
        DLBacktrace(program, torch.randn(2, 7))
    with pytest.raises(ValueError, match="dynamic_shapes"):
        DLBacktrace(program, x, dynamic_shapes={"x": (1,)})


def test_image_sizes_may_change_on_request() -> None:
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(2, 3, 12, 12)
    dlb = DLBacktrace(model, x, dynamic_shapes={"x": (2, 3)})
    other = torch.randn(1, 3, 9, 17)
    torch.testing.assert_close(dlb.predict(other)["output"].output, model(other))
    assert dlb.evaluation()["x"].shape == other.shape
    with pytest.raises(InputMismatchError, match="dynamic_shapes"):
        DLBacktrace(model, x).predict(other)


def test_a_size_that_the_model_fixes_is_refused_at_another(x: Tensor) -> None:
    class Loop(nn.Module):
        """A Python loop over time becomes as many steps as were traced."""

        def forward(self, x: Tensor) -> Tensor:
            state = x[:, 0]
            for step in range(1, x.shape[1]):
                state = state * 0.5 + x[:, step]
            return state

    series = x.reshape(3, 3, 2)
    dlb = DLBacktrace(Loop().eval(), series, dynamic_shapes={"x": (1,)})
    assert dlb.explain(series[:2]).inputs["x"].shape == (2, 3, 2)
    with pytest.raises(InputMismatchError, match=r"expected \[\w+, 3, 2\].*got \[3, 2, 2\]"):
        dlb.predict(series[:, :2])


def test_sizes_may_be_fixed(x: Tensor) -> None:
    dlb = DLBacktrace(MLP().eval(), x, dynamic_shapes=None)
    assert dlb.predict(x)["output"].output.shape == (3, 4)
    with pytest.raises(InputMismatchError, match=r"expected \[3, 6\].*got \[2, 6\]"):
        dlb.predict(x[:2])


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"y": (1,)}, "dynamic_shapes names y: the inputs are x"),
        ({"x": (4,)}, "names dimension 4 of a tensor with 2"),
        ("all", '"auto", "static", None'),
    ],
)
def test_dynamic_shapes_that_fit_nothing_are_refused(shapes: Any, says: str, x: Tensor) -> None:
    with pytest.raises(ValueError, match=says):
        DLBacktrace(MLP().eval(), x, dynamic_shapes=shapes)


def test_an_empty_batch_has_no_units(x: Tensor) -> None:
    explanation = DLBacktrace(MLP().eval(), x).explain(x[:0])
    assert explanation.inputs["x"].shape == (0, 6)
    assert explanation.ledger.seed == 0
