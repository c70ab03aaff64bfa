"""Packs: how they are found, what makes one fail, and how two of them settle who has a row."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fake_packs import Site, site
from torch import nn

from dlb_core import DLBacktrace, PackError

aten = torch.ops.aten


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with site(tmp_path, monkeypatch) as made:
        yield made


def test_a_pack_is_found_through_its_entry_point(packs: Site) -> None:
    packs.add_rules("curves", "[elementwise('curves::one'), elementwise('curves::two')]")
    pack = packs.pack("curves")
    assert (pack.status, pack.reason, pack.version, pack.n_rows) == ("loaded", "", "1.5", 2)
    assert pack.origin == "fake-pack-curves (fake_pack_curves)"
    row = packs.registry().rows["curves::one"][0]
    assert row.pack == "curves"
    assert row.source.startswith("fake_pack_curves:")
    builtin = packs.pack("builtin")
    assert builtin.status == "loaded"
    assert builtin.n_rows > 50
    assert builtin.n_modes >= 2
    assert builtin.n_passes >= 3


BROKEN: dict[str, tuple[str, str]] = {
    "raises at import": ("raise RuntimeError('no compiler here')", "RuntimeError: no compiler here"),
    "needs what is not installed": ("import surely_not_installed", "ModuleNotFoundError: .*surely_not_installed"),
    "speaks another API number": ("DLB_API = 2", "DLB_API is 2; this version of dlb speaks 1"),
    "names no API number": ("del DLB_API", "DLB_API is None.*set DLB_API = 1"),
    "misspells a hook": ("@hookimpl\ndef dlb_rule(): return []", "unknown hook dlb_rule; the hooks are: dlb_rules"),
    "misspells a hook without the marker": ("def dlb_ruls(): return []", "unknown hook dlb_ruls"),
    "forgets the marker": ("def dlb_rules(): return [elementwise('a::b')]", "hookimpl"),
    "has a hook that raises": ("@hookimpl\ndef dlb_rules(): return 1 / 0", "ZeroDivisionError"),
    "has a hook with arguments": ("@hookimpl\ndef dlb_rules(registry): return []", "registry"),
    "returns no rows": ("@hookimpl\ndef dlb_rules(): return ['aten::relu']", "'aten::relu', which is no row"),
    "returns no modes": ("@hookimpl\ndef dlb_modes(): return ['fast']", "fast"),
    "returns no passes": ("@hookimpl\ndef dlb_passes(): return [object()]", "object"),
    "brings one row twice": ("RULES = [elementwise('a::b')] * 2\n@hookimpl\ndef dlb_rules(): return RULES", "two rows"),
    "brings a mode that exists": (
        "@hookimpl\ndef dlb_modes(): return [Mode('epsilon', {})]",
        "mode 'epsilon' is brought by several packs",
    ),
}


@pytest.mark.parametrize(("body", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_pack_fails_with_its_reason_and_the_rest_goes_on(body: str, reason: str, packs: Site) -> None:
    packs.add("broken", body)
    packs.add_rules("sound", "[elementwise('sound::op')]")
    pack = packs.pack("broken")
    assert pack.status == "failed"
    assert (pack.n_rows, pack.n_modes, pack.n_passes) == (0, 0, 0)
    assert re.search(reason, pack.reason), pack.reason
    assert packs.pack("sound").status == "loaded"
    assert packs.pack("builtin").status == "loaded"
    x = torch.randn(2, 3)
    assert DLBacktrace(nn.Linear(3, 2).eval(), x).explain(x).ledger.seed == 200
    with pytest.raises(PackError, match="pack broken: "):
        packs.registry(strict=True)


def test_a_failed_pack_is_reported_to_those_who_listen(packs: Site, caplog: pytest.LogCaptureFixture) -> None:
    packs.add("broken", "raise RuntimeError('no compiler here')")
    with caplog.at_level("WARNING", logger="dlb"):
        packs.registry()
    assert "broken left out: RuntimeError: no compiler here" in caplog.text


def test_a_failed_pack_prints_nothing(packs: Site) -> None:
    packs.add("broken", "raise RuntimeError('no compiler here')")
    script = "from dlb_core.kernel.packs import registry; assert registry().failed"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packs.folder), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_two_packs_of_one_name_are_reported(packs: Site) -> None:
    packs.add("twin", "RULES = []", module="fake_pack_twin_a")
    packs.add("twin", "RULES = []", module="fake_pack_twin_b")
    twins = [pack for pack in packs.registry().packs if pack.name == "twin"]
    assert any(pack.status == "failed" and "twin" in pack.reason for pack in twins)


def test_a_clash_is_reported_and_neither_wins_silently(packs: Site) -> None:
    packs.add_rules("one", "[elementwise('shared::op'), elementwise('one::op')]")
    packs.add_rules("two", "[move('shared::op')]")
    for mine, other in (("one", "two"), ("two", "one")):
        pack = packs.pack(mine)
        assert pack.status == "failed"
        assert pack.reason == (
            f"has a row for shared::op, and so has {other}; say replaces={other!r} on the row that is to win"
        )
    assert not packs.registry().rows.get("shared::op")
    assert not packs.registry().rows.get("one::op")


def test_a_rival_of_the_reference_pack_fails_and_the_reference_stays(packs: Site) -> None:
    packs.add_rules("rival", "[move('aten::relu')]")
    assert packs.pack("rival").status == "failed"
    assert "replaces='builtin'" in packs.pack("rival").reason
    row = packs.registry().find(aten.relu.default)
    assert row is not None
    assert row.pack == "builtin"


@pytest.mark.parametrize(("winner", "loser"), [("a_first", "z_last"), ("z_last", "a_first")])
def test_replaces_wins_whatever_the_order(winner: str, loser: str, packs: Site) -> None:
    packs.add_rules(winner, f"[move('shared::op', replaces={loser!r})]")
    packs.add_rules(loser, "[elementwise('shared::op'), elementwise('kept::op')]")
    rows = packs.registry().rows
    assert [(row.pack, row.kind) for row in rows["shared::op"]] == [(winner, "move")]
    assert [row.pack for row in rows["kept::op"]] == [loser]
    assert {packs.pack(name).status for name in (winner, loser)} == {"loaded"}


def test_a_row_of_the_reference_pack_can_be_replaced(packs: Site) -> None:
    packs.add_rules("mine", "[move('aten::relu', replaces='builtin', back=lambda r, call: r)]")
    x = torch.randn(2, 3)
    records = DLBacktrace(nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval(), x).plan().table().records()
    assert {r["op"]: r["pack"] for r in records} == {"aten::linear.default": "builtin", "aten::relu.default": "mine"}


SWITCHES = {
    "": {"builtin", "one", "two"},
    "none": set(),
    "one": {"one"},
    "builtin,two": {"builtin", "two"},
    "-one": {"builtin", "two"},
    " -one , -two ": {"builtin"},
}


@pytest.mark.parametrize(("switch", "on"), SWITCHES.items(), ids=SWITCHES)
def test_dlb_packs_switches_packs(switch: str, on: set[str], packs: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    packs.add_rules("one", "[elementwise('one::op')]")
    packs.add("two", "raise RuntimeError('only when loaded')" if "two" not in on else "")
    monkeypatch.setenv("DLB_PACKS", switch)
    registry = packs.registry()
    here = {"builtin", "one", "two"}  # others may be installed beside them
    assert set(registry.loaded) & here == on
    assert registry.failed == []
    assert {pack.name for pack in registry.packs if pack.status == "off"} & here == here - on


def test_dlb_packs_refuses_a_name_that_is_no_pack(packs: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLB_PACKS", "-cudda")
    with pytest.raises(PackError, match="DLB_PACKS names cudda: no such pack; there are: builtin"):
        packs.registry()


def test_the_most_specific_row_is_bound(packs: Site) -> None:
    packs.add_rules(
        "fast",
        """[
            elementwise('swift::op'),
            move('swift::op', device='cuda'),
            softmax('swift::op', x='self', dtypes=(DOUBLE,)),
            lookup('swift::op', ids='self', table='t', modes=('epsilon',)),
            normalise('swift::op.exact', x='self'),
        ]""".replace("DOUBLE", "__import__('torch').float64"),
    )
    registry = packs.registry()
    torch.library.define("swift::op", "(Tensor self) -> Tensor")
    torch.library.define("swift::op.exact", "(Tensor self, int n) -> Tensor")
    op = torch.ops.swift.op

    def kind(*where: object, overload: str = "default") -> str:
        row = registry.find(getattr(op, overload), *where)  # type: ignore[arg-type]
        assert row is not None
        return row.kind

    assert kind("default", "cpu", torch.float32) == "elementwise"
    assert kind("default", "cuda", torch.float32) == "move"
    assert kind("default", "cpu", torch.float64) == "softmax"
    assert kind("epsilon", "cpu", torch.float32) == "lookup"
    assert kind("epsilon", "cuda", torch.float64) == "lookup"
    assert kind("default", "cpu", torch.float32, overload="exact") == "normalise"
