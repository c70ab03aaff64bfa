"""Relevance inside the network: by module, by channel, by head; where a node has them; seeds at an inner node."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import CASES, MLP, Net, traced

from dlb_core import DLBacktrace, Explanation, Heads


class Model(nn.Module):
    """A function as a model."""

    def __init__(self, run: Callable[[Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.run, self.parts = run, nn.ModuleDict(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)  # type: ignore[call-arg,arg-type]


def explained(model: nn.Module, *shape: int, **question: Any) -> Explanation:
    torch.manual_seed(0)
    x = torch.randn(*shape)
    return DLBacktrace(model.eval(), x, fold=False).explain(x, keep="all", **question)


def by_hand(r: Tensor, dim: int) -> Tensor:
    """[B, C] sums over everything but dimension 0 and `dim`."""
    return r.movedim(dim, 1).flatten(2).sum(-1) if r.dim() > 2 else r


def conv(cin: int, cout: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, 3, padding=1, **options)


def shuffle(self: Any, x: Tensor) -> Tensor:
    y = self.parts.a(x)
    y = y.reshape(-1, 2, 3, 4, 4).transpose(1, 2).reshape(-1, 6, 4, 4)
    return self.parts.b(y).mean((2, 3))


def channels_last(self: Any, x: Tensor) -> Tensor:
    y = self.parts.a(x).permute(0, 2, 3, 1)
    y = self.parts.b(F.layer_norm(y, (6,))).relu()
    return y.permute(0, 3, 1, 2).mean((2, 3))


def joined(self: Any, x: Tensor) -> Tensor:
    one, two = self.parts.a(x).chunk(2, 1)
    y = torch.cat([one.relu(), F.avg_pool2d(F.pad(two, (1, 1, 1, 1)), 3, 1)], 1)
    return self.parts.b(F.interpolate(y, scale_factor=2.0)).amax((2, 3))


def tokens(self: Any, x: Tensor) -> Tensor:
    y = self.parts.a(x).flatten(2).transpose(1, 2)
    y = torch.cat([y.new_ones(y.shape[0], 1, 6), y], 1)
    return self.parts.b(y)[:, 0]


def turned(self: Any, x: Tensor) -> Tensor:
    return self.parts.a(x.permute(0, 3, 1, 2) * 2).amax((2, 3))


def one_map(self: Any, x: Tensor) -> Tensor:
    """One channel has nothing to differ from: it is where the op made it, while the layout is kept."""
    return self.parts.a(x).relu().flatten(1)


#: name -> a model from [2, 3, 4, 4], and the dimension of channels of its nodes, None where they have none
LAYOUTS: dict[str, tuple[nn.Module, dict[str, int | None]]] = {
    "channels shuffled between groups": (
        Model(shuffle, a=conv(3, 6), b=conv(6, 5)),
        {"x": 1, "conv2d": 1, "view": None, "transpose": None, "_unsafe_view": 1, "conv2d_1": 1, "mean": 1},
    ),
    "channels last": (
        Model(channels_last, a=conv(3, 6), b=nn.Linear(6, 5)),
        {"conv2d": 1, "permute": 3, "layer_norm": 3, "linear": 3, "relu": 3, "permute_1": 1, "mean": 1},
    ),
    "split, padded, pooled, joined and enlarged": (
        Model(joined, a=conv(3, 6), b=conv(6, 4)),
        {"split": None, "getitem_1": 1, "pad": 1, "avg_pool2d": 1, "cat": 1, "upsample_nearest2d": 1, "amax": 1},
    ),
    "patches as tokens": (
        Model(tokens, a=conv(3, 6), b=nn.Linear(6, 5)),
        {"x": 1, "conv2d": 1, "view": 1, "transpose": 2, "cat": 2, "linear": 2, "select": 1},
    ),
    "one map": (Model(one_map, a=conv(3, 1)), {"conv2d": 1, "relu": 1, "view": 1}),
    "steps": (
        nn.Sequential(nn.Flatten(2), nn.LSTM(16, 5, batch_first=True)),
        {"view": 2, "lstm": None, "getitem": 2},
    ),
    "an image with its channels last": (Model(turned, a=conv(4, 3)), {"x": 3, "permute": 1, "conv2d": 1, "amax": 1}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_channels_are_where_the_graph_put_them(name: str) -> None:
    model, where = LAYOUTS[name]
    target = (1, 1) if name == "steps" else 1
    relevance = explained(model, 2, 3, 4, 4, target=target).relevance
    for node, dim in where.items():
        if dim is None:
            with pytest.raises(ValueError, match="has no dimension that the graph knows as channels"):
                relevance.by_channel(node)
        else:
            torch.testing.assert_close(relevance.by_channel(node), by_hand(relevance[node], dim), msg=node)


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_channels_of_an_input_are_those_that_its_reader_takes(batch_first: bool) -> None:
    relevance = explained(nn.LSTM(5, 4, batch_first=batch_first), 2, 3, 5, target=(0, 1)).relevance
    torch.testing.assert_close(relevance.by_channel("input"), relevance["input"].sum(1))


def test_a_dimension_may_be_given_where_the_graph_knows_none() -> None:
    model, _ = LAYOUTS["channels shuffled between groups"]
    relevance = explained(model, 2, 3, 4, 4, target=1).relevance
    torch.testing.assert_close(relevance.by_channel("view", dim=-4), by_hand(relevance["view"], 1))
    with pytest.raises(ValueError, match=r"dim=5: 'view' has dimensions 0 .. 4"):
        relevance.by_channel("view", dim=5)


def test_several_targets_come_first() -> None:
    relevance = explained(Net(), 2, 3, 8, 8, targets=[0, 3]).relevance
    assert relevance.by_channel("conv1").shape == (2, 2, 16)
    torch.testing.assert_close(relevance.by_channel("conv1"), relevance["conv1"].sum((3, 4)))
    assert [set(books) for books in relevance.by_module()] == [{"conv1", "relu", "pool", "fc", ""}] * 2


def test_each_map_of_a_contrast_has_channels() -> None:
    relevance = explained(Net(), 2, 3, 8, 8, mode="contrastive", target=1).relevance
    for side in (relevance.positive, relevance.negative, relevance):
        torch.testing.assert_close(side.by_channel("conv1"), side["conv1"].sum((2, 3)))


def test_the_channels_of_a_residual_network_are_everywhere_the_second_dimension() -> None:
    """On every node that has them, whatever it is."""
    case = CASES["resnet18"]
    relevance = traced("resnet18").explain(**case.example(), keep="all").relevance
    for name, r in relevance.items():
        if isinstance(r, tuple):  # the winners of a pool beside its values; the node that takes these is asked
            continue
        found = relevance.by_channel(name)
        assert found.shape == r.shape[:2], name
        torch.testing.assert_close(found.sum(1), r.flatten(1).sum(1), rtol=1e-4, atol=1e-3)


def test_books_by_module_are_those_of_the_ledger() -> None:
    explanation = explained(Net(), 2, 3, 8, 8, mode="epsilon", target=0)
    books = explanation.by_module()
    assert books == explanation.ledger.by_module() == explanation.relevance.by_module()
    assert books["fc"]["in"] == pytest.approx(200)
    assert books["conv1"]["out"] == pytest.approx(explanation.ledger.inputs["x"])
    leaves = math.fsum(units["booked"] for path, units in books.items() if path)
    assert leaves + math.fsum(explanation.ledger.inputs.values()) == pytest.approx(200, abs=1e-2)


HEADS = {"bert": "bert.encoder.layer.1.attention", "vit": "vit.layers.1.attention", "llama": "model.layers.1"}


def attended(name: str, **question: Any) -> tuple[DLBacktrace, Explanation]:
    dlb = traced(name, torch.float64)
    return dlb, dlb.explain(**CASES[name].example(dtype=torch.float64), keep="all", **question)


def attention_of(dlb: DLBacktrace, module: str) -> list[str]:
    """The node in a module that weights values, found by its op's name and shape."""
    view = dlb.graph()
    inside = [n for n, data in view.nodes(data=True) if f"{data['module']}.".startswith(f"{module}.")]
    fused = [n for n in inside if "scaled_dot_product" in view.nodes[n]["op"]]
    return fused or [n for n in inside if view.nodes[n]["op"] == "aten::matmul.default"][1:]


