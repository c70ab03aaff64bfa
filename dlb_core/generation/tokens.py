"""Relevance of chosen tokens of a text: one forward pass, and the tokens as seeds of batched relevance passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dlb_core.engine import Engine, Start
from dlb_core.experts import ExpertLayer
from dlb_core.generation.text import Text
from dlb_core.kernel.composites import AnyMode
from dlb_core.kernel.ledger import Ledger
from dlb_core.kernel.plan import Plan
from dlb_core.kernel.run import watched
from dlb_core.kernel.tip import find_tip
from dlb_core.propagation import propagate
from dlb_core.targets import Request, Seed, against_seed

Told = Callable[[int], None]


@dataclass(frozen=True)
class Explained:
    """Relevance of N tokens of each of S sequences, the tokens along the first axis.

    inputs: by input name, [N, S, length]. layers: by a layer's path, units by position, [N, S, length]. experts: by
    layer of experts. ledgers: one for each token. total: of a mode with two maps, their sum; this is their difference.
    """

    inputs: dict[str, Tensor]
    layers: dict[str, Tensor]
    experts: dict[str, ExpertLayer]
    ledgers: tuple[Ledger, ...]
    total: Explained | None = None


class Tokens:
    """One forward pass over a text, from which relevance of its tokens is asked.

    layers: the paths of layers whose values and relevance are wanted too.
    """

    def __init__(self, engine: Engine, text: Text, mode: AnyMode, layers: Sequence[str] = ()) -> None:
        self.engine = engine
        self.text = text
        self.mode = mode
        self._start: Start = engine.starts(None, None, None)[0]
        self._total, self._plan = engine.plans_of(mode, [self._start])
        self._tip = find_tip(self._plan, self._start.node)
        self._layers = {path: engine.layout.slots[engine.node(path).name] for path in layers}
        kept = engine.kept_for(mode, [self._start], "normal")
        reads = self._plan.reads | (self._total.reads if self._total else frozenset())
        tip = self._tip.slots if self._tip else frozenset()
        keep = None if kept is None else kept | reads | tip | {*self._layers.values()}
        self._prediction = engine.forward((), text.inputs, 1.0, keep)
        self._routing = engine.routing_of(self._prediction)

    def outputs(self, path: str, steps: Sequence[int]) -> Tensor:
        """What a layer returned where each token was decided, [N, S, width]."""
        value: Tensor = self._prediction.activations.values[self._layers[path]]
        return torch.stack([value[:, self.text.decided(step)] for step in steps])

    def relevance(
        self,
        steps: Sequence[int],
        *,
        seed: str = "multiplier",
        multiplier: float = 100.0,
        scaler: float = 1.0,
        chunk: int | None = None,
        told: Told | None = None,
    ) -> Explained:
        """Relevance of the tokens of these steps, each from the output that chose it; of padding it is zero.

        seed, multiplier, scaler: the units of a token, as everywhere. chunk: how many tokens go back at once at most.
        told: called with the number of tokens that are done.
        """
        request = Request(seed=seed, multiplier=multiplier, scaler=scaler)
        token = self._token(steps, request)
        if self._total is None:
            return self._back(self._plan, token, chunk, told)
        rows, against = self._two_maps(token, request)
        places = {"positions": token["positions"]}
        total = self._back(self._total, {**places, "rows": rows + against}, chunk, None)
        return self._back(self._plan, {**places, "rows": rows - against}, chunk, told, total)

    def _token(self, steps: Sequence[int], request: Request) -> dict[str, Tensor]:
        """Where each token was decided, which it is, and its units; each [N, S]."""
        text = self.text
        device = self.engine.program.device
        positions = torch.tensor([text.decided(step) for step in steps], device=device)
        positions = positions.unsqueeze(1).expand(-1, text.sequences.shape[0])
        ids = torch.stack([text.sequences[:, text.prompt_length + step] for step in steps]).to(device)
        real = torch.stack([text.generated[:, step] for step in steps]).to(device)
        units = torch.full(ids.shape, request.multiplier, dtype=self.engine.dtype, device=device)
        if request.seed != "multiplier":
            scores = self._scores(positions)
            scores = scores.softmax(-1) if request.seed == "probability" else scores
            units = scores.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        return {"positions": positions, "ids": ids, "amounts": units * request.scaler * real}

    def _scores(self, positions: Tensor) -> Tensor:
        """The outputs at these positions, [N, S, V]."""
        logits = self.engine.value_at(self._prediction, self._start)
        samples = torch.arange(logits.shape[0], device=logits.device)
        return logits[samples, positions].to(self.engine.dtype)

    def _two_maps(self, token: Mapping[str, Tensor], request: Request) -> tuple[Tensor, Tensor]:
        """The units for each token and against it, [N, S, V]."""
        scores = self._scores(token["positions"])
        rows = torch.zeros_like(scores).scatter(-1, token["ids"].unsqueeze(-1), token["amounts"].unsqueeze(-1))
        flat = rows.flatten(0, 1)
        one = Seed(flat, None, "multi-class classification", flat)
        against = against_seed(scores.flatten(0, 1), one, request, self.mode.options["against"])
        return rows, against.reshape(rows.shape)

    def _back(
        self,
        plan: Plan,
        token: dict[str, Tensor],
        chunk: int | None,
        told: Told | None,
        total: Explained | None = None,
    ) -> Explained:
        engine, activations = self.engine, self._prediction.activations
        inputs = {engine.layout.slots[node]: name for node, name in engine.input_names.items()}
        watch = {**self._routing.watch, **dict.fromkeys(self._layers.values(), _by_position)}
        about: dict[str, Any] = {"keep": frozenset(inputs), "check": engine.check, "input_names": engine.input_names}
        tip = find_tip(plan, self._start.node)
        if tip is not None:
            kept, ledgers = propagate(
                plan, activations, token, several=True, tip=tip, chunk=chunk, watch=watch,
                told=told, **about,
            )  # fmt: skip
        else:
            kept, ledgers = self._one_by_one(plan, token, told, {**about, "watch": watch})
        return Explained(
            {name: kept[slot] for slot, name in inputs.items() if slot in kept},
            {path: kept[watched(slot)] for path, slot in self._layers.items() if watched(slot) in kept},
            self._routing.read(kept, ledgers, several=True),
            ledgers,
            total,
        )

    def _one_by_one(
        self, plan: Plan, token: Mapping[str, Tensor], told: Told | None, about: Mapping[str, Any]
    ) -> tuple[dict[Any, Any], tuple[Ledger, ...]]:
        """Where the last layers look at more than one position: one token after the other, from the whole output."""
        slot = self.engine.layout.slots[self._start.node.name]
        shape = self._prediction.activations.shapes[slot]
        runs = []
        for n, positions in enumerate(token["positions"]):
            seed = torch.zeros(shape, dtype=self.engine.dtype, device=positions.device)
            samples = torch.arange(shape[0], device=positions.device)
            if "rows" in token:
                seed[samples, positions] = token["rows"][n]
            else:
                seed[samples, positions, token["ids"][n]] = token["amounts"][n]
            runs.append(propagate(plan, self._prediction.activations, {slot: seed}, several=False, **about))
            if told is not None:
                told(1)
        kept = pytree.tree_map(lambda *parts: torch.stack(parts), *(kept for kept, _ in runs))
        return kept, tuple(ledger for _, (ledger,) in runs)


def _by_position(r: Tensor) -> Tensor:
    """Relevance [S, T, width] by position."""
    return r.sum(-1)
