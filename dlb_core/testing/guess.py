"""Arguments guessed from an op's schema: small tensors, numbers by their names; what the op accepts is a case."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dlb_core.kernel.kinds import Bilinear, Linear, Lookup, Normalise, Row
from dlb_core.kernel.ops import family_name
from dlb_core.kernel.registry import Registry
from dlb_core.testing.batches import is_batch
from dlb_core.testing.bound import call_op
from dlb_core.testing.case import Arguments, Case
from dlb_core.testing.tensors import Tensors

Shape = tuple[int, ...]

#: Shapes for the op's tensors, in their order; the last one serves all further ones.
ONE: tuple[tuple[Shape, ...], ...] = (((2, 3),), ((),), ((0, 3),), ((2, 1, 4),))
SEVERAL: tuple[tuple[Shape, ...], ...] = (((2, 3),), ((2, 1, 3), (4, 1)), ((2, 3), (3,)), ((3,), (2, 3)), ((0, 3),))
MAPS: tuple[tuple[Shape, ...], ...] = (
    *(((n, 3), (3, 4), (4,)) for n in (2, 0)),
    *(((n, 3), (4, 3), (4,)) for n in (2, 0)),
    ((2, 2, 3), (2, 3, 4), (4,)),
    ((4,), (2, 3), (3, 4)),
)
IMAGES: tuple[tuple[Shape, ...], ...] = (((2, 4, 6),), ((2, 4, 4, 4),), ((2, 3, 4, 4), (2, 3, 2, 2), (2,)))
ENOUGH = 4  # sets of shapes per overload
TRIALS = 60  # calls per set of shapes

IDS = frozenset({"index", "indices", "ids", "idx"})
MASKS = frozenset({"mask", "condition"})
PLACES = ("dim", "axis", "index", "start", "offset", "source", "destination")
OF_TWO: Mapping[str, tuple[int, ...]] = {"dim0": (0,), "axis0": (0,), "dim1": (1,), "axis1": (1,)}


class CannotGuess(Exception):
    """No arguments were found that the op accepts."""


@dataclass(frozen=True)
class Guessed:
    """Arguments of one op: the shapes of its tensors and everything else as it is."""

    tensors: Mapping[str, Shape | tuple[Shape, ...]]
    others: Mapping[str, Any]
    role: Mapping[str, str]  # of tensors that are not plain floating ones: "ids", "mask"
    positive: bool

    def __call__(self, t: Tensors) -> Arguments:
        made = {name: self._tensor(t, name, shape) for name, shape in self.tensors.items()}
        return {**made, **self.others}

    def _tensor(self, t: Tensors, name: str, shape: Any) -> Any:
        if shape and isinstance(shape[0], tuple):
            return [self._tensor(t, name, each) for each in shape]
        role = self.role.get(name)
        if role == "ids":
            return t.ids(2, *shape)
        if role == "mask":
            return t.mask(*shape)
        if self.positive and t.signs != "distinct":
            return t.positive(*shape)
        return t(*shape)


def guessed_cases(row: Row, registry: Registry) -> list[Case]:
    """Cases for every overload that the row serves. Raises `CannotGuess`, saying why."""
    ops = list(overloads(row, registry))
    if not ops:
        raise CannotGuess(f"no op {row.op} with a schema was found: is the module that defines it loaded?")
    cases = [case for op in ops for case in _cases(op, row)]
    if not cases:
        raise CannotGuess("its arguments cannot be guessed from its schema")
    return cases


def overloads(row: Row, registry: Registry) -> Iterator[Any]:
    """The functional overloads for which this row is the most specific one."""
    namespace, _, name = family_name(row.op).partition("::")
    packet = getattr(getattr(torch.ops, namespace, None), name, None) if name else None
    mode, dtype = next(iter(row.modes or ()), None), next(iter(row.dtypes or ()), None)
    for overload in packet.overloads() if packet is not None else ():
        op = getattr(packet, overload)
        found = registry.find(op, mode, row.device, dtype)
        mine = found is not None and (found.op, found.source) == (row.op, row.source)
        if mine and not op._schema.is_mutable and not overload.startswith("prim_"):
            yield op


def _cases(op: Any, row: Row) -> list[Case]:
    schema = op._schema.arguments
    named = _named(row)
    lists = [a.name for a in schema if _is_list_of_tensors(a) and not a.has_default_value()]
    every = [a.name for a in schema if _is_tensor(a)]
    fewest = [a.name for a in schema if _is_tensor(a) and not _may_be_left_out(a)]
    plain = [name for name in every if name in named or name in fewest]
    cases: list[Case] = []
    for wanted in (list(names) for names in dict.fromkeys(map(tuple, (every, plain, fewest)))):
        accepted: list[Guessed] = []
        for tier in _tiers(row, len(wanted) + len(lists)):
            for shapes in tier:
                if isinstance(row, Normalise) and any(0 in shape for shape in shapes):
                    continue  # statistics of nothing: some ops crash
                if len(accepted) < ENOUGH:
                    found = _first_accepted(op, row, wanted, lists, shapes, accepted[-1] if accepted else None)
                    accepted += [found] if found is not None else []
            if accepted:
                break
        for place, arguments in enumerate(accepted):
            cases += _sides(op, row, arguments, each_alone=place < 2)
    return cases


def _tiers(row: Row, count: int) -> list[tuple[tuple[Shape, ...], ...]]:
    """Sets of shapes for so many tensors; the next tier is for ops that accept none of the one before."""
    if count == 0:
        return []
    if count == 1:
        return [ONE, IMAGES]
    return [MAPS, SEVERAL, IMAGES] if isinstance(row, (Linear, Bilinear)) else [SEVERAL, MAPS, IMAGES]


def _named(row: Row) -> set[str]:
    """Arguments that the row names as an operand."""
    roles = ("x", "a", "b", "weight", "bias", "q", "k", "v", "ids", "table", "reads")
    return {name for role in roles for name in Row.role(row, role)}


def _is_tensor(argument: Any) -> bool:
    return str(argument.type) in ("Tensor", "Optional[Tensor]")


def _is_list_of_tensors(argument: Any) -> bool:
    return "List[Tensor]" in str(argument.type) or "List[Optional[Tensor]]" in str(argument.type)


def _may_be_left_out(argument: Any) -> bool:
    return argument.has_default_value() or str(argument.type).startswith("Optional")


def _first_accepted(
    op: Any, row: Row, names: list[str], lists: list[str], shapes: tuple[Shape, ...], before: Guessed | None
) -> Guessed | None:
    """The first choice of the other arguments with which the op runs and gives something finite.

    What went well `before` is tried first; empty tensors are tried with nothing else, since they fit too much.
    """
    sizes: dict[str, Any] = {}
    for place, name in enumerate((*names, *lists)):
        shape = shapes[min(place, len(shapes) - 1)]
        sizes[name] = (shape, shape) if name in lists else shape
    role = {n: "ids" for n in names if n in IDS or (isinstance(row, Lookup) and n == row.ids)}
    role |= {n: "mask" for n in names if n in MASKS}
    choices = {}
    for argument in op._schema.arguments:
        if argument.name not in sizes:
            values = _values(argument, shapes[0])
            if values is None:
                return None
            choices[argument.name] = values
    trials: Iterable[tuple[Any, ...]] = itertools.islice(itertools.product(*choices.values()), TRIALS)
    empty = any(0 in shape for shape in shapes)
    if before is not None:
        again = tuple(before.others.get(name, _LEFT_OUT) for name in choices)
        trials = [again] if empty else itertools.chain([again], trials)
    elif empty:
        return None
    for values in trials:
        others = {n: v for n, v in zip(choices, values, strict=True) if v is not _LEFT_OUT}
        for positive in (False, True):
            tried = Guessed(sizes, others, role, positive)
            if _accepts(op, row, tried, empty=empty):
                return tried
    return None


_LEFT_OUT = object()


def _values(argument: Any, shape: Shape) -> tuple[Any, ...] | None:
    """What an argument may be: its default first; None where nobody can tell."""
    kind = str(argument.real_type)  # `type` calls a dtype an int, too
    if argument.has_default_value():
        return (_LEFT_OUT,)
    if kind.startswith("Optional"):
        return (None,)
    place = any(word in argument.name for word in PLACES)
    if kind in ("int", "SymInt"):
        return OF_TWO.get(argument.name, (-1, 0, 1)) if place else (1, 2)
    if kind in ("float", "number"):
        return (0.5, 1.5)
    if kind == "bool":
        return (False, True)
    if kind in ("List[int]", "List[SymInt]"):
        whole = list(shape)
        if place:
            return ([-1], [0], [*range(len(shape))][::-1])
        return ([1], [2], [2, 2], whole, whole[-1:], whole[::-1], [math.prod(shape)])  # never 0: some ops divide by it
    return None


def _accepts(op: Any, row: Row, arguments: Guessed, *, empty: bool) -> bool:
    try:
        output = call_op(op, arguments(maker(row)))
    except Exception:  # noqa: BLE001 - an op refuses arguments in any way it likes; then they are no case
        return False
    tensors = [v for v in pytree.tree_leaves(output) if isinstance(v, Tensor)]
    floating = [v for v in tensors if v.is_floating_point()]
    if not floating or floating[0] is not tensors[0] or (not empty and not all(v.numel() for v in floating)):
        return False
    return all(bool(torch.isfinite(v).all()) for v in floating)


def _sides(op: Any, row: Row, arguments: Guessed, *, each_alone: bool) -> list[Case]:
    """A case in which all operands receive, and one for each of several alone; weights and biases stay parameters."""
    given = arguments(maker(row))
    learned = {getattr(row, "weight", None), getattr(row, "bias", None)}
    names: list[str] = []
    for name in row.carriers or (next(iter(arguments.tensors)),):
        value = given.get(name)
        if isinstance(value, list):
            names += [f"{name}.{i}" for i in range(len(value))]
        elif isinstance(value, Tensor) and name not in learned:
            names.append(name)
    sides = [tuple(names)] if names else []
    if each_alone and len(names) > 1:
        sides += [(name,) for name in names]
    return [Case(op, arguments, side, batch=_batch(op, given, learned)) for side in sides]


def _batch(op: Any, given: Arguments, learned: set[Any]) -> tuple[str, ...]:
    """The operands over whose dimension 0 the op itself works member by member; none when it does not."""
    tensors = {n for n, v in given.items() if isinstance(v, Tensor) and v.dim() and v.shape[0] > 1}
    for names in (tensors, tensors - learned):
        if names and is_batch(lambda a: call_op(op, a), given, tuple(sorted(names))):
            return tuple(sorted(names))
    return ()


def maker(row: Row) -> Tensors:
    """A maker of tensors in a dtype of the row and on its device."""
    dtypes = row.dtypes or (torch.float64,)
    return Tensors(0, torch.float64 if torch.float64 in dtypes else dtypes[0], device=row.device or "cpu")


def smallest_first(case: Case) -> tuple[bool, int]:
    """A key to sort by: how many elements the tensors have; empty ones say little, so they come last."""
    sizes = [v.numel() for v in pytree.tree_leaves(case.arguments(Tensors(0))) if isinstance(v, Tensor)]
    return 0 in sizes, sum(sizes)
