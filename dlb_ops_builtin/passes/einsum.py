"""An einsum of three tensors or more is a chain of einsums of two, each of them bilinear."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlb_core.rules import Program, Registry, bound_arguments, op_name, write


class Pairs:
    """a, b, c -> ... becomes (a, b -> what is still read), c -> ..., from left to right."""

    name = "einsum pairs"
    order = 12
    phase = "rewrite"
    switch: str | None = None

    def run(self, program: Program, registry: Registry) -> list[str]:
        done = []
        for node in list(program.graph.nodes):
            if node.op != "call_function" or op_name(node.target) != "aten::einsum.default":
                continue
            bound = bound_arguments(node)
            if len(bound["tensors"]) < 3:
                continue
            with program.graph.inserting_before(node):
                arguments = {"equation": bound["equation"], "tensors": bound["tensors"]}
                last = write(program.graph, _chain, arguments, {"nn_module_stack": node.meta.get("nn_module_stack")})
            done.append(f"{node.name}: {len(bound['tensors'])} tensors, two at a time")
            program.drop(node, last)
        return done


def _chain(equation: str, tensors: Sequence[Tensor]) -> Tensor:
    left = tensors[0]
    for step, right in zip(pairs(equation), tensors[1:], strict=True):
        left = torch.einsum(step, left, right)
    return left


def pairs(equation: str) -> list[str]:
    """``ab,bc,cd->ad`` as equations of two: ``ab,bc->ac`` and ``ac,cd->ad``."""
    terms, output = _parsed(equation)
    left, steps = terms[0], []
    for at, right in enumerate(terms[1:], 2):
        later = "".join(terms[at:]) + output
        keep = output if at == len(terms) else "".join(dict.fromkeys(i for i in _indices(left + right) if i in later))
        both = "..." if "..." in left + right and at < len(terms) else ""
        steps.append(f"{left},{right}->{both}{keep}")
        left = both + keep
    return steps


def _parsed(equation: str) -> tuple[list[str], str]:
    """The terms and the output; an output that is not said is what stands once, in the order of the alphabet."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    if not arrow:
        letters = _indices(inputs.replace(",", ""))
        output = ("..." if "..." in inputs else "") + "".join(sorted(i for i in letters if letters.count(i) == 1))
    return inputs.split(","), output


def _indices(term: str) -> str:
    return term.replace(".", "")
