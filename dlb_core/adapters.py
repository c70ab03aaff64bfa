"""Relevance behind the calls that other tools make: Captum's `attribute`, Quantus' `explain_func`.

Only the shape of a call and of its answer is theirs; what is computed is a mode of ours. Nothing of theirs is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dlb_core.backtrace import DLBacktrace
from dlb_core.errors import InputMismatchError

if TYPE_CHECKING:
    from dlb_core.explanation import Explanation
    from dlb_core.kernel.composites import Composite
    from dlb_core.kernel.modes import Mode

Tensors = Tensor | tuple[Tensor, ...]
Signature = tuple[Any, ...]


class CaptumLRP:
    """`attribute(inputs, target)` as `captum.attr.LRP` is called: attributions that sum to the explained output.

    model: an `nn.Module` in eval mode. mode, options: as `DLBacktrace.explain` takes them; device: as `DLBacktrace`
    does. The model is traced once for inputs of one kind (number, dimensions, dtypes, devices, further arguments) and
    the trace is used again; a batch of another size needs no new one, and weights that change are seen.
    """

    def __init__(
        self,
        model: nn.Module,
        mode: str | Mode | Composite = "epsilon",
        *,
        device: str | torch.device = "auto",
        **options: Any,
    ) -> None:
        self.model = model
        self.mode = mode
        self.options = options
        self._device = device
        self._weights: list[Tensor] = []
        self._traces: dict[Signature, list[DLBacktrace]] = {}

    @overload
    def attribute(
        self,
        inputs: Tensor,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def attribute(
        self,
        inputs: tuple[Tensor, ...],
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: Literal[False] = False,
    ) -> tuple[Tensor, ...]: ...

    @overload
    def attribute(
        self,
        inputs: Tensors,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
    ) -> Any: ...

    def attribute(
        self,
        inputs: Tensors,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        """Relevance of the inputs in units of the explained output: a tensor for a tensor, a tuple for a tuple.

        inputs: the forward's first arguments, dimension 0 being the examples; each attribution has the shape of its
        input. target: an int (or a tensor of one), a list or 1-d tensor with one per example, and for outputs of more
        than two dimensions a tuple of indices after the example, or a list of them; None where an example has one
        output. additional_forward_args: further positional arguments, which receive nothing (their part is in the
        delta). return_convergence_delta: also a tensor [examples] of output - sum of attributions: what biases,
        constants and stabilisers took. Raises ValueError for a target that does not fit the output.
        """
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        if not given or not all(isinstance(x, Tensor) for x in given):
            raise ValueError("inputs: give a tensor or a tuple of tensors")
        names, explanation = self._explain((*given, *_further(additional_forward_args)), len(given), _chooser(target))
        seed: Tensor = explanation.relevance["output"]
        zeros = (torch.zeros_like(x, dtype=seed.dtype) for x in given)  # an input that names nothing has no share
        found = tuple(explanation.inputs.get(name, zero) for name, zero in zip(names, zeros, strict=True))
        answer = found if isinstance(inputs, tuple) else found[0]
        if not return_convergence_delta:
            return answer
        return answer, _per_example(seed) - torch.stack([_per_example(r) for r in found]).sum(0)

    def _explain(
        self, arguments: tuple[Any, ...], count: int, target: Callable[[Tensor], Any]
    ) -> tuple[list[str], Explanation]:
        """The names of the first `count` arguments, and their explanation by a trace that takes these sizes."""

        def explain(dlb: DLBacktrace) -> tuple[list[str], Explanation]:
            found = dlb.explain(arguments, mode=self.mode, target=target, seed="logit", **self.options)
            return dlb.input_names[:count], found

        weights = [*self.model.parameters(), *self.model.buffers()]
        if len(weights) != len(self._weights) or any(a is not b for a, b in zip(weights, self._weights, strict=True)):
            self._weights = weights  # other tensors in their place: what was traced is another model
            self._traces = {}
        known = self._traces.setdefault(_kind(arguments, count), [])
        for dlb in known:
            try:
                return explain(dlb)
            except InputMismatchError:
                continue  # a size that this trace has fixed
        known.append(self._trace(arguments, count))
        return explain(known[-1])

    def _trace(self, arguments: tuple[Any, ...], count: int) -> DLBacktrace:
        """A trace for which the arguments after the first `count` are constants."""
        dlb = DLBacktrace(self.model, arguments, device=self._device)
        view = dlb.graph()
        further = any(view.nodes[name]["active"] for name in dlb.input_names[count:])
        mine = [name for name in dlb.input_names[:count] if view.nodes[name]["active"]]
        return DLBacktrace(self.model, arguments, device=self._device, explain_inputs=mine) if further else dlb


def quantus_explain_func(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    *,
    mode: str | Mode | Composite = "epsilon",
    device: str | torch.device | None = None,
    reduce_axes: Sequence[int] = (),
    keepdims: bool = False,
    **options: Any,
) -> np.ndarray[Any, Any]:
    """Attributions as Quantus asks for them: `explain_func=quantus_explain_func, explain_func_kwargs={"mode": ...}`.

    inputs: an array [batch, ...]; targets: a class for each. Returns an array of the inputs' shape, in units of the
    explained output; `reduce_axes` (with `keepdims`) sums over dimensions, such as channels. device: where the model is
    explained (default: where it is). options: of the mode, and what else `DLBacktrace.explain` takes. The model is
    traced at every call, since a metric may have changed it; it must be in eval mode.
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    x = torch.as_tensor(inputs).to(like.device if device is None else device)
    if x.is_floating_point():
        x = x.to(like.dtype)
    lrp = CaptumLRP(model, mode, device="auto" if device is None else device, **options)
    found: np.ndarray[Any, Any] = lrp.attribute(x, torch.as_tensor(targets)).cpu().numpy()
    return found.sum(axis=tuple(reduce_axes), keepdims=keepdims) if len(reduce_axes) else found


def _further(arguments: Any) -> tuple[Any, ...]:
    if arguments is None:
        return ()
    return arguments if isinstance(arguments, tuple) else (arguments,)


def _kind(arguments: tuple[Any, ...], count: int) -> Signature:
    """What two calls share that one trace may serve: all but sizes."""
    leaves, spec = pytree.tree_flatten(arguments)
    kinds = ((x.dim(), x.dtype, x.device) if isinstance(x, Tensor) else repr(x) for x in leaves)
    return (count, str(spec), *kinds)


def _chooser(target: Any) -> Callable[[Tensor], Any]:
    """The target in Captum's words, once the output is there: an index for every dimension after the example's."""
    single = isinstance(target, Tensor) and target.numel() == 1
    plain = target.item() if single else target.tolist() if isinstance(target, Tensor) else target

    def choose(output: Tensor) -> Any:
        rank = max(output.dim() - 1, 0)
        if plain is None:
            if output.dim() and output[:1].numel() != 1:
                raise ValueError(f"target=None is for one output per example; this one is {list(output.shape)}")
            return (0,) * rank or 0
        for one in plain if isinstance(plain, list) else [plain]:
            if rank > 1 and not (isinstance(one, tuple) and len(one) == rank):
                raise ValueError(
                    f"target={one!r}: an output {list(output.shape)} takes a tuple of {rank} indices, or a list of them"
                )
        return plain

    return choose


def _per_example(r: Tensor) -> Tensor:
    return r.flatten(1).sum(1) if r.dim() > 1 else r.reshape(-1)
