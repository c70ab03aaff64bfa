"""What `pip install dlb-ops-moe` brings: every module of the pack, its entry point, and what it needs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2] / "dlb_ops_moe"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "-q")
    command = [sys.executable, "-m", "pip", "wheel", *offline, "-w", folder, HOME]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    assert path.name.startswith("dlb_ops_moe-")
    return zipfile.ZipFile(path)


def test_it_holds_the_pack_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert files == {f"dlb_ops_moe/{path.name}" for path in HOME.iterdir() if path.suffix == ".py"} | {
        "dlb_ops_moe/py.typed"
    }
    for name in files:
        assert wheel.read(name) == (HOME.parent / name).read_bytes()


def test_it_is_found_as_a_pack(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    points = ConfigParser()
    points.read_string(wheel.read(name).decode())
    assert {group: dict(points[group]) for group in points.sections()} == {"dlb.packs": {"moe": "dlb_ops_moe"}}
    installed = [point for point in metadata.entry_points(group="dlb.packs") if point.name == "moe"]
    assert [point.value for point in installed] == ["dlb_ops_moe"]


def test_it_says_what_it_is_and_needs(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    told = Parser().parsestr(wheel.read(name).decode())
    needs = {need.split(">")[0].split(";")[0].strip() for need in told.get_all("Requires-Dist", [])}
    assert needs == {"dlb-core", "torch"}
    assert told["License-Expression"] == "Apache-2.0"
    assert "# dlb-ops-moe" in told.get_payload()
