"""Rows: what an op is. One row names an op, its kind, its operands, and how its maps apply.

A row is data. At bind the kernel asks it three things: which arguments can carry relevance (`operands`), which
simpler row it is when only some of them receive (`narrow`: a product with a gate is a linear map), and what it
hands to a formula (`view`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, fx

from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.modes import Formula

R = TypeVar("R", bound="Row")
Names = str | tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """Where a row is about to be bound: its node, arguments, and who may receive."""

    node: fx.Node
    bound: Mapping[str, Any]  # argument name -> fx argument
    receivers: frozenset[str]
    silent: frozenset[str]  # statistics and gates: active, but they receive nothing
    gates: bool  # does this mode withhold relevance from gates

    def is_scalar(self, name: str) -> bool:
        """Is this argument a number, or a constant tensor without dimensions?"""
        value = argument(self.bound, name)
        if not isinstance(value, fx.Node):
            return True
        fake = value.meta.get("val")
        return name not in self.receivers and isinstance(fake, Tensor) and fake.dim() == 0


def argument(bound: Mapping[str, Any], name: str) -> Any:
    """The argument called `name`; elements of a list argument are called ``tensors.0``."""
    if name in bound:
        return bound[name]
    base, _, index = name.rpartition(".")
    return bound[base][int(index)]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What every row has; see the subclasses for the kinds.

    op: the op's name, ``namespace::name`` for all overloads or ``namespace::name.overload`` for one; Python
    functions are ``module.name``. forward: what to run instead of the op. device, dtypes, modes: where the row
    holds (None: everywhere). replaces: the pack whose row it replaces. dynamic: its shapes depend on data, so
    several seeds are looped, not vmapped. tags: what passes want to know (``gate``, ``inverse``, ``affine``,
    ``reduction``). reads: argument values that `apply`, `transpose` or `back` read beside the operands.
    """

    kind: ClassVar[str] = "row"
    op: str
    forward: Callable[..., Any] | None = None
    device: str | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    modes: tuple[str, ...] | None = None
    replaces: str | None = None
    dynamic: bool = False
    tags: frozenset[str] = frozenset()
    reads: tuple[str, ...] = ()
    pack: str = ""
    source: str = ""
    default_formula: ClassVar[Formula | None] = None

    @property
    def carriers(self) -> tuple[str, ...]:
        """The argument names that can carry relevance, before list arguments are spread out."""
        return ()

    def operands(self, bound: Mapping[str, Any]) -> tuple[str, ...]:
        """The operand names at a node: a list argument gives one name per element."""
        names: list[str] = []
        for name in self.carriers:
            value = bound.get(name)
            if isinstance(value, (list, tuple)):
                names += [f"{name}.{i}" for i in range(len(value))]
            elif value is not None:
                names.append(name)
        return tuple(names)

    def narrow(self, site: Site) -> Row:
        """The row this one is when only `site.receivers` receive."""
        return self

    def formula(self, formulas: Mapping[str, Formula]) -> Formula | None:
        """The formula for this row in a mode."""
        return formulas.get(self.kind, self.default_formula)

    def role(self, name: str) -> tuple[str, ...]:
        """The argument names behind a role that a formula reads (``x`` -> the row's own name for it)."""
        names = getattr(self, name, None)
        if names is None:
            return ()
        return names if isinstance(names, tuple) else (names,)

    def view(self, call: Call) -> Any:
        """What the formula of this kind gets: the call with the kind's roles."""
        return call

    def become(self, cls: type[R], **fields: Any) -> R:
        """A row of another kind with this row's identity (op, pack, source, ...)."""
        common = {f.name: getattr(self, f.name) for f in dataclasses.fields(Row)}
        return cls(**{**common, **fields})


def _names(names: Names | None) -> tuple[str, ...]:
    return () if names is None else (names,) if isinstance(names, str) else names


