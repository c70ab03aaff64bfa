"""Recurrent networks: the cells, and the ops that run a cell over time, layers and directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlb_core.rules import Call, Cells, Row, Shares, compound, move, unrolled
from dlb_ops_builtin.rows.places import by_numbers

aten = torch.ops.aten

Weight = Tensor | None


def lstm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Weight = None,
    b_hh: Weight = None,
    w_hr: Weight = None,
) -> tuple[Tensor, Tensor]:
    """c' = f c + i g, h' = o tanh(c'), projected by w_hr where there is one (Hochreiter and Schmidhuber 1997)."""
    i, f, g, o = (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if w_hr is None else F.linear(h, w_hr)), c


def gru(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Weight = None, b_hh: Weight = None) -> Tensor:
    """h' = (1 - z) n + z h with n = tanh(W x + r (U h)) (Cho et al. 2014)."""
    r_x, z_x, n_x = F.linear(x, w_ih, b_ih).chunk(3, -1)
    r_h, z_h, n_h = F.linear(h, w_hh, b_hh).chunk(3, -1)
    z = (z_x + z_h).sigmoid()
    n = (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
    return (1 - z) * n + z * h


def rnn_tanh(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Weight = None, b_hh: Weight = None) -> Tensor:
    """h' = tanh(W x + U h) (Elman 1990)."""
    return (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).tanh()


def rnn_relu(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Weight = None, b_hh: Weight = None) -> Tensor:
    """h' = relu(W x + U h)"""
    return (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).relu()


def _sequence(call: Call, data: Tensor) -> list[Tensor]:
    """One tensor [samples, features] per time step; in a packed sequence the samples become fewer."""
    if call.takes("batch_sizes"):
        return list(data.split(call.batch_sizes.tolist()))
    return list(data.unbind(1 if call.batch_first else 0))


def _packed(call: Call, steps: Sequence[Tensor]) -> Tensor:
    """The inverse of `_sequence`."""
    if call.takes("batch_sizes"):
        return torch.cat(list(steps))
    return torch.stack(list(steps), 1 if call.batch_first else 0)


@dataclass
class _Lane:
    """One direction of one layer: its cell runs over the steps and, later, back over them.

    The state has a row for every sample. Those that do not run in a step keep theirs; one that runs for the first time
    comes from the first state, which may carry no relevance, and so has a cell of its own.
    """

    cells: Cells
    starts: frozenset[str]  # the cell's arguments that receive when a sample starts
    weights: Mapping[str, Tensor]
    reverse: bool
    backs: list[tuple[int, slice, Callable[..., Shares]]] = field(default_factory=list)

    def forward(self, steps: Sequence[Tensor], states: dict[str, Tensor]) -> list[Tensor]:
        """The cell's output for every step, in the order of time."""
        outputs: list[list[Tensor]] = [[] for _ in steps]
        ran = 0
        for t in range(len(steps))[:: -1 if self.reverse else 1]:
            n = len(steps[t])
            for rows, active in ((slice(min(ran, n)), self.starts | set(states)), (slice(ran, n), self.starts)):
                if rows.stop <= (rows.start or 0):
                    continue
                runs = {name: state[rows] for name, state in states.items()}
                new, back = self.cells[active]({"x": steps[t][rows], **runs, **self.weights})
                outputs[t].append(new[0])
                for (name, state), part in zip(states.items(), new, strict=True):
                    states[name] = _replaced(state, rows, part)
                self.backs.append((t, rows, back))
            ran = max(ran, n)
        return [torch.cat(parts) for parts in outputs]

    def back(self, r_steps: Sequence[Tensor], r_states: dict[str, Tensor]) -> Iterator[tuple[int, slice, Shares]]:
        """Relevance of the outputs and of the last states, back to every step; `r_states` becomes the first states'."""
        for t, rows, back in reversed(self.backs):
            runs = [r[rows] for r in r_states.values()]
            shares = back(runs[0] + r_steps[t][rows], *runs[1:])
            for (name, r), run in zip(r_states.items(), runs, strict=True):
                part = shares.relevance.get(name)
                r_states[name] = _replaced(r, rows, torch.zeros_like(run) if part is None else part)
            yield t, rows, shares


def _replaced(whole: Tensor, rows: slice, part: Tensor) -> Tensor:
    """`whole` with other rows in one place; nothing is written to, so it may have an axis over seeds."""
    return torch.cat([whole[: rows.start or 0], part, whole[rows.stop :]])


def _unroll(states: Mapping[str, str], data: str) -> Callable[[Any, Call, Cells], Shares]:
    """The way back of an op whose cell carries `states` (cell argument -> operand); `data`: its sequence argument."""

    def back(r: Any, call: Call, cells: Cells) -> Shares:
        directions = 2 if call.bidirectional else 1
        n_lanes = call.num_layers * directions
        params: Sequence[Tensor] = call.params
        each = len(params) // n_lanes
        names = _weight_names(each, has_biases=call.has_biases)
        first = {arg: getattr(call, operand) for arg, operand in states.items()}
        receives = {arg for arg, operand in {"x": data, **states}.items() if operand in call.receivers}

        steps = _sequence(call, getattr(call, data))
        lanes: list[_Lane] = []
        inputs: list[list[Tensor]] = []
        for layer in range(call.num_layers):
            inputs.append(steps)
            outputs = []
            for direction in range(directions):
                index = layer * directions + direction
                weights = dict(zip(names, params[index * each : (index + 1) * each], strict=True))
                active = frozenset(receives | {"x"} if layer else receives)
                lanes.append(_Lane(cells, active, weights, direction == 1))
                outputs.append(lanes[-1].forward(steps, {arg: state[index] for arg, state in first.items()}))
            steps = [torch.cat(parts, -1) for parts in zip(*outputs, strict=True)]

        accounts: dict[str, Tensor] = {}
        to_states: dict[str, list[Tensor]] = {arg: [] for arg in states}
        r_steps = _sequence(call, r[0])
        for layer in reversed(range(call.num_layers)):
            below = [torch.zeros_like(step) for step in inputs[layer]]
            parts = [list(step.chunk(directions, -1)) for step in r_steps]
            for direction in reversed(range(directions)):
                index = layer * directions + direction
                r_states = {arg: r[1 + i][index] for i, arg in enumerate(states)}
                for t, rows, shares in lanes[index].back([part[direction] for part in parts], r_states):
                    if "x" in shares.relevance:
                        mine = below[t]
                        below[t] = _replaced(mine, rows, mine[rows] + shares.relevance["x"])
                    for name, units in shares.accounts.items():
                        account = _account(name, call, dict(states), names, index * each)
                        accounts[account] = accounts[account] + units if account in accounts else units
                for arg, part in r_states.items():
                    to_states[arg].insert(0, part)
            r_steps = below
        relevance = {operand: torch.stack(to_states[arg]) for arg, operand in states.items()}
        if data in call.receivers:
            relevance[data] = _packed(call, r_steps)
        return Shares(relevance, accounts)

    return back


def _account(name: str, call: Call, states: Mapping[str, str], weights: Sequence[str], offset: int) -> str:
    """A cell's account in the op's words: ``bias:b_ih`` is ``bias:params.2``; constants of its own are the op's."""
    prefix, colon, what = name.partition(":")
    if what in states:
        return f"{prefix}:{states[what]}"
    if what in weights:
        return f"{prefix}:params.{offset + weights.index(what)}"
    return f"{prefix}:{call.node.name}" if colon else name


def _weight_names(each: int, *, has_biases: bool) -> tuple[str, ...]:
    names = ("w_ih", "w_hh", *(("b_ih", "b_hh") if has_biases else ()))
    return (*names, "w_hr") if each > len(names) else names


def _shapes(sequence: Tensor, hx: Any, bidirectional: bool) -> tuple[Tensor, ...]:
    """What comes out, by its shape alone: the last layer's state for every step, then the last states."""
    states = list(hx) if isinstance(hx, (tuple, list)) else [hx]
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    return sequence.new_empty((*sequence.shape[:-1], width)), *map(torch.empty_like, states)


FAKES: dict[str, Callable[..., object]] = {
    "input": lambda input, hx, *rest: _shapes(input, hx, rest[-2]),
    "data": lambda data, batch_sizes, hx, *rest: _shapes(data, hx, rest[-1]),
}


def _drops(bound: Mapping[str, Any]) -> str | None:
    if bound["train"] and bound["dropout"] and bound["num_layers"] > 1:
        return "it drops values between its layers at random: call eval() on it"
    return None


def _row(op: str, cell: Callable[..., Any], gates: int, data: str, **states: str) -> Row:
    """aten::lstm.input and its kin; `states`: what the cell carries -> the operand it starts from."""

    def example(bound: Mapping[str, Any]) -> dict[str, Tensor]:
        lanes = bound["num_layers"] * (2 if bound["bidirectional"] else 1)
        names = _weight_names(len(bound["params"]) // lanes, has_biases=bound["has_biases"])
        hidden, out = 5, 4 if "w_hr" in names else 5
        sizes = {
            "x": (2, 3),
            "h": (2, out),
            "c": (2, hidden),
            "w_ih": (gates * hidden, 3),
            "w_hh": (gates * hidden, out),
            "b_ih": (gates * hidden,),
            "b_hh": (gates * hidden,),
            "w_hr": (out, hidden),
        }
        return {name: torch.empty(sizes[name], device="meta") for name in ("x", *states, *names)}

    def activities(receivers: frozenset[str]) -> list[frozenset[str]]:
        start = frozenset(arg for arg, operand in {"x": data, **states}.items() if operand in receivers)
        above = start | {"x"}
        return [start, above, start | set(states), above | set(states)]

    return unrolled(
        op,
        x=(data, "hx", "params"),
        cell=cell,
        example=example,
        activities=activities,
        back=_unroll(states, data),
        reads=("batch_sizes",),
        fake=FAKES[data],
        refuses=_drops,
        channel_dim=-1,
    )


def _both(name: str, cell: Callable[..., Any], gates: int, **states: str) -> list[Row]:
    return [_row(f"aten::{name}.{data}", cell, gates, data, **states) for data in ("input", "data")]


def _lstm_cell(
    input: Tensor, hx: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor, b_ih: Weight, b_hh: Weight
) -> tuple[Tensor, Tensor]:
    return lstm(input, hx[0], hx[1], w_ih, w_hh, b_ih, b_hh)


def _cell(cell: Callable[..., Any]) -> Callable[..., Any]:
    def written(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Weight, b_hh: Weight) -> Any:
        return cell(input, hx, w_ih, w_hh, b_ih, b_hh)

    return written


def _first(back: Any) -> Any:
    """Of two outputs only the first carries relevance; the other one counts samples or steps."""
    return lambda r, call: back(r[0], call)


_pack = by_numbers("input", moved=lambda call, x: aten._pack_padded_sequence(x, call.lengths, call.batch_first)[0])
_pad = by_numbers(
    "data",
    moved=lambda call, x: aten._pad_packed_sequence(x, call.batch_sizes, call.batch_first, 0, call.total_length)[0],
    zeros=True,
)

ROWS: list[Row] = [
    move("aten::_pack_padded_sequence", x="input", back=_first(_pack), reads=("lengths",)),
    move("aten::_pad_packed_sequence", x="data", back=_first(_pad), reads=("batch_sizes",)),
    *_both("lstm", lstm, 4, h="hx.0", c="hx.1"),
    *_both("gru", gru, 3, h="hx"),
    *_both("rnn_tanh", rnn_tanh, 1, h="hx"),
    *_both("rnn_relu", rnn_relu, 1, h="hx"),
    compound("aten::lstm_cell", written=_lstm_cell),
    compound("aten::gru_cell", written=_cell(gru)),
    compound("aten::rnn_tanh_cell", written=_cell(rnn_tanh)),
    compound("aten::rnn_relu_cell", written=_cell(rnn_relu)),
]
