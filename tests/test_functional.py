"""Every module of torch.nn that is deterministic in evaluation, between two dense layers: traced, run and explained."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace

LINE, IMAGE, VOLUME = (4, 6), (4, 6, 6), (4, 4, 4, 4)
SHAPES = {1: LINE, 2: IMAGE, 3: VOLUME}


class Of(nn.Module):
    """A module that takes its one tensor in another way."""

    def __init__(self, module: nn.Module, call: Any) -> None:
        super().__init__()
        self.module = module
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.call(self.module, x)
        return out


def _twice(module: nn.Module) -> nn.Module:
    """Of two operands: the tensor, and the same with its samples exchanged."""
    return Of(module, lambda m, x: m(x, x.flip(0)))


def _first(module: nn.Module) -> nn.Module:
    """The first of several outputs."""
    return Of(module, lambda m, x: m(x)[0])


def _unpooled(dims: int) -> nn.Module:
    pool = getattr(nn, f"MaxPool{dims}d")(2, return_indices=True)
    return Of(nn.ModuleList([pool, getattr(nn, f"MaxUnpool{dims}d")(2)]), lambda m, x: m[1](*m[0](x)))


def _decoded(module: nn.Module) -> nn.Module:
    return Of(module, lambda m, x: m(x, x.flip(0)))


POINTWISE = (
    *("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "Mish"),
    *("LogSigmoid", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink"),
    *("Softsign", "Tanh", "Tanhshrink", "AlphaDropout", "Dropout", "Dropout1d", "FeatureAlphaDropout"),
)
#: name -> the module and the shape of one sample
MODULES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    **{name: (getattr(nn, name)(), LINE) for name in POINTWISE},
    "Dropout2d": (nn.Dropout2d(), IMAGE),
    "Dropout3d": (nn.Dropout3d(), VOLUME),
    "Threshold": (nn.Threshold(0.1, -0.5), LINE),
    **{name: (getattr(nn, name)(dim=-1), LINE) for name in ("Softmax", "Softmin", "LogSoftmax", "GLU")},
    "Softmax2d": (nn.Softmax2d(), IMAGE),
    "Linear": (nn.Linear(6, 3), LINE),
    "Flatten": (nn.Flatten(), IMAGE),
    "Unflatten": (nn.Unflatten(1, (2, 2)), IMAGE),
    "ChannelShuffle": (nn.ChannelShuffle(2), IMAGE),
    "PixelShuffle": (nn.PixelShuffle(2), IMAGE),
    "PixelUnshuffle": (nn.PixelUnshuffle(2), IMAGE),
    "Fold": (nn.Fold((4, 5), (2, 2)), (8, 12)),
    "Unfold": (nn.Unfold((2, 3), padding=1), IMAGE),
    "Upsample": (nn.Upsample(scale_factor=1.5, mode="bicubic"), IMAGE),
    "UpsamplingBilinear2d": (nn.UpsamplingBilinear2d(scale_factor=2), IMAGE),
    "UpsamplingNearest2d": (nn.UpsamplingNearest2d(scale_factor=2), IMAGE),
    "GroupNorm": (nn.GroupNorm(2, 4), IMAGE),
    "LayerNorm": (nn.LayerNorm(6), LINE),
    "RMSNorm": (nn.RMSNorm(6), LINE),
    "LocalResponseNorm": (nn.LocalResponseNorm(3), IMAGE),
    "CrossMapLRN2d": (nn.CrossMapLRN2d(3), IMAGE),
    "Bilinear": (_twice(nn.Bilinear(6, 6, 3)), LINE),
    "CosineSimilarity": (_twice(nn.CosineSimilarity()), LINE),
    "PairwiseDistance": (_twice(nn.PairwiseDistance()), LINE),
    "RNN": (_first(nn.RNN(6, 5, batch_first=True)), LINE),
    "LSTM": (_first(nn.LSTM(6, 5, batch_first=True)), LINE),
    "GRU": (_first(nn.GRU(6, 5, batch_first=True)), LINE),
    "RNNCell": (nn.RNNCell(6, 5), (6,)),
    "GRUCell": (nn.GRUCell(6, 5), (6,)),
    "LSTMCell": (_first(nn.LSTMCell(6, 5)), (6,)),
    "AdaptiveLogSoftmaxWithLoss": (
        Of(nn.AdaptiveLogSoftmaxWithLoss(6, 10, [4, 7]), lambda m, x: m(x, torch.tensor([1, 5]))[0]),
        (6,),
    ),
    "MultiheadAttention": (Of(nn.MultiheadAttention(6, 2, batch_first=True), lambda m, x: m(x, x, x)[0]), LINE),
    "TransformerEncoderLayer": (nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), LINE),
    "TransformerDecoderLayer": (_decoded(nn.TransformerDecoderLayer(6, 2, 8, batch_first=True)), LINE),
    "TransformerEncoder": (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 2, enable_nested_tensor=False),
        LINE,
    ),
    "TransformerDecoder": (
        _decoded(nn.TransformerDecoder(nn.TransformerDecoderLayer(6, 2, 8, batch_first=True), 1)),
        LINE,
    ),
    "Transformer": (_decoded(nn.Transformer(6, 2, 1, 1, 8, batch_first=True)), LINE),
    **{
        f"{name}{dims}d": (getattr(nn, f"{name}{dims}d")(*args), shape)
        for dims, shape in SHAPES.items()
        for name, args in {
            "AvgPool": (2,),
            "MaxPool": (2,),
            "AdaptiveAvgPool": (3,),
            "AdaptiveMaxPool": (3,),
            "LPPool": (2, 2),
            "BatchNorm": (4,),
            "InstanceNorm": (4,),
            "Conv": (4, 3, 2),
            "ConvTranspose": (4, 3, 2),
            "ReflectionPad": (1,),
            "ReplicationPad": (1,),
            "CircularPad": (1,),
            "ZeroPad": (1,),
            "ConstantPad": (1, 0.5),
        }.items()
    },
    "FractionalMaxPool2d": (
        nn.FractionalMaxPool2d(2, output_size=3, _random_samples=torch.full((2, 4, 2), 0.4).double()),
        IMAGE,
    ),
    "FractionalMaxPool3d": (
        nn.FractionalMaxPool3d(2, output_size=2, _random_samples=torch.full((2, 4, 3), 0.4).double()),
        VOLUME,
    ),
    **{f"MaxUnpool{dims}d": (_unpooled(dims), shape) for dims, shape in SHAPES.items()},
}
LOOKUPS: dict[str, nn.Module] = {
    "Embedding": nn.Embedding(10, 3),
    "EmbeddingBag": nn.EmbeddingBag(10, 3),
}
#: no functions of one tensor: containers, what has no forward of its own, and what is not in evaluation mode's reach
OTHERS = {
    *("Module", "Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "Container"),
    *("RNNBase", "RNNCellBase", "SyncBatchNorm", "DataParallel"),
}
#: no rows yet
PENDING: set[str] = set()
#: torch itself cannot export them
UNTRACEABLE = {"CrossMapLRN2d"}


def test_no_module_is_forgotten() -> None:
    """Losses compare two tensors, lazy modules become those in the table."""
    there = {name for name, value in vars(nn).items() if inspect.isclass(value) and issubclass(value, nn.Module)}
    there = {name for name in there if "Loss" not in name and not name.startswith("Lazy")}
    assert sorted(there - MODULES.keys() - LOOKUPS.keys() - OTHERS) == []
    assert sorted((PENDING | UNTRACEABLE) - MODULES.keys() - LOOKUPS.keys()) == []


def between(module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Dense layer, the module, dense layer; from vectors of five numbers to three scores."""
    torch.manual_seed(0)
    before = nn.Sequential(nn.Linear(5, math.prod(shape)), nn.Unflatten(1, shape))
    with torch.no_grad():
        size = module.double().eval()(before.double()(torch.zeros(2, 5).double())).numel() // 2
    return nn.Sequential(before, module, Of(nn.Linear(size, 3), lambda m, x: m(x.reshape(2, -1)))).double().eval()


