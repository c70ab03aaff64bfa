"""Modes: a mapping from kind to formula, with its options and where it comes from."""

from __future__ import annotations

from dlb_core.rules import Mode
from dlb_ops_builtin.modes.default import DEFAULT
from dlb_ops_builtin.modes.epsilon import EPSILON

MODES: list[Mode] = [DEFAULT, EPSILON]