@pytest.mark.parametrize("form", ["sdpa", "eager"])
@pytest.mark.parametrize("name", HEADS)
def test_heads_are_those_of_attention_fused_or_written_out(name: str, form: str) -> None:
    module = HEADS[name]
    dlb, explanation = attended(f"{name}-{form}")
    (node,) = attention_of(dlb, module)
    r = explanation.relevance[node]
    assert r.dim() == 4
    expected = r.sum((2, 3))
    torch.testing.assert_close(explanation.relevance.by_head(node), expected)
    torch.testing.assert_close(explanation.relevance.by_head(module), expected)
    merged = [n for n, reads in dlb.graph().nodes(data=True) if reads["module"].startswith(module) and "view" in n]
    merged = [n for n in merged if n in explanation.relevance and explanation.relevance[n].dim() == 3]
    torch.testing.assert_close(explanation.relevance.by_head(merged[-1]), expected)
    with pytest.raises(ValueError, match="its relevance lies by heads"):
        explanation.relevance.by_channel(node)


def test_fused_and_written_out_attention_have_the_same_heads() -> None:
    path = HEADS["bert"]
    fused, written = (attended(f"bert-{form}", mode="epsilon", target=1)[1] for form in ("sdpa", "eager"))
    torch.testing.assert_close(fused.relevance.by_head(path), written.relevance.by_head(path))


