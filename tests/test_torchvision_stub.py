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
    for name in torchvision_stub.OPERATORS:
        schema = getattr(torch.ops.torchvision, name).default._schema
        assert [argument.name for argument in schema.arguments] == ["dets", "scores", "iou_threshold"]


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
