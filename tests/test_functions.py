"""Every function of torch.nn.functional, between two dense layers or in a table that says why not."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_functional import IMAGE, LINE, MODULES, SHAPES, UNTRACEABLE, VOLUME, Of, between, prove
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


def t(*shape: int) -> Tensor:
    """A constant of the model: the same numbers every time."""
    size = torch.Size(shape)
    return (torch.arange(size.numel(), dtype=torch.float64) * 1.7 + 0.5).sin().reshape(size) * 1.5


def _called(name: str, *args: Any, **more: Any) -> Function:
    return lambda x: getattr(F, name)(x, *args, **more)


def _changed(name: str) -> Function:
    """Of a tensor of its own, which it writes over."""
    return lambda x: getattr(F, name)(x + 1)


def _beside(name: str, **more: Any) -> Function:
    """Compares the tensor with its samples exchanged."""
    return lambda x: getattr(F, name)(x, x.flip(0), **more)


def _unpooled(dims: int) -> Function:
    pool, back = getattr(F, f"max_pool{dims}d"), getattr(F, f"max_unpool{dims}d")
    return lambda x: back(*pool(x, 2, return_indices=True), 2)


def _fractional(name: str, dims: int, size: int) -> Function:
    places = torch.full((2, 4, dims), 0.4).double()
    pool = getattr(F, name)
    if name.endswith("indices"):
        return lambda x: pool(x, 2, size, _random_samples=places)[0]
    return lambda x: pool(x, 2, size, _random_samples=places)


def _first(name: str, *args: Any) -> Function:
    return lambda x: getattr(F, name)(x, *args)[0]


def _attended(x: Tensor) -> Tensor:
    x = x.transpose(0, 1)
    rest = (None, None, False, 0.0, t(6, 6), t(6), False)
    return F.multi_head_attention_forward(x, x, x, 6, 2, t(18, 6), t(18), *rest)[0].transpose(0, 1)


SIGNS = torch.tensor([1.0, -1.0, 1.0, -1.0]).double().unsqueeze(-1).expand(2, 4, 6)
LABELS = torch.tensor([[0, 2, 1, -100, 4, 5], [1, 1, 3, 0, 0, 2]]).clamp(max=3)
ALONE = (
    *("celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "mish"),
    *("relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softshrink", "softsign", "tanh", "tanhshrink"),
)
IN_PLACE = ("celu_", "elu_", "hardtanh_", "leaky_relu_", "relu_", "rrelu_", "selu_")
DROPOUTS = ("dropout", "dropout1d", "alpha_dropout", "feature_alpha_dropout")
#: name -> what is done with the tensor, and the shape of one sample
FUNCTIONS: dict[str, tuple[Function, tuple[int, ...]]] = {
    **{name: (_called(name), LINE) for name in ALONE},
    **{name: (_changed(name), LINE) for name in IN_PLACE},
    **{name: (_called(name, training=False), LINE) for name in DROPOUTS},
    "dropout2d": (_called("dropout2d", training=False), IMAGE),
    "dropout3d": (_called("dropout3d", training=False), VOLUME),
    "threshold": (_called("threshold", 0.1, -0.5), LINE),
    "threshold_": (lambda x: F.threshold_(x + 1, 0.1, -0.5), LINE),
    "prelu": (_called("prelu", t(4)), LINE),
    **{name: (_called(name, dim=-1), LINE) for name in ("softmax", "softmin", "log_softmax", "glu", "normalize")},
    "linear": (_called("linear", t(3, 6), t(3)), LINE),
    "bilinear": (lambda x: F.bilinear(x, x.flip(0), t(3, 6, 6), t(3)), LINE),
    "cosine_similarity": (_beside("cosine_similarity"), LINE),
    "pairwise_distance": (_beside("pairwise_distance"), LINE),
    "pdist": (lambda x: torch.stack([F.pdist(sample) for sample in x]), LINE),
    "layer_norm": (_called("layer_norm", (6,)), LINE),
    "rms_norm": (_called("rms_norm", (6,)), LINE),
    "group_norm": (_called("group_norm", 2), LINE),
    "instance_norm": (_called("instance_norm"), LINE),
    "batch_norm": (_called("batch_norm", t(4), t(4).square()), LINE),
    "local_response_norm": (_called("local_response_norm", 3), IMAGE),
    "channel_shuffle": (_called("channel_shuffle", 2), IMAGE),
    "native_channel_shuffle": (_called("native_channel_shuffle", 2), IMAGE),
    "pixel_shuffle": (_called("pixel_shuffle", 2), IMAGE),
    "pixel_unshuffle": (_called("pixel_unshuffle", 2), IMAGE),
    "fold": (_called("fold", (4, 5), (2, 2)), (8, 12)),
    "unfold": (_called("unfold", (2, 3), padding=1), IMAGE),
    "pad": (_called("pad", (1, 2), value=0.5), LINE),
    "interpolate": (_called("interpolate", scale_factor=2.0, mode="bilinear"), IMAGE),
    "upsample": (_called("upsample", scale_factor=2.0), IMAGE),
    "upsample_bilinear": (_called("upsample_bilinear", scale_factor=2), IMAGE),
    "upsample_nearest": (_called("upsample_nearest", scale_factor=2), IMAGE),
    "affine_grid": (lambda x: F.affine_grid(x, [2, 1, 3, 3], align_corners=False), (2, 3)),
    "grid_sample": (lambda x: F.grid_sample(x, t(2, 3, 3, 2).tanh(), align_corners=False), IMAGE),
    "conv_tbc": (lambda x: F.conv_tbc(x, t(3, 6, 2), t(2), pad=1), LINE),
    "scaled_dot_product_attention": (lambda x: F.scaled_dot_product_attention(x, x.flip(0), x), LINE),
    "multi_head_attention_forward": (_attended, LINE),
    **{
        f"{name}{dims}d": (_called(f"{name}{dims}d", *args), shape)
        for dims, shape in SHAPES.items()
        for name, args in {
            "avg_pool": (2,),
            "max_pool": (2,),
            "lp_pool": (2.0, 2),
            "adaptive_avg_pool": (3,),
            "adaptive_max_pool": (3,),
            "conv": (t(4, 4, *[2] * dims), t(4)),
            "conv_transpose": (t(4, 4, *[2] * dims), t(4)),
        }.items()
    },
    **{
        f"{name}{dims}d_with_indices": (_first(f"{name}{dims}d_with_indices", size), shape)
        for dims, shape in SHAPES.items()
        for name, size in (("max_pool", 2), ("adaptive_max_pool", 3))
    },
    **{f"max_unpool{dims}d": (_unpooled(dims), shape) for dims, shape in SHAPES.items()},
    **{
        f"fractional_max_pool{dims}d{suffix}": (_fractional(f"fractional_max_pool{dims}d{suffix}", dims, 2), shape)
        for dims, shape in SHAPES.items()
        if dims > 1
        for suffix in ("", "_with_indices")
    },
    "mse_loss": (_beside("mse_loss", reduction="none"), LINE),
    "l1_loss": (_beside("l1_loss", reduction="none"), LINE),
    "smooth_l1_loss": (_beside("smooth_l1_loss", reduction="none"), LINE),
    "huber_loss": (_beside("huber_loss", reduction="none"), LINE),
    "kl_div": (lambda x: F.kl_div(x.log_softmax(-1), x.flip(0).softmax(-1), reduction="none"), LINE),
    "binary_cross_entropy": (
        lambda x: F.binary_cross_entropy(x.sigmoid(), t(2, 4, 6).sigmoid(), reduction="none"),
        LINE,
    ),
    "binary_cross_entropy_with_logits": (
        _called("binary_cross_entropy_with_logits", t(2, 4, 6).sigmoid(), pos_weight=t(6).exp(), reduction="none"),
        LINE,
    ),
    "cross_entropy": (_called("cross_entropy", LABELS, label_smoothing=0.1, reduction="none"), LINE),
    "nll_loss": (_called("nll_loss", LABELS, weight=t(4).exp(), reduction="none"), LINE),
    "linear_cross_entropy": (
        lambda x: F.linear_cross_entropy(x.flatten(0, 1), t(5, 6), torch.arange(8) % 5, reduction="none"),
        LINE,
    ),
    "poisson_nll_loss": (_called("poisson_nll_loss", t(2, 4, 6).exp(), full=True, reduction="none"), LINE),
    "gaussian_nll_loss": (
        lambda x: F.gaussian_nll_loss(x, x.flip(0), t(2, 4, 6).exp(), reduction="none"),
        LINE,
    ),
    "hinge_embedding_loss": (_called("hinge_embedding_loss", SIGNS, reduction="none"), LINE),
    "soft_margin_loss": (_called("soft_margin_loss", SIGNS, reduction="none"), LINE),
    "margin_ranking_loss": (_beside("margin_ranking_loss", target=SIGNS, margin=2.0, reduction="none"), LINE),
    "cosine_embedding_loss": (
        lambda x: F.cosine_embedding_loss(
            x.flatten(0, 1), x.flip(2).flatten(0, 1), SIGNS[..., 0].flatten(), reduction="none"
        ),
        LINE,
    ),
    "triplet_margin_loss": (
        lambda x: F.triplet_margin_loss(x, x.flip(0), x.flip(1), 9.0, swap=True, reduction="none"),
        LINE,
    ),
    "triplet_margin_with_distance_loss": (
        lambda x: F.triplet_margin_with_distance_loss(x, x.flip(0), x.flip(1), margin=9.0, reduction="none"),
        LINE,
    ),
    "multi_margin_loss": (lambda x: F.multi_margin_loss(x.flatten(0, 1), torch.arange(8) % 6, reduction="none"), LINE),
    "multilabel_margin_loss": (
        lambda x: F.multilabel_margin_loss(
            x.flatten(0, 1), torch.tensor([3, 0, 5, -1, 2, 2]).expand(8, 6), reduction="none"
        ),
        LINE,
    ),
    "multilabel_soft_margin_loss": (
        _called("multilabel_soft_margin_loss", t(2, 4, 6).sigmoid(), reduction="none"),
        LINE,
    ),
    "ctc_loss": (
        lambda x: F.ctc_loss(
            x.transpose(0, 1).log_softmax(-1), torch.tensor([[1, 2], [3, 0]]), (4, 3), (2, 1), reduction="none"
        ),
        LINE,
    ),
}
LOOKUPS: dict[str, Callable[[Tensor], Tensor]] = {
    "embedding": lambda ids: F.embedding(ids, t(10, 3)),
    "embedding_bag": lambda ids: F.embedding_bag(ids, t(10, 3)),
}
#: name -> why no model between two layers can be explained through it
REASONS = {
    "grouped_mm": "without a row: the products of experts, in half and single precision alone",
    "gumbel_softmax": "random by definition",
    "one_hot": "of integers: nothing flows through it",
    "scaled_mm": "of eight-bit numbers, which no dense layer makes",
    "scaled_grouped_mm": "of eight-bit numbers, which no dense layer makes",
    **dict.fromkeys(("assert_int_or_pair", "boolean_dispatch", "handle_torch_function"), "no function of tensors"),
    **{f"has_torch_function{suffix}": "no function of tensors" for suffix in ("", "_unary", "_variadic")},
}


def public() -> set[str]:
    """What `torch.nn.functional` has to call; classes among it are types, not functions."""
    there = {name for name in dir(F) if not name.startswith("_") and callable(getattr(F, name))}
    return {name for name in there if not inspect.isclass(getattr(F, name)) and _is_function(getattr(F, name))}


def _is_function(thing: Any) -> bool:
    """Not `Optional`, `Callable` and the like, which can be called too."""
    return not str(getattr(thing, "__module__", "")).startswith(("typing", "collections"))


def test_no_function_is_forgotten() -> None:
    """A function that a new torch brings has to be called here, or to have its reason."""
    assert sorted(public() - FUNCTIONS.keys() - LOOKUPS.keys() - REASONS.keys()) == []
    assert sorted((FUNCTIONS.keys() | LOOKUPS.keys() | REASONS.keys()) - public()) == []
    assert sorted(REASONS.keys() & (FUNCTIONS.keys() | LOOKUPS.keys())) == []


@pytest.mark.parametrize("name", sorted(name for name in dir(nn) if name.endswith(("Loss", "Loss2d"))))
def test_a_loss_module_is_one_of_these_functions(name: str) -> None:
    called = set(re.findall(r"\bF\.(\w+)\(", inspect.getsource(getattr(nn, name).forward)))
    assert called & FUNCTIONS.keys() or name == "AdaptiveLogSoftmaxWithLoss"  # which is with the modules


def test_a_new_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "brand_new", lambda x: x, raising=False)
    with pytest.raises(AssertionError, match="brand_new"):
        test_no_function_is_forgotten()


#: What a module calls is exported with the modules, so it is recorded here: a fortieth of the time.
OF_MODULES = {
    function
    for module in MODULES.keys() - UNTRACEABLE
    for function in re.findall(r"\bF\.(\w+)\(", inspect.getsource(getattr(nn, module).forward))
}
TRACED = [(name, "tape") for name in sorted(OF_MODULES & FUNCTIONS.keys())]
TRACED += [
    pytest.param(name, "auto", marks=pytest.mark.exhaustive if name in OF_MODULES else [], id=f"{name}-auto")
    for name in sorted(FUNCTIONS)
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "tracer"), TRACED)
def test_a_function_between_two_layers(name: str, tracer: str) -> None:
    function, shape = FUNCTIONS[name]
    model = between(Of(nn.Identity(), lambda _, x: function(x)), shape)
    prove(model, torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), tracer)


@pytest.mark.parametrize("name", sorted(LOOKUPS))
def test_a_lookup_before_a_layer(name: str) -> None:
    torch.manual_seed(0)
    function, ids = LOOKUPS[name], torch.tensor([[1, 3, 3, 0], [7, 9, 2, 2]])
    size = function(ids)[0].numel()
    prove(
        nn.Sequential(Of(nn.Identity(), lambda _, i: function(i)), nn.Flatten(), nn.Linear(size, 3)).double().eval(),
        ids,
    )