class Weighed(nn.Module):
    """Torch's attention that hands out its weights too: its heads lie in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(12, 3, batch_first=True), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x)[0].mean(1))


class Woven(nn.Module):
    """Queries, keys and values of a head beside each other, as Bloom has them, and products of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = Mixing(), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x).mean(1))


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 36)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).unflatten(-1, (3, 3, 4)).transpose(1, 2).unbind(-2)
        q, k, v = (part.reshape(-1, x.shape[1], 4) for part in parts)
        mixed = torch.bmm(torch.bmm(q, k.mT).softmax(-1), v)
        return mixed.unflatten(0, (-1, 3)).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("cls", [Weighed, Woven])
def test_heads_may_lie_in_the_batch(cls: type[nn.Module], batch: int) -> None:
    torch.manual_seed(0)
    model, x = cls().double().eval(), torch.randn(batch, 7, 12, dtype=torch.float64)
    dlb = DLBacktrace(model, x[:1].expand(2, 7, 12))
    explanation = dlb.explain(x, target=1, keep="all")
    (node,) = (n for n, data in dlb.graph().nodes(data=True) if data["op"] == "aten::bmm.default" and n != "bmm")
    r = explanation.relevance[node]
    assert r.shape == (batch * 3, 7, 4)
    expected = r.reshape(batch, 3, 28).sum(-1)
    torch.testing.assert_close(explanation.relevance.by_head("attention"), expected)
    torch.testing.assert_close(explanation.relevance.by_head(node), expected)
    # no head goes beyond its share of the values: the parts add up to the whole, and one alone is its own
    parts = [dlb.explain(x, target=1, through={"attention": Heads(i)}) for i in range(3)]
    for i, part in enumerate(parts):
        assert part.ledger.inputs["x"] == pytest.approx(float(expected[:, i].sum()), abs=1e-6)
    torch.testing.assert_close(sum(part.inputs["x"] for part in parts), explanation.inputs["x"])
    several = dlb.explain(x, targets=[1, 2], keep="all").relevance.by_head("attention")
    torch.testing.assert_close(several[0], expected)


def test_heads_are_refused_where_there_are_none() -> None:
    _, explanation = attended("bert-sdpa")
    relevance = explanation.relevance
    with pytest.raises(ValueError, match=r"'bert.pooler'.*has no heads; the attentions are 'scaled_dot_product"):
        relevance.by_head("bert.pooler")
    with pytest.raises(ValueError, match=r"'bert.encoder'.*holds several attentions: name one of 'scaled_dot.*layer.1"):
        relevance.by_head("bert.encoder")
    plain = explained(MLP(), 2, 6, target=1).relevance
    with pytest.raises(ValueError, match="has no heads, nor has this model"):
        plain.by_head("fc1")
    with pytest.raises(ValueError, match=r"'fc11' is no node or module.*did you mean 'fc1'"):
        plain.by_channel("fc11")


