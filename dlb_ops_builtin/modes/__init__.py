"""Modes: a mapping from kind to formula, with its options and where it comes from; and composites of them."""

from __future__ import annotations

from dlb_core.rules import Composite, Mode
from dlb_ops_builtin.modes.alpha_beta import ALPHA_BETA, Z_PLUS
from dlb_ops_builtin.modes.attnlrp import ATTNLRP
from dlb_ops_builtin.modes.composites import FAITHFUL, VISION
from dlb_ops_builtin.modes.contrastive import CONTRASTIVE
from dlb_ops_builtin.modes.default import DEFAULT
from dlb_ops_builtin.modes.epsilon import CP_LRP, EPSILON
from dlb_ops_builtin.modes.gamma import GAMMA
from dlb_ops_builtin.modes.inputs import FLAT, W_SQUARE, Z_BOX

MODES: list[Mode | Composite] = [
    DEFAULT,
    CONTRASTIVE,
    EPSILON,
    GAMMA,
    ALPHA_BETA,
    Z_PLUS,
    ATTNLRP,
    CP_LRP,
    VISION,
    FAITHFUL,
    W_SQUARE,
    FLAT,
    Z_BOX,
]
