"""Arguments with complex values, and for Fourier transforms (`MAPS`: linear between pairs of numbers)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..case import Arguments, Case
from ..tensors import Tensors

aten = torch.ops.aten


def z(t: Tensors, *shape: int) -> Tensor:
    """Complex numbers."""
    return torch.complex(t(*shape), t(*shape))


def _z(*shape: int, **more: Any) -> Any:
    return lambda t: {"self": z(t, *shape), **more}


def _x(*shape: int, **more: Any) -> Any:
    return lambda t: {"self": t(*shape), **more}


def _two(first: tuple[int, ...], second: tuple[int, ...], **more: Any) -> Any:
    return lambda t: {"self": z(t, *first), "other": z(t, *second), **more}


def _mixed(t: Tensors) -> Arguments:
    return {"self": t(2, 3), "other": z(t, 3)}


def _framed(t: Tensors) -> Arguments:
    rest = {"hop_length": 3, "win_length": 6, "normalized": True, "onesided": None, "return_complex": True}
    return {"self": t(2, 20), "n_fft": 8, "window": t.positive(6), **rest}


def _spectrum(t: Tensors) -> Arguments:
    rest = {"hop_length": 3, "win_length": 6, "center": True, "normalized": True, "onesided": None, "length": 11}
    return {"self": z(t, 2, 5, 4), "n_fft": 8, "window": t.positive(6), **rest}


def _each(op: Any, arguments: Any, label: str = "") -> list[Case]:
    return [Case(op, arguments, active, label) for active in (("self", "other"), ("self",), ("other",))]


def _real(op: Any, *shape: int, **more: Any) -> Case:
    return Case(op.default, _x(*shape, **more), ("self",), ", ".join(map(str, more.values())))


def _complex(op: Any, *shape: int, **more: Any) -> Case:
    return Case(op.default, _z(*shape, **more), ("self",), ", ".join(map(str, more.values())))


MAPS: list[Case] = [
    _real(aten.fft_fft, 2, 5),
    _complex(aten.fft_fft, 4, 2, n=5, dim=0, norm="ortho"),
    _complex(aten.fft_ifft, 2, 5),
    _real(aten.fft_rfft, 2, 5),
    _complex(aten.fft_irfft, 2, 4, n=7),
    _complex(aten.fft_hfft, 2, 4),
    _real(aten.fft_ihfft, 2, 5),
    _real(aten.fft_fft2, 2, 3, 4),
    _complex(aten.fft_ifft2, 3, 2, 2, dim=[0, 2]),
    _real(aten.fft_rfft2, 2, 3, 4),
    _complex(aten.fft_irfft2, 2, 3, 3),
    _real(aten.fft_fftn, 2, 3, 2),
    _complex(aten.fft_ifftn, 2, 3, s=[4]),
    _real(aten.fft_rfftn, 2, 3, dim=[1, 0]),
    _complex(aten.fft_irfftn, 2, 3),
    _complex(aten.fft_hfft2, 2, 3, 3),
    _complex(aten.fft_hfftn, 2, 3, s=[4]),
    _real(aten.fft_ihfft2, 2, 3, 4),
    _real(aten.fft_ihfftn, 2, 3, dim=[1, 0]),
    _complex(aten._fft_c2c, 2, 4, dim=[1], normalization=0, forward=True),
    _real(aten._fft_r2c, 2, 5, dim=[0, 1], normalization=1, onesided=True),
    _complex(aten._fft_c2r, 2, 3, dim=[1], normalization=2, last_dim_size=4),
]
CASES: list[Case] = [
    *MAPS,
    _real(aten.fft_fftshift, 2, 5),
    _real(aten.fft_ifftshift, 3, 5, dim=[1]),
    Case(aten.stft.default, _framed, ("self",)),
    Case(aten.istft.default, _spectrum, ("self",)),
    _complex(aten.istft, 2, 8, 4, n_fft=8, onesided=False),
    _complex(aten.istft, 5, 4, n_fft=8, center=False, length=16),
    Case(aten.view_as_complex.default, lambda t: {"self": t(2, 3, 2).contiguous()}, ("self",)),
    *(_complex(op, 2, 3) for op in (aten.view_as_real,)),
    *(_complex(op, 2, 3) for op in (aten.real, aten.imag, aten.abs, aten.angle)),
    *(_complex(op, 2, 3) for op in (aten.conj, aten._conj, aten.conj_physical, aten._conj_physical)),
    *(_complex(op, 2, 3) for op in (aten.resolve_conj, aten.resolve_neg)),
    Case(aten._neg_view.default, _x(2, 3), ("self",)),
    Case(aten.complex.default, lambda t: {"real": t(2, 3), "imag": t(3)}, ("real", "imag")),
    Case(aten.polar.default, lambda t: {"abs": t(2, 3), "angle": t(2, 3)}, ("abs", "angle")),
    *_each(aten.mul.Tensor, _two((2, 3), (3,)), "complex"),
    *_each(aten.mul.Tensor, _mixed, "mixed"),
    *_each(aten.add.Tensor, _two((2, 1), (2, 3), alpha=-2), "complex"),
    *_each(aten.sub.Tensor, _mixed, "mixed"),
    _complex(aten.sum, 2, 3),
    Case(aten.mean.dim, _z(2, 3, dim=[0]), ("self",), "complex"),
    Case(aten.permute.default, _z(2, 3, dims=[1, 0]), ("self",), "complex"),
    Case(aten.index_select.default, _z(2, 3, dim=1, index=torch.tensor([2, 0, 2])), ("self",), "complex"),
]
