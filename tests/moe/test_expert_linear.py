"""`expert_linear`: forward, gradients and batches against copies of weights, relevance against the dense oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.func import vmap
from torch.utils._python_dispatch import TorchDispatchMode

from dlb_core.testing import Case, bind, bind_op, check_rule, oracle
from dlb_ops_moe import DLB_CASES
from dlb_ops_moe.op import _gathered, expert_linear, expert_outer

from .routed import Routed, dense, routed

OP = torch.ops.dlb_moe.expert_linear.default
FORMULATED = [name for name in oracle.MODES if name not in ("attnlrp", "cp-lrp")]  # those two share epsilon's
MODES = [(name, bias) for name in FORMULATED for bias in ("absorb", "redistribute")]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
STRIDES = [lambda t: t, lambda t: t.mT.contiguous().mT if t.dim() > 1 else t, lambda t: torch.stack([t, t], -1)[..., 0]]


def example(k: int = 2, bias: bool = True, transposed: bool = False) -> Routed:
    """Three tokens, four experts: a token with one of them twice, one that nobody chose."""
    g = torch.Generator().manual_seed(1)
    index = torch.tensor([[2, 0, 1], [1, 1, 0], [0, 1, 2]])[:, :k]
    shape = (3, 2) if transposed else (2, 3)
    x, weight = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((3, k, 3), (4, *shape)))
    return Routed(x, index, weight, torch.randn(4, 2, generator=g, dtype=torch.float64) if bias else None, transposed)


# --- forward ----------------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(routed(), st.sampled_from([*TOLERANCE]), st.sampled_from(STRIDES), st.sampled_from(STRIDES))
def test_forward_is_that_of_copied_weights(call: Routed, dtype: torch.dtype, of_x: Any, of_w: Any) -> None:
    low = call.to(dtype)
    low.x, low.weight = of_x(low.x), of_w(low.weight)
    kept = {name: v.clone() for name, v in vars(low).items() if isinstance(v, Tensor)}
    y = expert_linear(**low.arguments)
    assert y.dtype == dtype
    assert y.is_contiguous()
    exact = dense(**low.to(torch.float64).arguments)
    torch.testing.assert_close(y.double(), exact, rtol=TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])
    for name, before in kept.items():
        assert torch.equal(getattr(low, name), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_adds_up_in_float32(dtype: torch.dtype) -> None:
    """4096 times 1 beside a large number: each alone would be lost."""
    x, weight = torch.ones(1, 4097, dtype=dtype), torch.ones(1, 1, 4097, dtype=dtype)
    weight[0, 0, 0] = 4096
    assert float(expert_linear(x, torch.tensor([0]), weight)) == 8192


class Gathers(TorchDispatchMode):
    """Notes from what floating rows are picked."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[torch.Size] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index_select.default and args[0].is_floating_point():
            self.sources.append(args[0].shape)
        return func(*args, **(kwargs or {}))


def test_rows_of_an_expanded_x_are_picked_from_what_is_in_memory() -> None:
    x, order = torch.randn(6, 1, 5).expand(6, 8, 5), torch.randperm(48)
    with Gathers() as watch:
        picked = _gathered(x, order)
    assert watch.sources == [(6, 5)]
    assert torch.equal(picked, x.reshape(48, 5)[order])


