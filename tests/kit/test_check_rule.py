"""`check_rule` on rules that are right: what it takes, what it asks, what it cannot ask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlb_core.kernel.packs import registry
from dlb_core.rules import Shares, constant, elementwise, layer_rule, linear, lookup, move, rule
from dlb_core.testing import Case, Report, RuleCheckError, check_rule, isolated_registry
from dlb_core.testing.check import examine
from dlb_core.testing.properties import PROPERTIES

from .wrong import HALF, KIT

aten = torch.ops.aten
ALL = {each.name for each in PROPERTIES}

# one row per kind that can be guessed, and the properties that have nothing to say about it
BUILTIN = {
    "aten::relu": set(),
    "aten::mul.Tensor": set(),
    "aten::add.Tensor": set(),
    "aten::linear": set(),
    "aten::matmul": set(),
    "aten::mean.dim": {"batch", "sizes"},
    "aten::layer_norm": set(),
    "aten::softmax.int": set(),
    "aten::scaled_dot_product_attention": {"batch", "sizes"},
    "aten::embedding": {"batch", "sizes"},
    "aten::permute": {"batch", "sizes"},
    "aten::maximum": set(),
}


@pytest.mark.parametrize("op", BUILTIN)
def test_rows_of_every_kind_hold_every_property(op: str) -> None:
    (row,) = registry().rows[op]
    report = examine(row)
    assert report.error is None, str(report.error)
    assert ALL - set(report.passed) <= BUILTIN[op], report.skipped
    assert report.cases > 0


def test_a_row_is_checked_by_its_name_and_knows_its_pack() -> None:
    check_rule("aten::relu")
    with pytest.raises(ValueError, match="no loaded pack has a row for kit::curve; packs: builtin"):
        check_rule("kit::curve")
    with pytest.raises(ValueError, match=r"unknown mode 'gama'; the modes are: auto, alpha-beta, .*epsilon"):
        check_rule("aten::relu", modes=["gama"])
    with isolated_registry("builtin", rows=[elementwise("aten::relu", forward=lambda x: x.clamp(min=0))]):
        check_rule("aten::relu")


def test_one_mode_or_one_policy_may_be_asked_for() -> None:
    asked: list[Any] = []

    @rule("kit::curve")
    def listens(call: Any, r: Tensor, mode: Any) -> Shares:
        asked.append((mode.name, mode.bias))
        return Shares({"x": r})

    check_rule(listens, modes=["epsilon"])
    assert set(asked) == {("epsilon", "absorb"), ("epsilon", "redistribute")}
    asked.clear()
    check_rule(listens, modes=[("default", "absorb")])
    assert set(asked) == {("default", "absorb")}


def test_a_rule_of_some_modes_is_asked_in_those() -> None:
    asked: list[str] = []

    @rule("kit::curve", modes=("epsilon",))
    def listens(call: Any, r: Tensor, mode: Any) -> Shares:
        asked.append(mode.name)
        return Shares({"x": r})

    check_rule(listens)
    assert set(asked) == {"epsilon"}


def test_what_cannot_be_guessed_is_said_and_never_passes() -> None:
    row = move("kit::half", back=lambda r, call: torch.cat([r, torch.zeros_like(r)], -1))
    # [2, 3] has no half of a whole: the op takes it, and the row is wrong there
    with pytest.raises(RuleCheckError, match="broke"):
        check_rule(row)
    check_rule(row, cases=[HALF, Case(KIT.curve.default, lambda t: {"x": t(2)}, ("x",))])  # of another op: passed over
    for unknown in (elementwise("kit::nothing"), elementwise("operator.floordiv")):
        with pytest.raises(ValueError, match=r"cannot be checked: no case: no op .*give a Case"):
            check_rule(unknown)
    with pytest.raises(ValueError, match="arguments cannot be guessed from its schema"):
        check_rule("aten::conv3d.default")


def test_rows_that_carry_nothing_or_run_elsewhere_are_not_asked() -> None:
    check_rule(constant("kit::curve"))
    report = examine(elementwise("kit::curve", device="meta_device_of_nobody"))
    assert report.status == "skipped"
    assert report.skipped == {"all": "there is no meta_device_of_nobody device here"}


def test_a_rule_that_is_looped_says_so() -> None:
    def run(call: Any, r: Tensor, mode: Any) -> Shares:
        return Shares({"x": r * (1.0 if float(r.sum()) > -1e9 else 2.0)})

    check_rule(rule("kit::curve", dynamic=True)(run))
    with pytest.raises(RuleCheckError, match="or say dynamic=True on the row"):
        check_rule(rule("kit::curve")(run))


def test_a_row_for_one_dtype_is_asked_in_it() -> None:
    seen: set[torch.dtype] = set()

    def back(r: Tensor, call: Any) -> Tensor:
        seen.add(r.dtype)
        return r

    check_rule(move("aten::alias", dtypes=(torch.float32,), back=back))
    assert seen == {torch.float32}


class Blend(nn.Module):
    """Two inputs, a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.weight * x.tanh() + y


