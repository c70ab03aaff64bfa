"""Lookups: an id gets what its row of the table got."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given

from .harness import MODE_NAMES, MODES, ModeName, assert_conserved, bind, bind_op
from .tensors import Tensors, checked, shapes, tensors

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)


@every_mode
@checked
@given(t=tensors((torch.float64, torch.float32)), shape=shapes(0, 3, sizes=(0, 3)))
def test_an_id_sums_over_its_row(mode: ModeName, t: Tensors, shape: tuple[int, ...]) -> None:
    arguments = {"weight": t(5, 4), "indices": t.ids(5, *shape)}
    r = t.normal(*shape, 4)
    done = bind_op(aten.embedding.default, arguments, ["indices"], mode).back(r)
    expected = torch.zeros(arguments["indices"].numel(), dtype=torch.float64)
    for at, row in enumerate(r.double().reshape(-1, 4)):
        expected[at] = sum(row.tolist())
    torch.testing.assert_close(done["indices"].double(), expected.reshape(shape), rtol=1e-5, atol=1e-6)
    assert not done.accounts


@every_mode
def test_the_same_id_twice_keeps_its_places_apart(mode: ModeName) -> None:
    t = Tensors(1)
    ids = torch.tensor([2, 2])
    r = torch.tensor([[1.0, 2.0], [10.0, 20.0]], dtype=torch.float64)
    done = bind_op(aten.embedding.default, {"weight": t(3, 2), "indices": ids}, ["indices"], mode).back(r)
    assert done["indices"].tolist() == [3.0, 30.0]


@every_mode
def test_ids_that_were_moved_before_the_lookup(mode: ModeName) -> None:
    """Integers pass through moves; what was cut off before the lookup gets nothing."""
    t = Tensors(1)
    ids = t.ids(3, 2, 4)

    def read(ids: object, table: object) -> object:
        return aten.embedding.default(table, aten.slice.Tensor(aten.permute.default(ids, [1, 0]), 0, 1))

    r = t.normal(3, 2, 2)
    done = bind(read, {"ids": ids, "table": t(3, 2)}, ["ids"], mode).back(r)
    expected = torch.zeros(2, 4, dtype=torch.float64)
    expected[:, 1:] = r.sum(-1).T
    torch.testing.assert_close(done["ids"], expected)


BAGS = [("sum", {}), ("mean", {"padding_idx": 2}), ("max", {}), ("sum", {"weights": True}), ("max", {"padding_idx": 2})]


@every_mode
@pytest.mark.parametrize(("reduce", "more"), BAGS, ids=str)
def test_a_bag_gives_each_id_its_rows_part(mode: ModeName, reduce: str, more: dict[str, Any]) -> None:
    """Bags of three, none and two ids, written out id by id and number by number."""
    t = Tensors(2)
    table, ids, begins = t(4, 3), [2, 0, 2, 3, 0], [0, 3, 3, 5]
    weights = t.positive(5) if more.get("weights") else None
    padding = more.get("padding_idx")
    arguments = {"weight": table, "indices": torch.tensor(ids), "offsets": torch.tensor(begins[:-1])}
    options = {"mode": ["sum", "mean", "max"].index(reduce), "per_sample_weights": weights}

    def bags(weight: Any, indices: Any, offsets: Any, weights: Any = None) -> Any:
        tail = (False, options["mode"], False, weights, False, padding)
        return aten.embedding_bag.padding_idx(weight, indices, offsets, *tail)[0]

    given = {**arguments, **({"weights": weights} if weights is not None else {})}
    r = t.normal(3, 3)
    done = bind(bags, given, ["indices"], mode).back(r)
    expected = torch.zeros(5, dtype=torch.float64)
    for bag in range(3):
        members = [i for i in range(begins[bag], begins[bag + 1]) if ids[i] != padding]
        for d in range(3):
            values = [float(table[ids[i], d]) * (float(weights[i]) if weights is not None else 1) for i in members]
            if not members:
                continue
            if reduce == "max":
                winners = [v == max(values) for v in values]  # the same id twice: halves
                parts = [w / sum(winners) for w in winners]
            elif mode[0] == "default":
                parts = [abs(v) / sum(map(abs, values)) for v in values]
            else:
                parts = [v / sum(values) for v in values]
            for i, part in zip(members, parts, strict=True):
                expected[i] += part * float(r[bag, d])
    torch.testing.assert_close(done["indices"], expected, rtol=1e-4, atol=1e-4)
    assert_conserved(done)
