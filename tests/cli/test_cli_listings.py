"""`dlb plugins`, `dlb ops`, `dlb modes`."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from dlb_core.cli import main
from dlb_core.kernel.packs import registry
from dlb_core.kernel.registry import Pack, Registry
from dlb_core.rules import elementwise


def test_plugins(dlb):
    answer = dlb("plugins")
    assert answer.code == 0
    assert "builtin" in answer.out
    assert "loaded" in answer.out
    (pack,) = [p for p in dlb("plugins", "--json").json if p["pack"] == "builtin"]
    assert pack["status"] == "loaded"
    assert pack["rows"] == sum(row.pack == "builtin" for rows in registry().rows.values() for row in rows)
    assert pack["modes"] >= 2
    assert "dlb_ops_builtin" in pack["origin"]


def test_a_failed_pack_is_shown_with_its_reason(dlb, monkeypatch):
    packs = [
        Pack("builtin", "1", "dlb-core (dlb_ops_builtin)", "loaded", n_rows=3),
        Pack("swoosh", "2", "[red]swoosh (swoosh_pack)", "failed", "ImportError: no module called 'swish'"),
        Pack("quiet", "3", "quiet_pack", "off"),
    ]
    monkeypatch.setattr("dlb_core.cli.listings.registry", lambda: Registry(packs=packs))
    lines = dlb("plugins").out.splitlines()
    (failed,) = [line for line in lines if line.startswith("swoosh")]
    assert "failed" in failed
    assert "[red]swoosh (swoosh_pack)" in failed
    assert "ImportError: no module called 'swish'" in failed
    assert any(line.startswith("quiet") and "off" in line for line in lines)
    assert [p["status"] for p in dlb("plugins", "--json").json] == ["loaded", "failed", "off"]


def test_without_packs(dlb, monkeypatch):
    monkeypatch.setenv("DLB_PACKS", "none")
    assert {p["status"] for p in dlb("plugins", "--json").json} == {"off"}
    assert dlb("ops", "--json").json == []
    assert dlb("modes", "--json").json == []
    assert dlb("modes").code == 0


def test_a_switch_for_an_unknown_pack(dlb, monkeypatch):
    monkeypatch.setenv("DLB_PACKS", "swoosh")
    answer = dlb("ops")
    assert answer.code == 1
    assert "no such pack" in answer.err


def test_ops(dlb):
    records = dlb("ops", "--json").json
    assert len(records) == sum(map(len, registry().rows.values()))
    (linear,) = [r for r in records if r["op"].startswith("aten::linear")]
    assert linear["kind"] == "linear"
    assert linear["pack"] == "builtin"
    assert linear["source"].startswith("dlb_ops_builtin.rows.")
    assert linear["source"].rpartition(":")[2].isdigit()
    assert linear["modes"] == linear["devices"] == "all"


def test_ops_filter(dlb):
    page = dlb("ops", "CONV2D").out
    assert "aten::conv2d" in page
    assert "relu" not in page
    assert all("conv2d" in r["op"] for r in dlb("ops", "conv2d", "--json").json)
    nothing = dlb("ops", "schroedinger")
    assert nothing.code == 0
    assert "no op matches 'schroedinger'" in nothing.out


def test_what_all_rows_share_is_said_once(dlb, monkeypatch):
    rows = {
        "aten::relu": [elementwise("aten::relu"), elementwise("aten::relu", device="cuda", modes=("epsilon", "gamma"))],
        "aten::exp": [elementwise("aten::exp")],
    }
    monkeypatch.setattr("dlb_core.cli.listings.registry", lambda: Registry(rows))
    title, header, _, exp, relu, on_cuda = dlb("ops").out.splitlines()[:6]
    assert "dtypes: all" in title
    assert header.split() == ["op", "kind", "source", "modes", "devices"]
    assert exp.split()[-2:] == relu.split()[-2:] == ["all", "all"]
    assert on_cuda.split()[-3:] == ["epsilon,", "gamma", "cuda"]
    alone = dlb("ops", "exp").out
    assert "modes: all   devices: all" in alone
    assert alone.splitlines()[1].split() == ["op", "kind", "source"]


@pytest.mark.parametrize("width", ["80", "120"])
def test_the_ops_fit_into_a_window(width, monkeypatch):
    """No name is folded, and where there is room no source either: one line for each row."""
    page = io.StringIO()
    console = Console(file=page, width=int(width), highlight=False, markup=False, emoji=False)
    monkeypatch.setattr("dlb_core.cli.listings.screen", lambda: console)
    assert main(["ops"]) == 0
    body = page.getvalue().rpartition("─")[2].strip().splitlines()
    ops = sorted(row.op for rows in registry().rows.values() for row in rows)
    assert sorted(line.split()[0] for line in body if not line.startswith(" ")) == ops
    assert len(body) == len(ops) or width == "80"


def test_modes(dlb):
    page = dlb("modes").out
    records = {r["mode"]: r for r in dlb("modes", "--json").json}
    assert set(records) == set(registry().modes)
    for name, record in records.items():
        assert name in page
        assert record["summary"] in page  # whole, since nobody looks through a window
        assert record["source"] in page
    assert records["epsilon"]["options"]["eps"] == 1e-6
    assert "bias=absorb" in page


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_pipe_of_any_encoding(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "dlb_core.cli", "modes"],
        capture_output=True,
        env={"PYTHONIOENCODING": encoding, "PATH": ""},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"Bach et al." in done.stdout


def test_a_reader_that_leaves_early():
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m dlb_core.cli ops | head -1"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == b""
