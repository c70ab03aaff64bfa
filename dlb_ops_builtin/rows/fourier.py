"""Fourier transforms: linear maps whose weights are cosines and sines, so of both signs.

Up to `DENSE` numbers along the transformed dimensions their matrix is written out, and a mode takes its magnitudes
exactly. Beyond that magnitudes are shared by the inputs' alone, over all that the output is made of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlb_core.rules import PairCall, Row, compound, linear, move, pairs
from dlb_ops_builtin.rows.places import by_places

aten = torch.ops.aten
DENSE = 2048

TRANSFORMS = (
    *("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_hfft", "fft_ihfft"),
    *("fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2", "fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn"),
    *("fft_hfft2", "fft_ihfft2", "fft_hfftn", "fft_ihfftn"),
    *("_fft_c2c", "_fft_r2c", "_fft_c2r"),
)


def _dims(call: PairCall) -> list[int]:
    """The transformed dimensions, counted from the left."""
    size = len(call.shape("self")) - call.is_complex("self")
    if call.dim is None:
        given = None if not call.takes("s") else call.s
        return list(range(size - (size if given is None else len(given)), size))
    return [d % size for d in ([call.dim] if isinstance(call.dim, int) else call.dim)]


@dataclass(frozen=True)
class Transform:
    """An op and the names of its arguments after the first, read off its schema once."""

    op: Any
    rest: tuple[str, ...]


def _transformed(transform: Transform, x: Tensor, call: PairCall, dims: list[int]) -> Tensor:
    """The op along other dimensions, from pairs to pairs."""
    dim: Any = dims[0] if isinstance(call.dim, int) else dims
    rest = [dim if name == "dim" else getattr(call, name) for name in transform.rest]
    y: Tensor = transform.op(torch.view_as_complex(x.contiguous()) if call.is_complex("self") else x, *rest)
    return torch.view_as_real(y.resolve_conj()) if call.is_complex("output") else y


def _sizes(call: PairCall, name: str, dims: list[int]) -> list[int]:
    """The sizes along the transformed dimensions, and the two parts of a complex value."""
    shape = call.shape(name)
    return [shape[d] for d in dims] + ([2] if call.is_complex(name) else [])


def _weights(transform: Transform, call: PairCall) -> Tensor:
    """[inputs, outputs] along the transformed dimensions; -1 stands for weights that are not written out."""
    dims = _dims(call)
    sizes = _sizes(call, "self", dims)
    count = math.prod(sizes)
    if count > DENSE:
        return torch.full((), -1.0, dtype=call.dtype, device=call.device)
    units = torch.eye(count, dtype=call.dtype, device=call.device).reshape(count, *sizes)
    return _transformed(transform, units, call, list(range(1, len(dims) + 1))).reshape(count, -1)


def _apply(transform: Transform, x: Tensor, w: Tensor, call: PairCall) -> Tensor:
    dims = _dims(call)
    if not w.dim():  # -1: the transform; its magnitude 1: a plain sum
        signed, plain = _transformed(transform, x, call, dims), _spread(x, call, dims)
        mixed: Tensor = ((1 - w) * signed + (1 + w) * plain) / 2
        return mixed
    parts = int(call.is_complex("self"))
    others = [d for d in range(x.dim() - parts) if d not in dims]
    flat = x.permute(*others, *dims, *range(x.dim() - parts, x.dim())).flatten(len(others))
    y: Tensor = (flat @ w).unflatten(-1, _sizes(call, "output", dims))
    order = [*others, *dims]
    back = [order.index(d) for d in range(len(order))]
    return y.permute(*back, *range(len(order), y.dim()))


def _spread(x: Tensor, call: PairCall, dims: list[int]) -> Tensor:
    """The sum over everything that an output is made of, in the output's shape."""
    total = x.sum([*dims, -1] if call.is_complex("self") else dims, keepdim=True)
    if call.is_complex("self") and not call.is_complex("output"):
        total = total.squeeze(-1)
    elif call.is_complex("output") and not call.is_complex("self"):
        total = total.unsqueeze(-1)
    return total.expand(call.shape("output"))


def _row(name: str) -> Row:
    op = getattr(aten, name).default
    transform = Transform(op, tuple(argument.name for argument in op._schema.arguments[1:]))
    weights, apply = partial(_weights, transform), partial(_apply, transform)
    return pairs(linear(f"aten::{name}", x="self", weights=weights, apply=apply))


def _stft(
    self: Tensor,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    window: Tensor | None,
    normalized: bool,
    onesided: bool | None,
    return_complex: bool | None,
) -> Tensor:
    """Frames, a window on each, and a transform of each."""
    frames = self.unfold(-1, n_fft, n_fft // 4 if hop_length is None else hop_length)
    if window is not None:
        left = (n_fft - window.shape[0]) // 2
        frames = frames * aten.constant_pad_nd.default(window, [left, n_fft - window.shape[0] - left])
    whole = onesided is False or self.is_complex()
    norm = "ortho" if normalized else None
    y = (torch.fft.fft if whole else torch.fft.rfft)(frames, norm=norm).transpose(-1, -2)
    return y if return_complex else torch.view_as_real(y)


def _istft(
    self: Tensor,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    window: Tensor | None,
    center: bool,
    normalized: bool,
    length: int | None,
) -> Tensor:
    """A frame for each transform, a window on each, laid over each other and divided by the windows' squares."""
    norm = "ortho" if normalized else None
    half = aten.slice.Tensor(self, -2, 0, n_fft // 2 + 1)  # of a whole transform, the half that torch reads
    frames = torch.fft.irfft(half.transpose(-1, -2), n_fft, norm=norm)
    if window is None:
        window = frames.new_ones(n_fft if win_length is None else win_length)
    left = (n_fft - window.shape[0]) // 2
    window = aten.constant_pad_nd.default(window, [left, n_fft - window.shape[0] - left])
    hop = n_fft // 4 if hop_length is None else hop_length
    whole = _overlaid(frames * window, hop)
    weight = _overlaid(window.square().expand(frames.shape[-2], n_fft), hop)
    start = n_fft // 2 if center else 0
    end = start + length if length is not None else whole.shape[-1] - start
    y: Tensor = aten.slice.Tensor(whole, -1, start, end) / aten.slice.Tensor(weight, -1, start, end)
    missing = 0 if length is None else length - y.shape[-1]
    return F.pad(y, [0, missing]) if missing else y


def _overlaid(frames: Tensor, hop: int) -> Tensor:
    """[..., frames, samples] added up where they overlap: each begins `hop` samples after the one before."""
    count, size = frames.shape[-2:]
    flat = frames.reshape(-1, count, size).transpose(1, 2)
    line: Tensor = aten.col2im.default(flat, [1, size + hop * (count - 1)], [1, size], [1, 1], [0, 0], [1, hop])
    return line.reshape([*frames.shape[:-2], -1])


def _istft_refuses(arguments: Mapping[str, Any]) -> str | None:
    return "a signal of complex numbers has no written form" if arguments["return_complex"] else None


def _shifted(name: str) -> Row:
    shift = getattr(torch.fft, name.removeprefix("fft_"))
    return move(f"aten::{name}", x="self", back=by_places(lambda x, call: shift(x, call.dim)))


ROWS: list[Row] = [
    *(_row(name) for name in TRANSFORMS),
    *(_shifted(name) for name in ("fft_fftshift", "fft_ifftshift")),
    compound("aten::stft.default", written=_stft),
    compound("aten::istft", written=_istft, refuses=_istft_refuses),
]