@dataclass(frozen=True, kw_only=True)
class Constant(Row):
    """Carries no relevance and ends activity: comparisons, shapes, arg-max."""

    kind: ClassVar[str] = "constant"


def _pass_on(row_view: tuple[str, Call], r: Tensor, mode: Any) -> Shares:
    """R_x = R_y, summed back where x was broadcast."""
    name, call = row_view
    return Shares({name: sum_to(r, call.shape(name))})


@dataclass(frozen=True, kw_only=True)
class Elementwise(Row):
    """One-to-one: relevance passes. With several names the first operand that may receive takes all."""

    kind: ClassVar[str] = "elementwise"
    default_formula: ClassVar[Formula | None] = Formula(_pass_on)
    x: tuple[str, ...]

    @property
    def carriers(self) -> tuple[str, ...]:
        return self.x

    def view(self, call: Call) -> tuple[str, Call]:
        chosen = next((name for name in self.x if name in call.receivers), self.x[0])
        return chosen, call


def _halves(call: tuple[tuple[str, ...], Call], r: Tensor, mode: Any) -> Shares:
    """R_a = R_b = R_y / 2."""
    names, at = call
    half = r / len(names)
    return Shares({name: sum_to(half, at.shape(name)) for name in names})


@dataclass(frozen=True, kw_only=True)
class Product(Row):
    """A pointwise product: identity by a constant, all to the signal beside a gate, else half to each."""

    kind: ClassVar[str] = "product"
    default_formula: ClassVar[Formula | None] = Formula(_halves)
    a: str
    b: str

    @property
    def carriers(self) -> tuple[str, ...]:
        return (self.a, self.b)

    def narrow(self, site: Site) -> Row:
        if len(site.receivers) == 2:
            return self
        return self.become(Elementwise, x=tuple(sorted(site.receivers)) or (self.a,))

    def view(self, call: Call) -> tuple[tuple[str, ...], Call]:
        return (self.a, self.b), call


class SumView:
    """A sum at a node: `terms` by operand name, as they were added."""

    def __init__(self, row: Sum, call: Call) -> None:
        self.call = call
        self.receivers = call.receivers
        self._row = row

    @property
    def terms(self) -> dict[str, Any]:
        """Operand name -> the addend (with its sign or factor), a tensor or a number."""
        factors = self._row.factors(self.call) if self._row.factors else {}
        values = {name: getattr(self.call, name) for name in self._row.x}
        return {n: v if factors.get(n, 1) == 1 else v * factors[n] for n, v in values.items()}

    def back(self, name: str, r: Tensor) -> Tensor:
        """Relevance of the output's shape summed back to the operand's shape."""
        return sum_to(r, self.call.shape(name))


@dataclass(frozen=True, kw_only=True)
class Sum(Row):
    """y = sum_k f_k x_k, broadcasting; `factors(call)` gives the f_k that are not 1 (sub, alpha=)."""

    kind: ClassVar[str] = "sum"
    x: tuple[str, ...]
    factors: Callable[[Call], Mapping[str, Any]] | None = None

    @property
    def carriers(self) -> tuple[str, ...]:
        return self.x

    def narrow(self, site: Site) -> Row:
        others = [name for name in self.x if name not in site.receivers]
        if len(site.receivers) == 1 and all(name in site.silent or site.is_scalar(name) for name in others):
            return self.become(Elementwise, x=tuple(site.receivers))
        return self

    def view(self, call: Call) -> SumView:
        return SumView(self, call)


