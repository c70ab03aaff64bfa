"""The schemas that torchvision misses beside torch's CPU build."""

from __future__ import annotations

import pytest
import torch
import torchvision_stub


def test_torchvision_imports_and_registering_again_changes_nothing() -> None:
    import torchvision

    assert torchvision.ops.nms
    first = torchvision_stub.register()
    assert torchvision_stub.register() is first
    names = {"nms": "dets", "qnms": "dets", "roi_align": "input"}
    for name, argument in names.items():
        assert getattr(torch.ops.torchvision, name).default._schema.arguments[0].name == argument


def test_boxes_that_overlap_a_better_one_are_suppressed() -> None:
    torchvision_stub.implement()
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6], [0, 1, 2, 3], [0, 0, 0, 0]])
    scores = torch.tensor([0.5, 0.9, 0.1, 0.7, 0.2])
    assert nms(boxes, scores, 0.5).tolist() == [1, 3, 4, 2]
    assert nms(boxes, scores, 0.1).tolist() == [1, 4, 2]
    assert nms(boxes[:0], scores[:0], 0.5).tolist() == []


def test_a_region_is_pooled_from_its_own_image() -> None:
    torchvision_stub.implement()
    from torchvision.ops import roi_align

    images = torch.stack([torch.zeros(1, 4, 4), torch.arange(16.0).reshape(1, 4, 4)])
    pooled = roi_align(images, torch.tensor([[1.0, 0.5, 0.5, 2.5, 2.5], [0.0, 0, 0, 3, 3]]), (2, 2), sampling_ratio=1)
    assert pooled[0, 0].tolist() == [[5.0, 6.0], [9.0, 10.0]]
    assert not pooled[1].any()


def test_without_torchvision_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_stub, "_library", None)
    monkeypatch.setattr(torchvision_stub, "find_spec", lambda name: None)
    assert torchvision_stub.register() is False
    assert torchvision_stub._library is None


def test_where_its_own_library_loads_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_stub, "_library", None)
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    assert torchvision_stub.register() is False
    assert torchvision_stub._library is None
