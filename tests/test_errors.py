"""Bad input: every error says what happened, where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_packs import Site, site
from swoosh_ops import One
from torch import Tensor, nn
from zoo import MLP, traced

from dlb_core import (
    ConservationError,
    DLBacktrace,
    InputMismatchError,
    NonFiniteError,
    RuleError,
    TraceError,
    UnsupportedOpError,
)


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with site(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(4, 6)


class Uncovered(nn.Module):
    """Ops without a row: one inside a module, one twice; one on a constant, which needs none."""

    def __init__(self) -> None:
        super().__init__()
        self.body = One("gauss")
        self.table = nn.Parameter(torch.rand(3) + 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return torch.ops.swoosh.swoosh(torch.ops.swoosh.swoosh(y)) + torch.special.gammaln(self.table)


def test_all_ops_without_a_rule_come_in_one_error_before_any_work(packs: Site, x: Tensor) -> None:
    packs.add("broken", "raise ImportError('no compiler here')")
    packs.add_rules("sound", "[elementwise('sound::op')]")
    with pytest.raises(UnsupportedOpError) as caught:
        DLBacktrace(Uncovered().eval(), x)
    missing = {m.op: m for m in caught.value.missing}
    assert set(missing) == {"swoosh::gauss.default", "swoosh::swoosh.default"}
    assert (missing["swoosh::gauss.default"].module, missing["swoosh::gauss.default"].count) == ("body", 1)
    assert missing["swoosh::swoosh.default"].count == 2
    text = str(caught.value)
    for part in (
        "2 op(s)",
        "swoosh::gauss(Tensor x) -> Tensor",
        "node 'gauss' in module 'body'",
        "node 'swoosh'",
        "packs looked in: builtin, ",
        "sound",
        "broken: ImportError: no compiler here",
        "from dlb_core.rules import elementwise, hookimpl",
        "dlb plugins",
    ):
        assert part in text, part


def test_a_model_in_training_mode_is_refused(x: Tensor) -> None:
    with pytest.raises(TraceError, match=r"the model is in training mode.*call model.eval\(\) first"):
        DLBacktrace(MLP().train(), x)
    model = MLP().eval()
    model.fc2.train()
    with pytest.raises(TraceError, match="submodule 'fc2' is in training mode"):
        DLBacktrace(model, x)


@pytest.mark.parametrize("thing", [MLP, len, "model.pt2", None], ids=["class", "function", "path", "nothing"])
def test_what_is_no_module_is_refused(thing: Any, x: Tensor) -> None:
    with pytest.raises(TraceError, match=f"expected an nn.Module or an ExportedProgram, got {type(thing).__name__}"):
        DLBacktrace(thing, x)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # here
            x = x * 2
        return x


def test_an_untraceable_model_names_the_place_and_what_to_try(x: Tensor) -> None:
    with pytest.raises(TraceError) as caught:
        DLBacktrace(Branches().eval(), x, tracer="export")
    text = str(caught.value)
    assert "test_errors.py" in text
    assert "if x.sum() > 0:  # here" in text
    assert "What to try" in text
    assert 'tracer="tape"' in text
    assert "`if` on tensor values" in text


def test_a_model_that_fails_by_itself_is_told_apart(x: Tensor) -> None:
    with pytest.raises(TraceError, match=r"the model itself fails on this input.*shapes cannot be multiplied"):
        DLBacktrace(nn.Linear(7, 2).eval(), x)


def mismatches() -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Calls of a text model traced with 2 x 7 ids, and what the error must say."""
    ids = torch.ones(2, 7, dtype=torch.long)
    return {
        "another rank": ({"input_ids": ids[0], "attention_mask": ids[0]}, ["'input_ids'", "expected [", "got [7]"]),
        "another dtype": (
            {"input_ids": ids, "attention_mask": ids.float()},
            ["'attention_mask'", "torch.int64", "got [2, 7] torch.float32", ".to(torch.int64)"],
        ),
        "another device": (
            {"input_ids": ids.to("meta"), "attention_mask": ids},
            ["'input_ids'", "on cpu", "on meta", ".to('cpu')"],
        ),
        "sizes that differ": (
            {"input_ids": ids, "attention_mask": ids[:, :5]},
            ["'attention_mask'", "size 5", "'input_ids' has 7", "make them equal"],
        ),
        "too long a text": (
            {"input_ids": torch.ones(2, 41, dtype=torch.long), "attention_mask": torch.ones(2, 41, dtype=torch.long)},
            ["'input_ids'", "41", "40", "shorten"],
        ),
        "one input less": ({"input_ids": ids}, ["expected input_ids, attention_mask", "Trace again"]),
        "no tensor": ({"input_ids": [[1, 2]], "attention_mask": ids}, ["Trace again"]),
        "an unknown name": ({"input_ids": ids, "mask": ids}, ["mask"]),
        "nothing": ({}, ["input_ids"]),
    }


