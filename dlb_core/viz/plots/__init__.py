"""Figures of matplotlib (the extra `viz`): inputs, layers, ledger, experts and generated text.

`picture.py` is the sheet that everything is drawn on, in inches and without pyplot; `words.py`, `digits.py` and
`scale.py` say how text, numbers and colours look on it. `bars.py`, `matrix.py`, `image.py`, `tokens.py` and `series.py`
are the blocks, `inputs.py`, `books.py`, `experts.py` and `generation.py` put them together.
"""

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError('matplotlib is missing: pip install "dlb-core[viz]"') from error

from dlb_core.viz.plots.books import plot_layers, plot_ledger
from dlb_core.viz.plots.experts import plot_experts
from dlb_core.viz.plots.inputs import plot_inputs

__all__ = ["plot_experts", "plot_inputs", "plot_layers", "plot_ledger"]
