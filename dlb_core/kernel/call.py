"""What a relevance step sees (`Call`) and what it returns (`Shares`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, fx

#: Two of the real dtype; a table, since a compiler does not see through `dtype.to_complex()`.
COMPLEX = {
    torch.float64: torch.complex128,
    torch.float32: torch.complex64,
    torch.float16: torch.complex32,
    torch.bfloat16: torch.complex64,
}


@dataclass(frozen=True, slots=True)
class Ref:
    """A place in the list of values: the output of the node at `slot`."""

    slot: int


def references(template: Any) -> Iterator[int]:
    """The slots that an argument template reads."""
    if type(template) is Ref:
        yield template.slot
    elif isinstance(template, (tuple, list)):
        for item in template:
            yield from references(item)
    elif isinstance(template, dict):
        for item in template.values():
            yield from references(item)
    elif isinstance(template, slice):
        yield from references((template.start, template.stop, template.step))


def resolve(template: Any, values: Sequence[Any]) -> Any:
    """The template with every `Ref` replaced by its value."""
    kind = type(template)
    if kind is Ref:
        return values[template.slot]
    if kind is tuple or kind is list:
        return kind(resolve(item, values) for item in template)
    if kind is dict:
        return {key: resolve(item, values) for key, item in template.items()}
    if kind is slice:
        return slice(*(resolve(item, values) for item in (template.start, template.stop, template.step)))
    return template


def reader(template: Any) -> Callable[[Sequence[Any]], Any]:
    """`resolve` for one template, with all that does not depend on the values settled beforehand."""
    if type(template) is Ref:
        return itemgetter(template.slot)
    if not tuple(references(template)):
        return lambda values: template
    if type(template) is tuple and len(template) > 1 and all(type(item) is Ref for item in template):
        return itemgetter(*(item.slot for item in template))
    return lambda values: resolve(template, values)


def caller(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Callable[[Sequence[Any]], Any]:
    """A call of `function` on the values that its templates name."""
    if tuple(references(dict(kwargs))):
        return lambda values: function(*resolve(args, values), **resolve(dict(kwargs), values))
    count = next((i for i, item in enumerate(args) if type(item) is not Ref), len(args))
    first, rest = args[:count], args[count:]
    if tuple(references(rest)):
        read = reader(args)
        return lambda values: function(*read(values), **kwargs)
    if count == 1:
        slot = first[0].slot
        return lambda values: function(values[slot], *rest, **kwargs)
    if not count:
        return lambda values: function(*rest, **kwargs)
    take = itemgetter(*(item.slot for item in first))
    return lambda values: function(*take(values), *rest, **kwargs)


class Shares:
    """The outcome of one relevance step: relevance by operand, and units booked by account.

    `relevance` maps operand names (the op's schema names; elements of a list operand as ``tensors.0``) to
    tensors of the operand's shape. What is given to an operand that depends on no explained input is booked
    under that operand's name. `accounts` maps account names to scalars; an account that has the name of an
    operand is booked as ``bias:<parameter>`` or ``constant:<name>`` of that operand.
    """

    __slots__ = ("accounts", "relevance")

    def __init__(
        self, relevance: Mapping[str, Any], accounts: Mapping[str, Tensor] | None = None, /, **named: Tensor
    ) -> None:
        self.relevance = relevance
        self.accounts: dict[str, Tensor] = {**(accounts or {}), **named}

    def __repr__(self) -> str:
        return f"Shares({list(self.relevance)}, accounts={list(self.accounts)})"


class Call:
    """One executed node: its arguments by their schema names, its `output`, its fx `node`, its `device`.

    Only what the step declared in `reads` is kept after the forward pass; other tensors read as None, their
    shapes are always there (`shape`). Floating tensors arrive in the dtype of the relevance. `before`: the same call
    one point earlier, where relevance is that of a change between two points.
    """

    __slots__ = ("_bound", "_dtype", "_shapes", "_slot", "_values", "before", "device", "node", "receivers", "shared")

    def __init__(
        self,
        node: fx.Node,
        bound: Mapping[str, Any],
        slot: int,
        receivers: frozenset[str],
        values: Sequence[Any],
        shapes: Sequence[Any],
        dtype: torch.dtype,
        device: torch.device,
        before: Call | None = None,
    ) -> None:
        self.before = before
        self.shared: dict[Any, Any] | None = None
        self.node = node
        self.device = device
        self.receivers = receivers
        self._bound = bound
        self._slot = slot
        self._values = values
        self._shapes = shapes
        self._dtype = dtype

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._cast(resolve(self._argument(name), self._values))

    @property
    def output(self) -> Any:
        """The value that the node returned."""
        return self._cast(self._values[self._slot])

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returns; of two passes that share, the first makes it and the second takes it.

        It must depend on the node's values alone, not on relevance, and nobody may write to it.
        """
        if self.shared is None:
            return make()
        key = self._slot, name
        if key in self.shared:
            return self.shared.pop(key)
        self.shared[key] = made = make()
        return made

    def shape(self, name: str) -> Any:
        """The shape of a tensor argument (or of ``output``), known even when the tensor was freed."""
        if name == "output":
            return self._shapes[self._slot]
        argument = self._argument(name)
        if type(argument) is Ref:
            return self._shapes[argument.slot]
        return torch.Size()  # a number: it broadcasts like a 0-d tensor

    def takes(self, name: str) -> bool:
        """Has the op an argument of this name?"""
        return name in self._bound

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which relevance flows."""
        return self._dtype

    def _argument(self, name: str) -> Any:
        if name in self._bound:
            return self._bound[name]
        base, dot, index = name.rpartition(".")
        if dot and base in self._bound:
            listed = self._bound[base]
            return listed[int(index)] if int(index) < len(listed) else None
        raise AttributeError(f"{self.node.target} has no argument {name!r}; it has {', '.join(self._bound)}")

    def _cast(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            dtype = COMPLEX[self._dtype] if value.is_complex() else self._dtype
            wrong = value.dtype is not dtype and (value.is_floating_point() or value.is_complex())
            return value.to(dtype) if wrong else value
        if isinstance(value, (tuple, list)):
            return type(value)(self._cast(item) for item in value)
        return value