@pytest.fixture(scope="module")
def bert() -> DLBacktrace:
    return traced("bert-sdpa")


@pytest.mark.parametrize("name", mismatches())
def test_inputs_unlike_the_traced_ones_say_expected_and_got(name: str, bert: DLBacktrace) -> None:
    call, parts = mismatches()[name]
    with pytest.raises(InputMismatchError) as caught:
        bert.predict(**call)
    for part in parts:
        assert part in str(caught.value), (part, str(caught.value))


def test_a_fixed_size_says_how_to_free_it(x: Tensor) -> None:
    dlb = DLBacktrace(MLP().eval(), x)
    with pytest.raises(InputMismatchError, match=r"got \[4, 5\].*dynamic_shapes=\{'x': \(dims, ...\)\}"):
        dlb.predict(x[:, :5])


def test_an_unknown_mode_or_option_lists_the_choices(x: Tensor) -> None:
    dlb = DLBacktrace(MLP().eval(), x)
    dlb.predict(x)
    with pytest.raises(ValueError, match=r"unknown mode 'lrp'; the modes are: auto, alpha-beta, .*epsilon"):
        dlb.evaluation("lrp")
    with pytest.raises(ValueError, match=r"has no option 'epsilon'; it has: .*eps="):
        dlb.evaluation("epsilon", epsilon=1e-3)
    with pytest.raises(ValueError, match="'nothing'"):
        dlb.explain(x, nothing=1)
    with pytest.raises(ValueError, match="bias='keep': choose one of 'absorb', 'redistribute'"):
        dlb.evaluation("epsilon", bias="keep")
    for eps in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="must be a positive number"):
            dlb.evaluation("epsilon", eps=eps)
    with pytest.raises(ValueError, match="tracer='magic': choose one of"):
        DLBacktrace(MLP().eval(), x, tracer="magic")


NO_TEMPERATURES = [0, -1.0, float("nan"), float("inf"), "2", True, None, 1 + 0j, torch.tensor(2.0), [2.0]]


@pytest.mark.parametrize("temperature", NO_TEMPERATURES, ids=repr)
def test_a_temperature_that_divides_nothing_is_refused(temperature: Any, x: Tensor) -> None:
    dlb = DLBacktrace(MLP().eval(), x)
    for call in (dlb.predict, dlb.explain):
        with pytest.raises(ValueError, match="must be a positive finite number"):
            call(x, temperature=temperature)


def test_a_temperature_that_makes_infinities_is_refused(x: Tensor) -> None:
    dlb = DLBacktrace(MLP().eval(), x)
    for call in (dlb.predict, dlb.explain):
        with pytest.raises(ValueError, match="so small that the divided output overflows"):
            call(x, temperature=1e-320)


@pytest.mark.parametrize("last", [nn.Softmax(-1), nn.Sigmoid()], ids=["softmax", "sigmoid"])
def test_a_temperature_divides_no_probabilities(last: nn.Module, x: Tensor) -> None:
    dlb = DLBacktrace(nn.Sequential(MLP(), last).eval(), x)
    for call in (dlb.predict, dlb.explain):
        with pytest.raises(ValueError, match="a probability already"):
            call(x, temperature=2.0)
        call(x, temperature=1.0)


