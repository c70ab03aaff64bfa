"""`check_rule`: every property of the kit on one rule, smallest case first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import torch

from dlb_core.choices import BIAS_POLICIES
from dlb_core.errors import UnsupportedOpError
from dlb_core.kernel.kinds import Constant, Row
from dlb_core.kernel.layers import NAMESPACE, layer_op
from dlb_core.kernel.modes import Mode
from dlb_core.kernel.ops import family_name, op_name
from dlb_core.kernel.packs import registry as installed
from dlb_core.kernel.registry import Registry
from dlb_core.testing.bound import ModeName
from dlb_core.testing.case import Case
from dlb_core.testing.guess import CannotGuess, guessed_cases, maker, smallest_first
from dlb_core.testing.layer import LayerPrograms
from dlb_core.testing.properties import PROPERTIES, Property
from dlb_core.testing.report import Report, RuleCheckError, arguments_text, mode_text
from dlb_core.testing.trial import BrokenProperty, NotAsked, Trial

OF_SEVERAL = ("choice", "complex", "compound", "rule")  # kinds that become others, or ask the mode themselves


def check_rule(
    rule: Row | str | type,
    *,
    cases: Iterable[Case] | None = None,
    modes: Iterable[ModeName] | None = None,
) -> None:
    """Raises `RuleCheckError` at the first property that a rule breaks, naming it and the smallest case.

    rule: a row, installed or not; the name of an op (``ns::op``) or a module class whose installed rows are meant.
    cases: arguments; those of other ops are passed over (default: guessed from the op's schema). modes: names, or
    (name, bias policy) (default: every mode that treats the row's kind in a way of its own, with every policy it
    knows). Raises ValueError where there is no case, no such rule or no such mode.
    """
    known = list(cases) if cases is not None else None
    registry = installed()
    for row in _rows(rule, registry):
        report = examine(row, cases=known, modes=modes, registry=registry)
        if report.error is not None:
            raise report.error
        if report.status == "skipped" and not isinstance(row, Constant):
            raise ValueError(f"{row.op} cannot be checked: {next(iter(report.skipped.values()))}")


def examine(
    row: Row,
    *,
    cases: Sequence[Case] | None = None,
    modes: Iterable[ModeName] | None = None,
    registry: Registry | None = None,
    leave_out: Iterable[str] = (),
) -> Report:
    """What `check_rule` finds out about one row, as a `Report`; `leave_out` names properties that are not asked."""
    found = installed() if registry is None else registry
    row = _as_installed(row, found)
    alone = found.extended([row])
    report = Report(row.op, row.kind, row.pack)
    if isinstance(row, Constant):
        return dataclasses.replace(report, skipped={"all": "it carries no relevance"})
    if row.device not in (None, "cpu") and not _available(str(row.device)):
        return dataclasses.replace(report, skipped={"all": f"there is no {row.device} device here"})
    asked = [case for case in cases or () if _is_about(case, row)]
    try:
        asked = asked or _guessed(row, alone)
    except CannotGuess as reason:
        return dataclasses.replace(
            report, skipped={"all": f"no case: {reason}; give a Case (cases=, or DLB_CASES of the pack)"}
        )
    asked.sort(key=smallest_first)
    wanted = _modes(row, alone, modes)
    return _examined(report, row, asked, wanted, alone, frozenset(leave_out))


def _examined(
    report: Report, row: Row, cases: list[Case], modes: list[ModeName], registry: Registry, leave_out: frozenset[str]
) -> Report:
    layers = LayerPrograms()
    passed: list[str] = []
    skipped: dict[str, str] = {}
    report = dataclasses.replace(report, cases=len(cases))
    for each in PROPERTIES:
        if each.name in leave_out:
            skipped[each.name] = "asked of another rule of this kind"
            continue
        held = False
        for case in cases if each.every_case else cases[:1]:
            for mode in modes if each.every_mode else modes[:1]:
                trial = Trial(_found(row, case, mode, registry), case, mode, registry, layers, row.device or "cpu")
                try:
                    each.holds(trial)
                    held = True
                except NotAsked as reason:
                    skipped.setdefault(each.name, str(reason))
                except Exception as error:  # noqa: BLE001 - a rule's own code may raise anything
                    if each.name != "forward" and (refusal := _refusal(trial, error)):
                        skipped.setdefault(each.name, refusal)
                        continue
                    broken = _error(each, trial, error)
                    return dataclasses.replace(report, passed=tuple(passed), skipped=skipped, error=broken)
        if held:
            passed.append(each.name)
            skipped.pop(each.name, None)
    return dataclasses.replace(report, passed=tuple(passed), skipped=skipped)


def _refusal(trial: Trial, error: Exception) -> str:
    """Why the op itself does not take what was drawn last; empty where it does, so that the error is the rule's."""
    if isinstance(error, BrokenProperty):
        return ""
    try:
        trial.run(trial.drawn)
    except Exception as refused:  # noqa: BLE001 - an op refuses in any way it likes
        return f"the op refuses such arguments: {refused}"
    return ""


def _error(each: Property, trial: Trial, error: Exception) -> RuleCheckError:
    why = str(error) if isinstance(error, BrokenProperty) else f"{type(error).__name__}: {error}"
    broken = RuleCheckError(
        rule=trial.row.op,
        kind=trial.row.kind,
        pack=trial.row.pack,
        mode=mode_text(trial.mode),
        broken=each.name,
        case=f"{trial.case} with {arguments_text(trial.drawn)}",
        why=why.strip(),
    )
    broken.__cause__ = error.__cause__ if isinstance(error, BrokenProperty) else error
    return broken


def _rows(rule: Row | str | type, registry: Registry) -> list[Row]:
    if isinstance(rule, Row):
        return [rule]
    name = rule if isinstance(rule, str) else layer_op(rule)
    rows = registry.rows.get(name) or registry.rows.get(family_name(name), [])
    if not rows:
        raise ValueError(f"no loaded pack has a row for {name}; packs: {', '.join(registry.loaded) or 'none'}")
    return rows


def _as_installed(row: Row, registry: Registry) -> Row:
    """The installed row that this one is, which knows its pack."""
    same = [known for known in registry.rows.get(row.op, ()) if dataclasses.replace(known, pack=row.pack) == row]
    return same[0] if same else row


def _found(row: Row, case: Case, mode: ModeName, registry: Registry) -> Row:
    """The row as it is found for the case's op: with its operands filled in."""
    name = mode if isinstance(mode, str) else mode[0]
    dtype = row.dtypes[0] if row.dtypes else torch.float64
    best = None if isinstance(case.op, type) else registry.find(case.op, name, row.device or "cpu", dtype)
    return row if best is None else best


def _is_about(case: Case, row: Row) -> bool:
    name = layer_op(case.op) if isinstance(case.op, type) else op_name(case.op)
    return row.op in (name, family_name(name))


def _guessed(row: Row, registry: Registry) -> list[Case]:
    if row.op.startswith(NAMESPACE):
        raise CannotGuess("a layer's module and inputs cannot be guessed")
    cases = [case for case in guessed_cases(row, registry) if _is_taken(case, row, registry)]
    if not cases:
        raise CannotGuess("the row refuses all arguments that were guessed")
    return cases


def _is_taken(case: Case, row: Row, registry: Registry) -> bool:
    """Does the row take these arguments? One may refuse some."""
    try:
        case.bind(case.arguments(maker(row)), next(iter(registry.modes)), registry=registry)
    except UnsupportedOpError:
        return False
    except Exception:  # noqa: BLE001 - whatever else is wrong, the properties say better
        return True
    return True


def _modes(row: Row, registry: Registry, asked: Iterable[ModeName] | None) -> list[ModeName]:
    """The modes to ask in; one with a bias option in each of its policies."""
    modes: list[ModeName] = []
    for one in asked if asked is not None else _worth_asking(row, registry):
        mode = registry.mode(one if isinstance(one, str) else one[0])
        if row.modes is not None and mode.name not in row.modes:
            continue
        both = isinstance(one, str) and "bias" in mode.options
        modes += [(mode.name, policy) for policy in BIAS_POLICIES] if both else [one]
    if not modes:
        raise ValueError(f"{row.op}: none of the modes is one of the row's: {row.modes or 'no mode is loaded'}")
    return modes


def _worth_asking(row: Row, registry: Registry) -> list[str]:
    """`default`, then every mode that treats rows of this kind in another way; composites are made of these."""
    order = sorted(registry.modes, key=lambda name: (name != "default", name != "epsilon", name))
    worth: list[str] = []
    seen: set[int | None] = set()
    for name in order:
        mode = registry.modes[name]
        if not isinstance(mode, Mode) or (row.modes is not None and name not in row.modes):
            continue
        formula = mode.formulas.get(row.kind)
        known = id(formula) if formula is not None else None
        if known not in seen or row.kind in OF_SEVERAL:
            worth.append(name)
        seen.add(known)
    return worth


def _available(device: str) -> bool:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        return False
    return True
