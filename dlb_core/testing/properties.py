"""What every rule has to hold, whatever its kind: books, linearity, batches, zeros, dtypes, vmap, compile.

Each property looks at one `Trial` and raises `BrokenProperty` with what it saw, or `NotAsked` with the reason.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dlb_core.errors import DLBError, NonFiniteError
from dlb_core.kernel.kinds import Normalise, Row
from dlb_core.testing.batches import cut, length
from dlb_core.testing.bound import Outcome, assert_conserved, parts
from dlb_core.testing.dense import places
from dlb_core.testing.laws import law
from dlb_core.testing.tensors import LAYOUTS, SIGNS
from dlb_core.testing.trial import BrokenProperty, NotAsked, Trial, finite


def arguments(trial: Trial) -> None:
    """The operands and arguments that the row names are the op's."""
    op = trial.case.op
    if trial.case.module is not None:
        raise NotAsked("a layer's operands are what flows in")
    if not isinstance(op, torch._ops.OpOverload):
        raise NotAsked("the op has no schema")
    known = [argument.name for argument in op._schema.arguments]
    roles = ("x", "a", "b", "weight", "bias", "q", "k", "v", "mask", "ids", "table")
    for role in roles:
        for name in Row.role(trial.row, role):
            if name != "output" and name.partition(".")[0] not in known:
                raise BrokenProperty(f"the row names {name!r} as its {role}; the op's arguments are {', '.join(known)}")


def forward(trial: Trial) -> None:
    """The op gives the same twice, and what the row runs instead gives what the op gives."""
    given = trial.arguments(trial.tensors(1))
    expected = trial.run(given)
    again = trial.run(given)
    for a, b in zip(_tensors(expected), _tensors(again), strict=True):
        if not torch.equal(a.nan_to_num(), b.nan_to_num()):
            raise BrokenProperty("the op gives other values when it is run again: a rule needs a deterministic op")
    instead = "forward=" if trial.row.forward is not None else "the bound program"
    trial.close(trial.bind(given).output, expected, f"{instead} does not give what the op gives")


def untouched(trial: Trial) -> None:
    """Neither the arguments nor the relevance that came in are changed in place."""
    given = trial.arguments(trial.tensors(4, layout="strided"))
    bound = trial.bind(given)
    seed = trial.seed(bound, 5)
    watched = {"the relevance that came in": _tensors(seed), "its parameters": _parameters(trial, given)}
    watched |= {f"its argument {name!r}": _tensors(value) for name, value in given.items()}
    before = {what: [(t.clone(), t._version) for t in tensors] for what, tensors in watched.items()}
    bound.back(seed)
    for what, tensors in watched.items():
        for now, (values, version) in zip(tensors, before[what], strict=True):
            if now._version != version or not torch.equal(now.nan_to_num(), values.nan_to_num()):
                raise BrokenProperty(f"the rule changes {what} in place: return new tensors")


def _parameters(trial: Trial, given: dict[str, Any]) -> list[Tensor]:
    if trial.case.module is None:
        return []
    module = trial.layers.module(trial.case, given)
    return [*module.parameters(), *module.buffers()]


def conservation(trial: Trial) -> None:
    """What came in is what the operands got plus what was booked, whatever the signs and strides."""
    asked = False
    for number, signs in enumerate(SIGNS):
        asked |= _conserves(trial, trial.arguments(trial.tensors(6, signs, LAYOUTS[number % len(LAYOUTS)])))
    if not asked:
        raise NotAsked("the op gives nothing finite here")


def _conserves(trial: Trial, given: dict[str, Any]) -> bool:
    """False where the op itself refuses these values or strides, or gives nothing finite."""
    try:
        output = trial.run(given)
    except Exception:  # noqa: BLE001 - an op refuses in any way it likes
        return False
    if not finite(output):
        return False
    bound = trial.bind(given)
    done = bound.back(trial.seed(bound, 7))
    _assert_books(done)
    return True


def _assert_books(done: Outcome) -> None:
    if not finite(list(done.relevance.values())):
        raise BrokenProperty("relevance is NaN or infinite")
    try:
        assert_conserved(done)
    except AssertionError as error:
        raise BrokenProperty(f"relevance is not conserved: {error}") from None