BLEND = Case(Blend, lambda t: {"x": t(3, 4), "y": t(3, 4)}, ("x", "y"), batch=("x", "y"), module=Blend)


def examined(run: Any, **more: Any) -> Report:
    return examine(layer_rule(Blend, **more)(run), cases=[BLEND])


def test_a_layer_rule_is_checked_on_an_instance() -> None:
    def halves(call: Any, r: Tensor, mode: Any) -> Shares:
        return Shares({"input": r / 2, "input_1": r / 2})

    report = examined(halves)
    assert report.error is None, str(report.error)
    assert {"forward", "conservation", "seed", "zeros", "dtypes", "batch", "sizes", "vmap"} <= set(report.passed)
    check_rule(layer_rule(Blend)(halves), cases=[BLEND], modes=["default"])
    with pytest.raises(ValueError, match="a layer's module and inputs cannot be guessed"):
        check_rule(layer_rule(Blend)(halves))


WRONG_LAYERS: dict[str, tuple[Any, str, str]] = {
    "loses units": (
        lambda call, r, mode: Shares({"input": r / 3, "input_1": r / 3}),
        "conservation",
        "not conserved at node",
    ),
    "wrong shape": (lambda call, r, mode: Shares({"input": r.sum(0)}), "conservation", "returned shape [4]"),
    "mixes the batch": (
        lambda call, r, mode: Shares({"input": r.mean(0, keepdim=True).expand(r.shape) if len(r) else r}),
        "batch",
        "relevance of x of a batch member",
    ),
    "changes its parameters": (
        lambda call, r, mode: (call.weight.mul_(1.0), Shares({"input": r}))[1],
        "untouched",
        "its parameters in place",
    ),
    "forgets reads": (
        lambda call, r, mode: Shares({"input": r * (call.input > 0) + r * (call.input <= 0)}),
        "reads",
        "did not name in reads=",
    ),
}


@pytest.mark.parametrize(("run", "broken", "says"), WRONG_LAYERS.values(), ids=WRONG_LAYERS)
def test_a_wrong_layer_rule_names_itself(run: Any, broken: str, says: str) -> None:
    error = examined(run).error
    assert error is not None
    assert (error.broken, error.rule) == (broken, f"layer::{__name__}.Blend")
    assert says in error.why


def test_the_smallest_case_is_shown_with_its_values() -> None:
    cases = [Case(KIT.curve.default, lambda t, n=n: {"x": t(n)}, ("x",), label=f"of {n}") for n in (7, 2, 0, 40)]
    loses = rule("kit::curve")(lambda call, r, mode: Shares({"x": r * 0.9}))
    with pytest.raises(RuleCheckError) as caught:
        check_rule(loses, cases=cases)
    assert "x [2] float64 = [" in caught.value.case
    assert "of 2" in caught.value.case
    large = [case for case in cases if case.label == "of 40"]
    with pytest.raises(RuleCheckError) as caught:
        check_rule(loses, cases=large)
    assert caught.value.case.endswith("x [40] float64")


def test_an_oracle_is_no_other_way_to_read_the_row() -> None:
    """Rows that agree with themselves and not with the op."""
    doubled = linear("aten::linear", x="input", weight="weight", bias="bias", apply=lambda x, w, call: 2 * x @ w.mT)
    with pytest.raises(RuleCheckError, match="is not what the op gives"):
        check_rule(doubled)
    swapped = lookup("kit::rows", ids="ids", table="table")
    with pytest.raises(RuleCheckError, match="rows of table at ids"):
        check_rule(swapped)