def test_what_was_not_kept_or_was_saved_says_so(tmp_path: Any) -> None:
    explanation = explained(Net(), 2, 3, 8, 8, target=1)
    few = DLBacktrace(Net().eval(), torch.randn(2, 3, 8, 8)).explain(torch.randn(2, 3, 8, 8)).relevance
    with pytest.raises(KeyError, match="keep="):
        few.by_channel("conv1")
    explanation.save(tmp_path / "saved")
    loaded = Explanation.load(tmp_path / "saved")
    assert loaded.by_module() == explanation.by_module()
    with pytest.raises(ValueError, match="does not know the graph; give dim="):
        loaded.relevance.by_channel("conv2d")
    expected = explanation.relevance.by_channel("conv1")
    torch.testing.assert_close(loaded.relevance.by_channel("conv2d", dim=1), expected)


# seeds at an inner node


def seed_at(explanation: Explanation) -> Tensor:
    seed: Tensor = explanation.relevance["output"]
    return seed


def test_a_seed_at_a_convolution_is_one_channel_at_all_positions() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    dlb = DLBacktrace(Net().eval(), x)
    value = dlb.predict(x)["conv2d"].output.clone()
    equal, by_value = (dlb.explain(x, at="conv1", target=5, **q) for q in ({}, {"seed": "logit"}))
    expected = torch.zeros(2, 16, 8, 8)
    expected[:, 5] = 100 / 64
    torch.testing.assert_close(seed_at(equal), expected)
    torch.testing.assert_close(seed_at(by_value)[:, 5], value[:, 5])
    assert seed_at(by_value).count_nonzero() == 2 * 64
    assert equal.target == 5
    one_each = seed_at(dlb.explain(x, at="conv1", target=[5, -1]))
    assert one_each[0, 5].sum() == pytest.approx(100)
    assert one_each[1, 15].sum() == pytest.approx(100)


def test_a_seed_at_tokens_is_one_channel_at_all_of_them() -> None:
    dlb, call = traced("bert-sdpa"), CASES["bert-sdpa"].example()
    path = "bert.encoder.layer.0.intermediate.dense"
    several = seed_at(dlb.explain(**call, at=path, targets=[7, (slice(None), 7), (2, 7)]))
    expected = torch.zeros(2, 7, 48)
    expected[:, :, 7] = 100 / 7
    torch.testing.assert_close(several[0], expected)
    torch.testing.assert_close(several[1], expected)
    assert several[2].count_nonzero() == 2


def test_a_seed_at_an_attention_is_a_head() -> None:
    dlb, call = traced("bert-sdpa"), CASES["bert-sdpa"].example()
    node, module = "scaled_dot_product_attention_1", "bert.encoder.layer.1.attention"
    expected = torch.zeros(2, 4, 7, 8)
    expected[:, 3] = 100 / 56
    for question in ({"at": node, "target": 3}, {"at": node, "target": Heads(3)}, {"at": module, "target": Heads(-1)}):
        torch.testing.assert_close(seed_at(dlb.explain(**call, **question)), expected)
    merged = seed_at(dlb.explain(**call, at=f"{module}.self", target=Heads(3)))
    torch.testing.assert_close(merged, expected.transpose(1, 2).flatten(2))
    with pytest.raises(ValueError, match="one head to a seed"):
        dlb.explain(**call, at=node, target=Heads(0, 1))
    with pytest.raises(ValueError, match=r"out of range: choose an int in 0 .. 3"):
        dlb.explain(**call, at=node, target=4)
    with pytest.raises(ValueError, match=r"head 4 is out of range: choose from 0 .. 3"):
        dlb.explain(**call, at=f"{module}.self", target=Heads(4))