def linear_in_the_seed(trial: Trial) -> None:
    """R(2a + b) = 2 R(a) + R(b), in places and in accounts."""
    bound = trial.bind(trial.arguments(trial.tensors(8)))
    one, two = trial.seed(bound, 9), trial.seed(bound, 10)
    first, second = bound.back(one), bound.back(two)
    whole = bound.back(pytree.tree_map(lambda a, b: 2 * a + b, one, two))
    for name, value in whole.relevance.items():
        expected = pytree.tree_map(lambda a, b: 2 * a + b, first[name], second[name])
        trial.close(value, expected, f"relevance of {name} is not linear in the seed", scale=_size(value))
    for account, units in whole.accounts.items():
        expected = 2 * first.booked(account) + second.booked(account)
        if abs(units - expected) > 1e-6 * (abs(units) + abs(expected)) + 1e-9 * _size(one):
            raise BrokenProperty(f"account {account!r} is not linear in the seed: {units:.6g}, expected {expected:.6g}")


def zeros(trial: Trial) -> None:
    """All-zero inputs give no NaN."""
    given = trial.arguments(trial.tensors(11, "zero"))
    if not finite(trial.run(given)):
        raise NotAsked("the op itself is not finite at zero")
    bound = trial.bind(given)
    try:
        bound.back(trial.seed(bound, 7))
    except NonFiniteError as error:
        raise BrokenProperty(f"with all-zero inputs relevance is NaN or infinite: {error}") from None
    except DLBError:
        return  # not about zeros: the next property says it better


def dtypes(trial: Trial) -> None:
    """In every dtype of the row relevance is finite, conserved, and in the dtype in which it came in."""
    asked = False
    for dtype in trial.row.dtypes or (torch.float64, torch.float32):
        bound = trial.bind(trial.arguments(trial.tensors(12, dtype=dtype)))
        if not finite(bound.output):
            continue
        asked = True
        done = bound.back(trial.seed(bound, 13))
        _assert_books(done)
        for name, value in done.relevance.items():
            for tensor in _tensors(value):
                if parts(tensor).dtype != bound.plan.dtype:
                    raise BrokenProperty(f"relevance of {name} is {tensor.dtype}, but {bound.plan.dtype} came in")
    if not asked:
        raise NotAsked("the op gives nothing finite here")


def batch(trial: Trial) -> None:
    """A member of a batch gets what it gets alone."""
    names = trial.case.batch
    if not names:
        raise NotAsked("no batch is declared: Case(..., batch=('x',))")
    given = trial.arguments(trial.tensors(14))
    bound = trial.bind(given)
    seed = trial.seed(bound, 15)
    whole = bound.back(seed)
    members: list[Outcome] = []
    for i in range(length(given, names)):
        member = slice(i, i + 1)
        alone = trial.bind(cut(given, names, member))
        members.append(alone.back(_at(seed, member)))
    trial.drawn = given
    for name, value in whole.relevance.items():
        values = [one[name] for one in members]
        expected = torch.cat(values) if name in names else torch.stack(values).sum(0)
        how = "of a batch member differs from what it gets alone" if name in names else "is not the sum over the batch"
        trial.close(value, expected, f"relevance of {name} {how}", scale=_size(seed))
    for account, units in whole.accounts.items():
        alone_units = sum(one.booked(account) for one in members)
        if abs(units - alone_units) > 1e-6 * (abs(units) + abs(alone_units)) + 1e-9 * _size(seed):
            raise BrokenProperty(f"account {account!r} is {units:.6g}, but {alone_units:.6g} over the members alone")


def sizes(trial: Trial) -> None:
    """One member, and none."""
    names = trial.case.batch
    if not names:
        raise NotAsked("no batch is declared: Case(..., batch=('x',))")
    one, none = slice(0, 1), slice(0, 0)
    for members in (one,) if isinstance(trial.row, Normalise) else (one, none):  # statistics of nothing: some ops crash
        _conserves(trial, cut(trial.arguments(trial.tensors(16)), names, members))