def prove(model: nn.Module, x: Tensor, tracer: Any = "auto") -> None:
    """The trace computes what the model does, and every unit of the seed is accounted for, in both modes."""
    dlb = DLBacktrace(model, x, tracer=tracer, dynamic_shapes="auto" if tracer == "tape" else None)
    with torch.no_grad():
        torch.testing.assert_close(dlb.predict(x)["output"].output, model(x))
    for mode in ("default", "epsilon"):
        done = dlb.explain(x, mode=mode, target=1)
        assert done.relevance[next(iter(dlb.input_names))].shape == x.shape
        ledger = done.ledger
        assert ledger.seed == pytest.approx(200.0)
        assert ledger.check() == []
        assert abs(ledger.residual) <= 1e-9 * ledger.scale
        if mode == "default" and not any(name.startswith("constant:") for name in ledger.accounts):
            assert math.fsum(ledger.inputs.values()) == pytest.approx(200.0)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", sorted(MODULES.keys() - PENDING - UNTRACEABLE))
def test_a_module_between_two_layers(name: str) -> None:
    prove(between(*MODULES[name]), torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", sorted(LOOKUPS.keys() - PENDING))
def test_a_lookup_before_a_layer(name: str) -> None:
    torch.manual_seed(0)
    ids = torch.tensor([[1, 3, 3, 0], [7, 9, 2, 2]])
    size = LOOKUPS[name](ids)[0].numel()
    prove(nn.Sequential(LOOKUPS[name], nn.Flatten(), nn.Linear(size, 3)).double().eval(), ids)