class Both(nn.Module):
    """Logits, and their probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = MLP()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.mlp(x)
        return {"logits": logits, "probabilities": logits.softmax(-1)}


def test_of_several_outputs_a_temperature_divides_the_logits(x: Tensor) -> None:
    dlb = DLBacktrace(Both().eval(), x)
    dlb.explain(x, target={"logits": 1}, temperature=2.0)
    dlb.explain(x, target={"probabilities": 1})
    with pytest.raises(ValueError, match="a probability already"):
        dlb.explain(x, target={"probabilities": 1}, temperature=2.0)


def test_a_nan_in_the_input_is_named(x: Tensor) -> None:
    dlb = DLBacktrace(MLP().eval(), x)
    x = x.clone()
    x[1, 2] = float("nan")
    for call in (dlb.predict, dlb.explain):
        with pytest.raises(NonFiniteError, match="first at input 'x': look at what feeds it"):
            call(x)


def test_a_nan_in_the_forward_names_its_first_node(x: Tensor) -> None:
    model = MLP().eval()
    with torch.no_grad():
        model.fc2.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="first at node 'linear_1'"):
        DLBacktrace(model, x).predict(x)


class Masked(nn.Module):
    """Its mask writes -inf before a softmax, as it should; the layer after that is broken."""

    def __init__(self) -> None:
        super().__init__()
        self.scores, self.broken = nn.Linear(6, 6), nn.Linear(6, 2)
        nn.init.constant_(self.broken.weight, float("nan"))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.arange(6) > 3
        return self.broken(x * self.scores(x).masked_fill(hidden, float("-inf")).softmax(-1))


def test_a_masked_score_is_not_taken_for_the_fault(x: Tensor) -> None:
    with pytest.raises(NonFiniteError, match="first at node 'linear_1'"):
        DLBacktrace(Masked().eval(), x).predict(x)


RULES = {
    "nan": ("Shares({'x': r / 0 * 0})", NonFiniteError, ["NaN or infinite at node 'swoosh'", "relevance_dtype="]),
    "loss": (
        "Shares({'x': r * 0.75}, sink=(r * 0.125).sum())",
        ConservationError,
        [
            *("node 'swoosh'", "swoosh::swoosh.default", "kind rule", "pack faulty", "in 400", "out 300"),
            *("sink 50", "lost 50", "relevance_dtype=torch.float64"),
        ],
    ),
    "shape": (
        "Shares({'x': r.sum(0)})",
        RuleError,
        ["swoosh::swoosh.default", "node 'swoosh' (pack faulty", "returned shape [6] for operand 'x' of shape [4, 6]"],
    ),
    "operand": ("Shares({'y': r})", RuleError, ["gave relevance to 'y'", "operands are ['x']"]),
    "no shares": ("r", RuleError, ["swoosh::swoosh.default", "Shares"]),
    "nothing": ("None", RuleError, ["swoosh::swoosh.default", "Shares"]),
}


class Direct(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.swoosh.swoosh(x)


@pytest.mark.parametrize(("body", "error", "parts"), RULES.values(), ids=RULES)
def test_a_faulty_rule_is_named(body: str, error: type[Exception], parts: list[str], packs: Site, x: Tensor) -> None:
    packs.add(
        "faulty",
        f"""
        @rule("swoosh::swoosh")
        def faulty(call, r, mode): return {body}

        @hookimpl
        def dlb_rules(): return [faulty]
        """,
    )
    with pytest.raises(error) as caught:
        DLBacktrace(Direct().eval(), x).explain(x)
    for part in parts:
        assert part in str(caught.value), (part, str(caught.value))


def test_a_rule_that_raises_is_named_in_a_note(packs: Site, x: Tensor) -> None:
    packs.add(
        "faulty",
        """
        @rule("swoosh::swoosh")
        def faulty(call, r, mode): raise KeyError("not mine")

        @hookimpl
        def dlb_rules(): return [faulty]
        """,
    )
    with pytest.raises(KeyError, match="not mine") as caught:
        DLBacktrace(Direct().eval(), x).explain(x)
    assert any("swoosh::swoosh.default at node 'swoosh' (pack faulty" in note for note in caught.value.__notes__)


def test_an_output_that_depends_on_no_input_is_refused(x: Tensor) -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(x.shape[0], 2)

    with pytest.raises(ValueError, match="depends on no explained input"):
        DLBacktrace(Constant().eval(), x).explain(x)


def test_a_model_without_a_floating_output_is_refused(x: Tensor) -> None:
    class Index(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.argmax(-1)

    with pytest.raises(ValueError, match="the model's floating outputs are none"):
        DLBacktrace(Index().eval(), x)
