"""Help, version and bad command lines."""

import subprocess
import sys

import pytest

PROBE = """
import sys
from dlb_core.cli import main
code = main({argv!r})
heavy = sorted({{"torch", "numpy", "rich", "safetensors"}} & set(sys.modules))
sys.stderr.write(f"{{code}} {{heavy}}")
"""


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--version"],
        ["explain", "--help"],
        ["plugins", "--help"],
        ["ops", "--help"],
        ["modes", "--help"],
        ["check", "--help"],
        ["new-pack", "--help"],
        ["explain"],
    ],
    ids=" ".join,
)
def test_no_torch_before_a_command_runs(argv):
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(argv=argv)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.endswith("0 []" if argv != ["explain"] else "2 []")


def test_help_names_the_commands(dlb):
    answer = dlb("--help")
    assert answer.code == 0
    for word in ("explain", "plugins", "ops", "modes", "check", "new-pack", "--version"):
        assert word in answer.out


def test_version(dlb):
    import dlb_core

    assert dlb("--version").out == f"dlb {dlb_core.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "required: COMMAND"),
        (("explian",), "invalid choice: 'explian'"),
        (("explain",), "required: MODEL"),
        (("explain", "a:b", "--bais", "absorb"), "--bais"),
        (("explain", "a:b", "--bias", "half"), "'half'"),
        (("explain", "a:b", "--top", "many"), "'many'"),
    ],
)
def test_a_bad_command_line_is_one_message(dlb, argv, said):
    answer = dlb(*argv)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("dlb: error: ")
    assert said in answer.err
    assert "--help" in answer.err


def test_python_m_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "dlb_core.cli", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("dlb ")
