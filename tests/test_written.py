"""Compound rows: their nodes are replaced by those of the written form, or the error says why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fake_packs import Site, site
from swoosh_ops import One
from torch import Tensor, nn

from dlb_core import DLBacktrace, RuleError, UnsupportedOpError
from dlb_ops_builtin.passes.einsum import pairs


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with site(tmp_path, monkeypatch) as made:
        yield made


def model() -> nn.Module:
    """swoosh::gauss between two dense layers: [B, 6] -> [B, 3]."""
    torch.manual_seed(0)
    return One("gauss").eval()


X = torch.linspace(-1, 1, 12).reshape(2, 6)


def test_the_parts_stand_in_the_graph_and_answer_for_the_op(packs: Site) -> None:
    packs.add_rules("mine", "[compound('swoosh::gauss', written=lambda x: (-x * x).exp())]")
    one = model()
    dlb = DLBacktrace(one, X)
    names = [*dlb.graph().nodes]
    assert {"neg", "gauss"} <= set(names)  # the last part is what the op was
    assert "exp" not in names
    done = dlb.explain(X, mode="epsilon", target=0, keep="all")
    torch.testing.assert_close(done.output, one(X))
    assert torch.equal(done.relevance["gauss"], done.relevance["exp"])


def test_a_size_that_may_change_is_read_from_the_tensor(packs: Site) -> None:
    packs.add_rules("mine", "[compound('swoosh::gauss', written=lambda x: (-x * x).exp().reshape(x.shape[0], 6))]")
    dlb = DLBacktrace(model(), X)
    wider = torch.linspace(-1, 1, 30).reshape(5, 6)
    assert dlb.explain(wider, target=0).inputs["x"].shape == (5, 6)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("lambda x: x.clone().mul_(2)", "must not change a tensor in place"),
        ("lambda x: x + TABLE", "may only use its arguments"),
        ("lambda x: torch.ops.swoosh.gauss(x)", "uses that op itself"),
        ("lambda x: x.reshape(-1)[: x.shape[0] * 3]", "computes a size"),
    ],
)
def test_what_a_written_form_must_not_do(packs: Site, written: str, says: str) -> None:
    body = f"import torch\nTABLE = torch.ones(6)\nRULES = [compound('swoosh::gauss', written={written})]\n"
    packs.add("mine", body + "@hookimpl\ndef dlb_rules(): return RULES\n")
    with pytest.raises(RuleError, match=says):
        DLBacktrace(model(), X)


def test_a_row_refuses_arguments_before_work_starts(packs: Site) -> None:
    rows = """[
        elementwise('swoosh::gauss', refuses=lambda bound: 'gauss is not for today'),
        compound('swoosh::mirror', written=lambda x: x, refuses=lambda bound: 'no gates here'),
    ]"""
    packs.add_rules("mine", rows)

    class Both(One):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.swoosh.mirror(super().forward(x), [1])

    with pytest.raises(UnsupportedOpError) as caught:
        DLBacktrace(Both("gauss").eval(), X)
    text = str(caught.value)
    assert "2 op(s) have a rule, but not for these arguments" in text
    assert "gauss is not for today (row of pack mine)" in text
    assert "no gates here" in text


def test_dropout_that_stays_on_is_refused() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.dropout(x).sum(-1)

    with pytest.raises(UnsupportedOpError, match=r"training=self\.training"):
        DLBacktrace(Noisy().eval(), X)


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5), "drops weights at random"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=-3), "negative divisor_override"),
    ],
    ids=["attention that drops", "an average turned over"],
)
def test_arguments_that_a_built_in_row_refuses(form: Callable[[Tensor], Tensor], says: str) -> None:
    class Form(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return form(x).flatten(1)

    with pytest.raises(UnsupportedOpError, match=says):
        DLBacktrace(Form().eval(), torch.randn(2, 2, 4, 4))


@pytest.mark.parametrize(
    ("equation", "steps"),
    [
        ("ab,bc,cd->ad", ["ab,bc->ac", "ac,cd->ad"]),
        ("...i,ij,jk->...k", ["...i,ij->...j", "...j,jk->...k"]),
        ("ba, cb, dc", ["ba,cb->ac", "ac,dc->ad"]),
        ("i,i,i->", ["i,i->i", "i,i->"]),
    ],
)
def test_an_einsum_of_many_is_a_chain_of_two(equation: str, steps: list[str]) -> None:
    assert pairs(equation) == steps
    sizes = {letter: 2 + at for at, letter in enumerate("abcdijk")}
    tensors = [
        torch.randn(*(3 for _ in term.split("...")[1:]), *(sizes[i] for i in term.strip().replace(".", "")))
        for term in equation.partition("->")[0].split(",")
    ]
    left = tensors[0]
    for step, right in zip(steps, tensors[1:], strict=True):
        left = torch.einsum(step, left, right)
    torch.testing.assert_close(left, torch.einsum(equation, *tensors))
