"""Takes out what does nothing, and gives BatchNorm its one-output form."""

from __future__ import annotations

import torch
from torch import fx

from dlb_core.rules import Program, Registry, bound_arguments, op_name

aten = torch.ops.aten
CHECKS = ("aten::_assert_tensor_metadata", "aten::_assert_scalar", "aten::_assert_async", "aten::sym_constrain_range")
COPIES = ("aten::clone", "aten::alias", "aten::detach", "aten::lift_fresh_copy", "aten::contiguous", "aten::dropout")
EVERYTHING = 2**62  # export writes the largest integer where a slice has no end


class Tidy:
    """Drops assertions, copies, full slices and casts to the same dtype; nothing here changes a value."""

    name = "tidy"
    order = 10
    phase = "rewrite"
    switch: str | None = None

    def run(self, program: Program, registry: Registry) -> list[str]:
        dropped: dict[str, int] = {}
        for node in list(program.graph.nodes):
            if node.op != "call_function":
                continue
            name = op_name(node.target)
            if name.startswith(CHECKS):
                program.graph.erase_node(node)
            elif _changes_nothing(node, name):
                program.drop(node, node.args[0])
            elif name.startswith("aten::_native_batch_norm_legit"):
                _one_output(program, node)
            else:
                continue
            dropped[name] = dropped.get(name, 0) + 1
        return [f"{name}: {count} dropped or rewritten" for name, count in dropped.items()]


def _changes_nothing(node: fx.Node, name: str) -> bool:
    if name.startswith(COPIES):
        # the graph is functional: nobody writes through either name, so the copy is the original
        return not (name.startswith("aten::dropout") and node.args[2])
    bound = bound_arguments(node)
    if name == "aten::slice.Tensor":
        return bound["start"] in (0, None) and bound["step"] == 1 and _is_everything(bound["end"])
    if name == "aten::_to_copy.default":
        before, after = node.args[0].meta.get("val"), node.meta.get("val")  # type: ignore[union-attr]
        same = isinstance(before, torch.Tensor) and before.dtype == after.dtype  # type: ignore[union-attr]
        return same and bound["device"] in (None, before.device)  # type: ignore[union-attr]
    return False


def _is_everything(end: object) -> bool:
    return end is None or (isinstance(end, int) and end > EVERYTHING)


def _one_output(program: Program, node: fx.Node) -> None:
    """The `_native_batch_norm_legit` family and its first item become `batch_norm`.

    One that normalises by the batch gets no running statistics: it would update them.
    """
    bound = bound_arguments(node)
    training = "no_training" not in op_name(node.target)
    statistics = (None, None) if training else (bound["running_mean"], bound["running_var"])
    weights = (bound["input"], bound["weight"], bound["bias"])
    arguments = (*weights, *statistics, training, bound["momentum"], bound["eps"], False)
    with program.graph.inserting_after(node):
        norm = program.graph.create_node("call_function", aten.batch_norm.default, arguments, {}, name="batch_norm")
    norm.meta = {**node.meta, "val": node.meta["val"][0]}
    for item in list(node.users):
        if item.args[1] == 0:
            program.drop(item, norm)
        elif not item.users and item not in program.outputs:
            program.graph.erase_node(item)
    if not node.users:
        program.aliases[node.name] = norm.name
        program.graph.erase_node(node)