def reads(trial: Trial) -> None:
    """With every value freed that the rule did not say it reads, relevance is the same."""
    bound = trial.bind(trial.arguments(trial.tensors(17)))
    seed = trial.seed(bound, 18)
    expected = bound.back(seed)
    try:
        done = bound.back(seed, only_reads=True)
    except Exception as error:
        raise BrokenProperty(
            f"the rule looks at a value that it did not name in reads=, which is freed by then: {_first_line(error)}"
        ) from error
    for name, value in expected.relevance.items():
        trial.close(done[name], value, f"relevance of {name} changes when what is not in reads= is freed")


def vmap(trial: Trial) -> None:
    """Several seeds at once, as `targets=[...]` runs them, are each as alone."""
    bound = trial.bind(trial.arguments(trial.tensors(19)))
    seeds = [trial.seed(bound, number) for number in (20, 21, 22)]
    alone = [bound.back(seed) for seed in seeds]
    stacked = pytree.tree_map(lambda *each: torch.stack(each), *seeds)
    try:
        together = bound.back(stacked, several=True)
    except Exception as error:
        raise BrokenProperty(
            f"the rule fails under torch.vmap over seeds: {_first_line(error)}; use tensor code whose shapes do not "
            "depend on values, or say dynamic=True on the row"
        ) from error
    for i, one in enumerate(alone):
        for name, value in one.relevance.items():
            trial.close(
                _at(together[name], i), value, f"relevance of {name} under torch.vmap over seeds", scale=_size(seeds[i])
            )


def compiled(trial: Trial) -> None:
    """The formula compiles as one graph, and gives the same."""
    bound = trial.bind(trial.arguments(trial.tensors(23)))
    if bound.plan.dynamic:
        raise NotAsked("dynamic=True")
    step, view, mode = bound.plan.steps[0], bound.view(), bound.plan.steps[0].mode
    run = step.formula.run
    if not isinstance(run, types.FunctionType):
        raise NotAsked("the formula is no plain function")

    def formula(r: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        shares = run(view, r, mode)
        return dict(shares.relevance), dict(shares.accounts)

    # a code object of its own: torch counts the recompilations of one
    own = types.FunctionType(formula.__code__.replace(), formula.__globals__, "formula", None, formula.__closure__)
    seed = trial.seed(bound, 24)
    expected = formula(seed)
    try:
        with torch.no_grad():
            got = torch.compile(own, backend="aot_eager", fullgraph=True, dynamic=False)(seed)
    except Exception as error:
        raise BrokenProperty(f"the formula does not compile as one graph: {_first_line(error)}") from error
    trial.close(got, expected, "the compiled formula gives something else", scale=_size(seed))


def _at(value: Any, place: int | slice) -> Any:
    """One place of the leading dimension of every tensor."""
    return pytree.tree_map(lambda v: v[place], value)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _tensors(value: Any) -> list[Tensor]:
    return [v for v in pytree.tree_leaves(value) if isinstance(v, Tensor)]


def _size(value: Any) -> float:
    return max((float(v.abs().max()) for v in _tensors(value) if v.numel()), default=0.0)


@dataclass(frozen=True)
class Property:
    """A property by its name in reports; `every`: asked of every mode and case, not only of the first."""

    name: str
    holds: Callable[[Trial], None]
    every_mode: bool = True
    every_case: bool = True

    @property
    def about(self) -> str:
        """What it says, in one line."""
        return (inspect.getdoc(self.holds) or "").partition("\n")[0]


#: In the order in which they are asked: what explains a failure best comes first.
PROPERTIES = (
    Property("arguments", arguments, every_mode=False),
    Property("forward", forward, every_mode=False),
    Property("law", law, every_mode=False),
    Property("zeros", zeros),
    Property("conservation", conservation),
    Property("untouched", untouched),
    Property("places", places),
    Property("seed", linear_in_the_seed),
    Property("dtypes", dtypes),
    Property("batch", batch),
    Property("sizes", sizes),
    Property("reads", reads),
    Property("vmap", vmap),
    Property("compile", compiled, every_case=False),
)
