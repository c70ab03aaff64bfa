"""Arguments for losses: every reduction, labels that are ignored, weights, and targets that receive."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..case import Arguments, Case
from ..tensors import Tensors

aten = torch.ops.aten
REDUCTIONS = (0, 1, 2)


def _signs(t: Tensors, *shape: int) -> Tensor:
    return torch.where(t.mask(*shape), 1.0, -1.0).to(t(1).dtype)


def _inside(t: Tensors, *shape: int) -> Tensor:
    return t(*shape).sigmoid()


def _of(reduction: int, **more: Any) -> Any:
    """A tensor and a target of its shape."""
    return lambda t: {"self": t(3, 4), "target": t(3, 4), "reduction": reduction, **more}


def _probable(reduction: int, **more: Any) -> Any:
    return lambda t: {"self": _inside(t, 3, 4), "target": _inside(t, 3, 4), "reduction": reduction, **more}


def _weighed(make: Any, **shapes: tuple[int, ...]) -> Any:
    return lambda t: {**make(t), **{name: t.positive(*shape) for name, shape in shapes.items()}}


def _labelled(shape: tuple[int, ...], reduction: int, *, weight: bool = False, **more: Any) -> Any:
    """Classes in dimension 1, or the only one; label 1 is ignored."""

    def make(t: Tensors) -> Arguments:
        classes = shape[min(len(shape) - 1, 1)]
        target = t.ids(classes, *shape[:1], *shape[2:]) if len(shape) > 1 else torch.tensor(2)
        weights = t.positive(classes) if weight else None
        rest = {"weight": weights, "reduction": reduction, "ignore_index": 1, **more}
        return {"self": -t.positive(*shape), "target": target, **rest}

    return make


def _mixed(reduction: int, **more: Any) -> Any:
    """Probabilities for the classes."""
    return lambda t: {"self": t(2, 3, 2), "target": _inside(t, 2, 3, 2), "reduction": reduction, **more}


def _signed(reduction: int, *names: str, **more: Any) -> Any:
    """Two of what is compared, and labels of 1 and -1."""
    return lambda t: {**{n: t(3, 4) for n in names}, "target": _signs(t, 3, 4), "reduction": reduction, **more}


def _cosine(reduction: int) -> Any:
    labels = torch.tensor([1.0, -1.0, 1.0, 0.0])
    return lambda t: {
        **{name: t(4, 3) for name in ("input1", "input2")},
        "target": labels.to(t(1).dtype),
        "margin": -0.5,
        "reduction": reduction,
    }


def _triplet(reduction: int, **more: Any) -> Any:
    names = ("anchor", "positive", "negative")
    return lambda t: {**{name: t(3, 4) for name in names}, "margin": 1.0, **more, "reduction": reduction}


def _poisson(reduction: int, *, log_input: bool) -> Any:
    rest = {"log_input": log_input, "full": True, "eps": 1e-8, "reduction": reduction}
    return lambda t: {"input": t.positive(3, 4), "target": 2 * t.positive(3, 4), **rest}


def _margins(reduction: int, *, p: int, weight: bool = False) -> Any:
    def make(t: Tensors) -> Arguments:
        weights = t.positive(4) if weight else None
        return {
            "self": t(3, 4),
            "target": t.ids(4, 3),
            "p": p,
            "margin": 0.5,
            "weight": weights,
            "reduction": reduction,
        }

    return make


def _labels(reduction: int) -> Any:
    target = torch.tensor([[2, 0, -1, 1], [3, 3, 1, -1], [-1, 0, 1, 2]])
    return lambda t: {"self": t(3, 4), "target": target, "reduction": reduction}


def _aligned(reduction: int, *, flat: bool = False) -> Any:
    """Two sequences of four and five steps, for labels of length two and one (the blank is 0)."""

    def make(t: Tensors) -> Arguments:
        target = torch.tensor([1, 1, 2]) if flat else torch.tensor([[1, 1], [2, 0]])
        lengths = {"input_lengths": [4, 5], "target_lengths": [2, 1]}
        return {"log_probs": t(5, 2, 3).log_softmax(-1), "targets": target, **lengths, "reduction": reduction}

    return make


def _impossible(reduction: int) -> Any:
    """The first label does not fit into the steps: its loss is infinite, and set to zero."""

    def make(t: Tensors) -> Arguments:
        lengths = {"input_lengths": torch.tensor([3, 3]), "target_lengths": torch.tensor([3, 1])}
        rest = {"targets": torch.tensor([[1, 1, 2], [2, 0, 0]]), "reduction": reduction, "zero_infinity": True}
        return {"log_probs": t(3, 2, 3).log_softmax(-1), **lengths, **rest}

    return make


def _alone(t: Tensors) -> Arguments:
    lengths = {"input_lengths": [3], "target_lengths": [2]}
    return {"log_probs": t(4, 3).log_softmax(-1), "targets": torch.tensor([1, 2]), **lengths, "reduction": 1}


def _first(op: Any, **numbers: Any) -> Any:
    """The loss of an op that has a second output, as a function of tensors."""
    return lambda **tensors: op(**tensors, **numbers)[0]


def _tensors(make: Any) -> Any:
    return lambda t: {name: value for name, value in make(t).items() if isinstance(value, Tensor)}


PAIR = ("self", "target")

CASES: list[Case] = [
    *(
        Case(op.default, make(reduction, **more), PAIR, f"{reduction} {more}")
        for reduction in REDUCTIONS
        for op, make, more in (
            (aten.mse_loss, _of, {}),
            (aten.l1_loss, _of, {}),
            (aten.huber_loss, _of, {"delta": 0.7}),
            (aten.smooth_l1_loss, _of, {"beta": 0.7}),
            (aten.smooth_l1_loss, _of, {"beta": 0.0}),
            (aten.kl_div, _of, {"log_target": True}),
            (aten.kl_div, _probable, {}),
            (aten.binary_cross_entropy, _probable, {}),
        )
    ),
    *(Case(op.default, _of(1), ("self",), "constant target") for op in (aten.mse_loss, aten.l1_loss)),
    Case(aten.mse_loss.default, _of(0), ("target",), "target"),
    Case(aten.kl_div.default, _probable(1), ("self",), "constant target"),
    Case(aten.binary_cross_entropy.default, _weighed(_probable(1), weight=(3, 4)), ("self",), "weights"),
    *(
        Case(aten.binary_cross_entropy_with_logits.default, make, active, label)
        for make, active, label in (
            (_probable(0), PAIR, "each"),
            (_weighed(_probable(1), weight=(4,), pos_weight=(4,)), ("self",), "weights"),
            (_weighed(_probable(2), pos_weight=(4,)), PAIR, "positive weight"),
        )
    ),
    *(
        Case(aten.poisson_nll_loss.default, _poisson(r, log_input=log), ("input", "target"), f"{r} {log}")
        for r in REDUCTIONS
        for log in (True, False)
    ),
    *(Case(aten.soft_margin_loss.default, _signed(r, "self"), ("self",), str(r)) for r in REDUCTIONS),
    *(Case(aten.hinge_embedding_loss.default, _signed(r, "self", margin=0.8), ("self",), str(r)) for r in REDUCTIONS),
    *(
        Case(aten.margin_ranking_loss.default, _signed(r, "input1", "input2", margin=0.5), ("input1", "input2"), str(r))
        for r in REDUCTIONS
    ),
    *(Case(aten.cosine_embedding_loss.default, _cosine(r), ("input1", "input2"), str(r)) for r in REDUCTIONS),
    *(
        Case(aten.triplet_margin_loss.default, _triplet(r, swap=r == 1), ("anchor", "positive", "negative"), str(r))
        for r in REDUCTIONS
    ),
    *(Case(op.default, _labelled((4, 3), r), ("self",), str(r)) for r in REDUCTIONS for op in (aten.nll_loss,)),
    *(Case(aten.nll_loss_nd.default, _labelled((4, 3), r, weight=True), ("self",), f"weights {r}") for r in REDUCTIONS),
    Case(aten.nll_loss_nd.default, _labelled((3,), 1), ("self",), "one sample"),
    Case(aten.nll_loss_nd.default, _labelled((2, 3, 2, 2), 1, weight=True), ("self",), "images"),
    Case(aten.nll_loss2d.default, _labelled((2, 3, 2, 2), 0), ("self",)),
    *(
        Case(
            op.default,
            _tensors(_labelled(shape, 1, weight=True)),
            ("self",),
            program=_first(op.default, reduction=1, ignore_index=1),
        )
        for op, shape in ((aten.nll_loss_forward, (4, 3)), (aten.nll_loss2d_forward, (2, 3, 2, 2)))
    ),
    *(
        Case(
            aten.cross_entropy_loss.default,
            _labelled((4, 3), r, weight=weight, label_smoothing=smooth),
            ("self",),
            f"{r} {weight} {smooth}",
        )
        for r in REDUCTIONS
        for weight in (True, False)
        for smooth in (0.0, 0.2)
    ),
    Case(
        aten.cross_entropy_loss.default,
        _labelled((2, 3, 2, 2), 1, weight=True, label_smoothing=0.1),
        ("self",),
        "images",
    ),
    Case(aten.cross_entropy_loss.default, _labelled((3,), 1, label_smoothing=0.1), ("self",), "one sample"),
    *(Case(aten.cross_entropy_loss.default, _mixed(r, label_smoothing=0.1), PAIR, f"mixed {r}") for r in REDUCTIONS),
    Case(aten.cross_entropy_loss.default, _weighed(_mixed(1), weight=(3,)), ("self",), "mixed, weights"),
    *(Case(aten.multi_margin_loss.default, _margins(r, p=1), ("self",), str(r)) for r in REDUCTIONS),
    Case(aten.multi_margin_loss.default, _margins(1, p=2, weight=True), ("self",), "squares, weights"),
    *(
        Case(op.default, lambda t: {"self": t(), "target": torch.tensor(0)}, ("self",), "a number")
        for op in (aten.multi_margin_loss, aten.multilabel_margin_loss)
    ),
    *(Case(aten.multilabel_margin_loss.default, _labels(r), ("self",), str(r)) for r in REDUCTIONS),
    Case(
        aten.multilabel_margin_loss_forward.default,
        _tensors(_labels(1)),
        ("self",),
        program=_first(aten.multilabel_margin_loss_forward.default, reduction=1),
    ),
    *(Case(aten.ctc_loss.IntList, _aligned(r), ("log_probs",), str(r)) for r in REDUCTIONS),
    Case(aten.ctc_loss.IntList, _aligned(1, flat=True), ("log_probs",), "flat"),
    *(Case(aten.ctc_loss.Tensor, _impossible(r), ("log_probs",), f"impossible {r}") for r in REDUCTIONS),
    Case(aten.ctc_loss.IntList, _alone, ("log_probs",), "one sample"),
]