class LinearView:
    """A linear map at a node: `x`, `weight`, `bias`, `output`, `apply(x, w)` and `transpose(s, w)`.

    `bias` comes in a shape that broadcasts against the output.
    """

    def __init__(self, row: Linear, call: Call) -> None:
        self.call = call
        self.receivers = call.receivers
        self.row = row
        self.name = row.x

    @property
    def x(self) -> Tensor:
        value: Tensor = getattr(self.call, self.row.x)
        return value

    @property
    def weight(self) -> Tensor | None:
        return None if self.row.weight is None else getattr(self.call, self.row.weight)

    @property
    def bias(self) -> Tensor | None:
        value = None if self.row.bias is None else getattr(self.call, self.row.bias)
        return self.row.lift_bias(value) if isinstance(value, Tensor) else None

    @property
    def output(self) -> Tensor:
        value: Tensor = self.call.output
        return value

    def apply(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """The map without its bias."""
        return self.row.apply(x, weight, self.call)

    def transpose(self, s: Tensor, weight: Tensor | None) -> Tensor:
        """The map's transpose: from the output's shape to the shape of x."""
        if self.row.transpose is not None:
            return self.row.transpose(s, weight, self.call)
        return vjp(lambda x: self.row.apply(x, weight, self.call), self.call.shape(self.row.x), s)

    def bias_shares(self, s: Tensor, bias: Tensor | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What s * bias means for the books: relevance when the bias is active, else an account."""
        if bias is None or self.row.bias is None:
            return {}, {}
        part = sum_to(s, bias.shape) * bias
        if self.row.bias in self.receivers:
            return {self.row.bias: part.reshape(self.call.shape(self.row.bias))}, {}
        return {}, {self.row.bias: part.sum()}


@dataclass(frozen=True, kw_only=True)
class Linear(Row):
    """y = A(x; weight) + bias. Without `weight` the map has fixed weights that are not negative.

    `bias_dim` is the output dimension, from the right, on which a one-dimensional bias lies.
    """

    kind: ClassVar[str] = "linear"
    x: str
    weight: str | None = None
    bias: str | None = None
    apply: Callable[[Any, Any, Call], Tensor]
    transpose: Callable[[Tensor, Any, Call], Tensor] | None = None
    transpose_weight: Callable[[Tensor, Any, Call], Tensor] | None = None
    bias_dim: int = -1

    @property
    def carriers(self) -> tuple[str, ...]:
        return tuple(name for name in (self.x, self.weight, self.bias) if name)

    def lift_bias(self, bias: Tensor) -> Tensor:
        """The bias in a shape that broadcasts against the output."""
        return bias if bias.dim() != 1 else bias.reshape(-1, *[1] * (-self.bias_dim - 1))

    def narrow(self, site: Site) -> Row:
        if self.weight is None or self.weight not in site.receivers:
            return self
        both = self.become(
            Bilinear,
            a=self.x,
            b=self.weight,
            bias=self.bias,
            apply=self.apply,
            transpose_a=self.transpose,
            transpose_b=self.transpose_weight,
            bias_dim=self.bias_dim,
        )
        return both.narrow(site)

    def view(self, call: Call) -> LinearView:
        return LinearView(self, call)


@dataclass(frozen=True, kw_only=True)
class Bilinear(Row):
    """y = A(a, b) + bias, linear in a and in b. With one receiver it is linear with the other as weight."""

    kind: ClassVar[str] = "bilinear"
    a: str
    b: str
    bias: str | None = None
    apply: Callable[[Any, Any, Call], Tensor]
    transpose_a: Callable[[Tensor, Any, Call], Tensor] | None = None
    transpose_b: Callable[[Tensor, Any, Call], Tensor] | None = None
    bias_dim: int = -1

    @property
    def carriers(self) -> tuple[str, ...]:
        return tuple(name for name in (self.a, self.b, self.bias) if name)

    def linear_in_a(self) -> Linear:
        """The map in its first operand, the second as weight."""
        fields = {"bias": self.bias, "bias_dim": self.bias_dim}
        return self.become(
            Linear, x=self.a, weight=self.b, apply=self.apply, transpose=self.transpose_a, **fields
        )

    def linear_in_b(self) -> Linear:
        """The map in its second operand, the first as weight."""
        fields = {"bias": self.bias, "bias_dim": self.bias_dim}
        return self.become(
            Linear, x=self.b, weight=self.a, apply=_swapped(self.apply), transpose=self.transpose_b, **fields
        )

    def narrow(self, site: Site) -> Row:
        if self.a in site.receivers and self.b in site.receivers:
            return self
        return self.linear_in_b() if self.b in site.receivers else self.linear_in_a()

    def view(self, call: Call) -> tuple[LinearView, LinearView]:
        return LinearView(self.linear_in_a(), call), LinearView(self.linear_in_b(), call)


def _swapped(apply: Callable[[Any, Any, Call], Tensor]) -> Callable[[Any, Any, Call], Tensor]:
    return lambda b, a, call: apply(a, b, call)


class NormaliseView:
    """A normaliser at a node: the `output` and the `shift` that was added last."""

    def __init__(self, row: Normalise, call: Call) -> None:
        self.call = call
        self.row = row
        self.name = row.x

    @property
    def output(self) -> Tensor:
        value: Tensor = self.call.output
        return value

    @property
    def bias_name(self) -> str:
        """The account's operand: the bias, or the shift itself where there is no bias argument."""
        return self.row.bias or "shift"

    @property
    def shift(self) -> Tensor | None:
        if self.row.shift is not None:
            return self.row.shift(self.call)
        return None if self.row.bias is None else getattr(self.call, self.row.bias)


@dataclass(frozen=True, kw_only=True)
class Normalise(Row):
    """y = x scaled by its statistics and a weight, plus a shift: identity to x, the shift is an addend."""

    kind: ClassVar[str] = "normalise"
    x: str
    weight: str | None = None
    bias: str | None = None
    shift: Callable[[Call], Tensor | None] | None = None

    @property
    def carriers(self) -> tuple[str, ...]:
        return (self.x,)

    def narrow(self, site: Site) -> Row:
        no_bias = self.bias is None or site.bound.get(self.bias) is None
        return self.become(Elementwise, x=(self.x,)) if no_bias and self.shift is None else self

    def view(self, call: Call) -> NormaliseView:
        return NormaliseView(self, call)


class SoftmaxView:
    """A softmax at a node: `x`, `output` and the dimension `dim`."""

    def __init__(self, row: Softmax, call: Call) -> None:
        self.call = call
        self.name = row.x
        self.dim: int = call.dim

    @property
    def x(self) -> Tensor:
        value: Tensor = getattr(self.call, self.name)
        return value

    @property
    def output(self) -> Tensor:
        value: Tensor = self.call.output
        return value


def _softmax_passes(view: SoftmaxView, r: Tensor, mode: Any) -> Shares:
    """R_x = R_y: a softmax that is no gate only ranks its input."""
    return Shares({view.name: r})


@dataclass(frozen=True, kw_only=True)
class Softmax(Row):
    """A softmax; as a gate it is never asked, elsewhere the identity unless the mode has a formula."""

    kind: ClassVar[str] = "softmax"
    default_formula: ClassVar[Formula | None] = Formula(_softmax_passes)
    x: str

    @property
    def carriers(self) -> tuple[str, ...]:
        return (self.x,)

    def view(self, call: Call) -> SoftmaxView:
        return SoftmaxView(self, call)


@dataclass(frozen=True, kw_only=True)
class Attention(Row):
    """softmax(q k^T) v. With its weights as a gate it is linear in v with weights that are not negative."""

    kind: ClassVar[str] = "attention"
    q: str
    k: str
    v: str
    mask: str | None = None
    apply: Callable[[Any, Any, Call], Tensor]

    @property
    def carriers(self) -> tuple[str, ...]:
        return (self.q, self.k, self.v)

    def narrow(self, site: Site) -> Row:
        if not site.gates:
            return self
        reads = tuple(name for name in (self.q, self.k, self.mask) if name)
        return self.become(Linear, x=self.v, apply=self.apply, reads=reads)


def _move_back(view: tuple[Move, tuple[str, ...], Call], r: Any, mode: Any) -> Shares:
    """R goes back where the value came from."""
    row, names, call = view
    back = row.back(r, call) if row.back else _vjp_back(row, names, call, r)
    if isinstance(back, Shares):
        return back
    return Shares(dict(zip(names, back if isinstance(back, (tuple, list)) else (back,), strict=True)))


def _vjp_back(row: Move, names: Sequence[str], call: Call, r: Any) -> tuple[Tensor, ...]:
    """The way back of a move without `back`: every output is a copy, so its Jacobian only selects."""
    run = row.forward or call.node.target

    def moved(*tensors: Tensor) -> Any:
        arguments = call_arguments(call, dict(zip(names, tensors, strict=True)))
        return run(**arguments) if row.forward is None else run(*arguments.values())  # type: ignore[operator]

    primals = [getattr(call, name) for name in names]
    return tuple(torch.func.vjp(moved, *primals)[1](r))


def call_arguments(call: Call, replaced: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a call by name, some of them replaced (list elements as ``tensors.0``)."""
    arguments = {name: getattr(call, name) for name in call._bound}
    for name, value in replaced.items():
        base, dot, index = name.rpartition(".")
        if name in arguments or not dot:
            arguments[name] = value
        else:
            arguments[base] = [value if i == int(index) else old for i, old in enumerate(arguments[base])]
    return arguments


@dataclass(frozen=True, kw_only=True)
class Move(Row):
    """Every output element is a copy of one input element or of a constant; `back(r, call)` undoes it.

    `back` returns a tensor, a tuple with one per operand, or `Shares` where a constant takes part. Without
    `back` the op's own vector-Jacobian product is used.
    """

    kind: ClassVar[str] = "move"
    default_formula: ClassVar[Formula | None] = Formula(_move_back, reads=lambda mode: ("kept",))
    x: tuple[str, ...]
    back: Callable[[Any, Call], Any] | None = None

    @property
    def carriers(self) -> tuple[str, ...]:
        return self.x

    @property
    def kept(self) -> tuple[str, ...]:
        """The operands whose values the way back needs: none when `back` is given."""
        return () if self.back else self.x

    def view(self, call: Call) -> tuple[Move, tuple[str, ...], Call]:
        return self, self.operands(call._bound), call


def _to_ids(view: tuple[str, Call], r: Tensor, mode: Any) -> Shares:
    """R_id = sum of R over the embedding's dimensions."""
    name, call = view
    dims = len(call.shape(name))
    return Shares({name: r.flatten(dims).sum(-1)})


@dataclass(frozen=True, kw_only=True)
class Lookup(Row):
    """Rows of a table by integer ids; the ids receive, summed over the row."""

    kind: ClassVar[str] = "lookup"
    default_formula: ClassVar[Formula | None] = Formula(_to_ids)
    ids: str
    table: str

    @property
    def carriers(self) -> tuple[str, ...]:
        return (self.ids,)

    def view(self, call: Call) -> tuple[str, Call]:
        return self.ids, call


@dataclass(frozen=True, kw_only=True)
class OpRule(Row):
    """An op with a formula of its own: `run(call, r, mode) -> Shares`."""

    kind: ClassVar[str] = "rule"
    x: tuple[str, ...]
    own: Formula = field(repr=False)

    @property
    def carriers(self) -> tuple[str, ...]:
        return self.x

    def formula(self, formulas: Mapping[str, Formula]) -> Formula | None:
        return self.own

    def role(self, name: str) -> tuple[str, ...]:
        return (name,)


def sum_to(r: Tensor, shape: torch.Size) -> Tensor:
    """Relevance summed back over broadcast dimensions."""
    return r if r.shape == shape else r.sum_to_size(shape)


def vjp(function: Callable[[Tensor], Tensor], shape: Sequence[int], s: Tensor) -> Tensor:
    """The transpose of a linear function, by its vector-Jacobian product (works under vmap and compile)."""
    pulled: tuple[Tensor, ...] = torch.func.vjp(function, torch.zeros(shape, dtype=s.dtype, device=s.device))[1](s)
    return pulled[0]