def test_no_rows_and_no_dimension() -> None:
    weight, bias = torch.randn(3, 2, 4), torch.randn(3, 2)
    assert expert_linear(torch.randn(0, 2, 4), torch.zeros(0, 2, dtype=torch.int64), weight, bias).shape == (0, 2, 2)
    one = torch.randn(4)
    torch.testing.assert_close(expert_linear(one, torch.tensor(2), weight, bias), weight[2] @ one + bias[2])


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "beyond": ({"index": torch.full((3, 2), 4)}, IndexError, "names expert 4, but weight has 4, 0 to 3"),
    "negative": ({"index": torch.full((3, 2), -1)}, IndexError, "names expert -1"),
    "one of them": ({"index": torch.tensor([[0, 1], [2, 4], [3, 0]])}, IndexError, "names expert 4"),
    "floating": ({"index": torch.zeros(3, 2)}, RuntimeError, "index is torch.float32: expected int64 or int32"),
    "boolean": ({"index": torch.zeros(3, 2) > 0}, RuntimeError, "index is torch.bool"),
    "rows": ({"index": torch.zeros(2, 2, dtype=torch.int64)}, RuntimeError, r"x has shape \[3, 2, 3\], index \[2, 2\]"),
    "features": ({"weight": torch.zeros(4, 2, 5).double()}, RuntimeError, r"x has 3 features: .* takes 5"),
    "turned": ({"transposed": True}, RuntimeError, r"\[4, 2, 3\], \[experts, inputs, outputs\], takes 2"),
    "one map": ({"weight": torch.zeros(2, 3).double()}, RuntimeError, r"expected \[experts, outputs, inputs\]"),
    "bias": ({"bias": torch.zeros(3, 2).double()}, RuntimeError, r"bias has shape \[3, 2\]: expected \[4, 2\]"),
    "dtypes": ({"weight": torch.zeros(4, 2, 3)}, RuntimeError, "x is torch.float64 and weight torch.float32"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_what_does_not_fit_is_named(wrong: str) -> None:
    changed, kind, words = BAD[wrong]
    arguments = {**example().arguments, **changed}
    with pytest.raises(kind, match=f"expert_linear: .*{words}"):
        expert_linear(**arguments)
    if kind is RuntimeError:  # the traced op says so too
        with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(kind, match=words):
            expert_linear(**arguments)


# --- shapes, gradients, batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [False, True])
def test_torch_can_trace_and_differentiate_it(transposed: bool) -> None:
    """Its schema, shapes with symbols, autograd formulas; twice differentiable in x, weight and bias."""
    call = example(transposed=transposed)
    x, weight, bias = (t.requires_grad_() for t in (call.x, call.weight, call.bias) if t is not None)
    torch.library.opcheck(expert_linear, (x, call.index, weight, bias, transposed))
    torch.library.opcheck(expert_outer, (x, torch.randn(3, 2, 5).double().requires_grad_(), call.index, 4))

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return expert_linear(x, call.index, weight, bias, transposed)

    assert torch.autograd.gradcheck(run, (x, weight, bias))
    assert torch.autograd.gradgradcheck(run, (x, weight, bias))


@settings(max_examples=30)
@given(routed())
def test_gradients_are_those_of_copied_weights(call: Routed) -> None:
    names = [name for name in ("x", "weight", "bias") if getattr(call, name) is not None]
    found = []
    for function in (expert_linear, dense):
        leaves = {name: getattr(call, name).detach().clone().requires_grad_() for name in names}
        function(**{**call.arguments, **leaves}).sin().sum().backward()
        found.append([leaves[name].grad for name in names])
    torch.testing.assert_close(*found)


@settings(max_examples=40)
@given(routed(), st.tuples(*[st.booleans()] * 4).filter(any), st.integers(0, 2))
def test_a_batch_of_calls_is_each_call(call: Routed, batched: tuple[bool, ...], at: int) -> None:
    """Whatever is batched: x, ids, weights, biases, and along whatever dimension."""
    names = ("x", "index", "weight", "bias")
    g = torch.Generator().manual_seed(3)
    stacks, dims = {}, {}
    for name, several in zip(names, batched, strict=True):
        value = getattr(call, name)
        if several and value is not None:
            noise = torch.randint(call.weight.shape[0], (3, *value.shape), generator=g).to(value.dtype)
            stacks[name], dims[name] = noise if name == "index" else value + noise, min(at, value.dim())
    if not stacks:
        return
    fixed = {name: v for name, v in call.arguments.items() if name not in stacks}

    def run(parts: dict[str, Tensor]) -> Tensor:
        return expert_linear(**fixed, **parts)

    together = vmap(run, in_dims=(dims,))({name: v.movedim(0, dims[name]) for name, v in stacks.items()})
    alone = [dense(**fixed, **{name: v[i] for name, v in stacks.items()}) for i in range(3)]
    torch.testing.assert_close(together, torch.stack(alone))


def test_a_batch_of_gradients_is_each_gradient() -> None:
    call = example(bias=False)
    seeds = torch.randn(3, 3, 2, 2, dtype=torch.float64)
    together = vmap(lambda s: expert_outer(s, call.x, call.index, 4))(seeds)
    copies = torch.nn.functional.one_hot(call.index, 4).double()
    torch.testing.assert_close(together, torch.einsum("bsko,ski,ske->beoi", seeds, call.x, copies))


def test_in_a_batch_of_weights_no_id_is_taken_for_another_members_expert() -> None:
    call = example(bias=False)
    with pytest.raises(IndexError, match="names expert"):
        vmap(lambda w: expert_linear(call.x, call.index + 2, w))(torch.randn(3, 4, 2, 3, dtype=torch.float64))


# --- relevance --------------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(routed(rows=3), st.sampled_from(MODES))
def test_relevance_is_that_of_the_dense_matrix(call: Routed, mode: tuple[str, str]) -> None:
    """Neuron by neuron, with all that is booked: its own expert's bias is a row's bias."""
    given_ = call.arguments
    size = tuple(call.x.shape)
    w = oracle.matrix(lambda x: dense(**{**given_, "x": x, "bias": None}), size)
    nothing = torch.zeros(size, dtype=torch.float64)
    addend = dense(**{**given_, "x": nothing}).flatten()
    r = torch.randn(dense(**given_).shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = oracle.linear(w, call.x.flatten(), addend, r.flatten(), mode)
    tensors = {name: v for name, v in given_.items() if v is not None}
    done = bind_op(OP, tensors, ["x"], mode).back(r)
    flows = max([float(t.abs().max()) for t in (r, expected.x) if t.numel()], default=0.0)
    torch.testing.assert_close(done["x"], expected.x.reshape(size), rtol=1e-7, atol=1e-10 * flows)
    units = {**expected.accounts, "bias:bias": float(expected.addend.sum())}
    scale = float(r.abs().sum() + expected.x.abs().sum())
    for account, amount in units.items():
        assert done.booked(account) == pytest.approx(amount, rel=1e-7, abs=1e-10 * scale)
    assert set(done.accounts) <= set(units)


@pytest.mark.parametrize("mode", ["epsilon", "default", "attnlrp", "gamma"])
@pytest.mark.parametrize("active", [("x",), ("weight",), ("x", "weight")], ids=str)
def test_it_is_what_picking_and_multiplying_is(mode: str, active: tuple[str, ...]) -> None:
    """Written with an index into the weights and a product; weights that are themselves explained as well."""
    aten = torch.ops.aten
    call = example(k=3, bias=False)
    tensors = {"x": call.x, "weight": call.weight, "index": call.index}

    def routed_op(x: Any, weight: Any, index: Any) -> Any:
        return OP(x, index, weight)

    def written(x: Any, weight: Any, index: Any) -> Any:
        product = aten.matmul.default(aten.index.Tensor(weight, [index]), aten.unsqueeze.default(x, -1))
        return aten.squeeze.dim(product, -1)

    r = torch.randn(3, 3, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    ours, theirs = (bind(f, tensors, active, mode).back(r) for f in (routed_op, written))
    for name in active:
        torch.testing.assert_close(ours[name], theirs[name])
    assert {k: v for k, v in ours.accounts.items() if v} == pytest.approx(
        {k: v for k, v in theirs.accounts.items() if v}
    )


@pytest.mark.parametrize("mode", ["epsilon", "default", "attnlrp"])
def test_the_row_holds_what_the_kit_asks(mode: str) -> None:
    """Places, books, batches, several seeds, strides: also where weights and biases are explained themselves."""
    cases: list[Case] = [case for case in DLB_CASES() if case.op is OP]
    assert {name for case in cases for name in case.active} == {"x", "weight", "bias"}
    check_rule("dlb_moe::expert_linear", cases=cases, modes=[mode])
