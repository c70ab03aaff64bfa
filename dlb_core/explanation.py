"""`Explanation`: one result with its books, saved as safetensors and JSON."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dlb_core.captions import Captions, captioned
from dlb_core.comparison import Comparison, compare
from dlb_core.experts import ExpertLayer
from dlb_core.explanation_files import read, written
from dlb_core.relevance import Relevance
from dlb_core.saved import TENSORS, Format
from dlb_core.viz.of_explanation import Pictures

FORMAT = "dlb-explanation"
HEAD = "explanation.json"
FILES = Format(FORMAT, 1, HEAD, "explanation")
__all__ = ["FORMAT", "HEAD", "TENSORS", "Explanation"]


@dataclass(frozen=True)
class Explanation(Pictures):
    """What was explained and the answer; in a notebook it shows itself.

    relevance: the mapping name -> tensor that was asked for (`keep=`). inputs: relevance of the explained inputs.
    ledger: where the seed went. output: the explained output of the model. target: what was explained, one per
    sample. mode, options: how. given: what was explained, a copy of every tensor input by name. captions: what classes,
    tokens and features are called; see `captioned`.
    """

    relevance: Relevance
    output: Tensor
    options: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Tensor] = field(default_factory=dict)
    captions: Captions = field(default_factory=Captions)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Relevance of the explained inputs by name, each shaped like its input."""
        return self.relevance.inputs

    @property
    def positive(self) -> Relevance:
        """Contrastive: what speaks for the target; see `Relevance.positive`."""
        return self.relevance.positive

    @property
    def negative(self) -> Relevance:
        """Contrastive: what speaks against the target."""
        return self.relevance.negative

    @property
    def ledger(self) -> Any:
        """The `Ledger`, or a tuple of them after `targets=[...]`."""
        return self.relevance.ledger

    def by_module(self) -> Any:
        """Module path -> units in, out and booked; a tuple of them after `targets=[...]`."""
        return self.relevance.by_module()

    def compare(self, other: Explanation, *, top: int | None = None, differences: int = 5) -> Comparison:
        """How alike two explanations of the same inputs are: rank correlation, overlap of the top, where they differ.

        top: how many features count as the largest (default: a tenth of them). differences: how many changed features
        to name per input. Modes, models, targets and units may differ; raises ValueError for inputs that do not match.
        """
        return compare(self, other, top=top, differences=differences)

    @property
    def experts(self) -> dict[str, ExpertLayer]:
        """What each expert contributed, by layer; see `Relevance.experts`."""
        return self.relevance.experts

    @property
    def target(self) -> Any:
        """The target of each sample, as it was chosen."""
        return self.relevance.target

    @property
    def mode(self) -> str:
        """The mode's name."""
        return self.relevance.mode

    def captioned(self, **names: Any) -> Explanation:
        """The same explanation with names that pictures and reports show; nothing else changes.

        model: its name. classes: of the output, in their order or number -> name. tokenizer: gives every input of ids
        the text of its tokens; or tokens: the texts themselves, of one sample or a list for each. features: the columns
        of a table. images: what to show of an image, [B, 1 or 3, H, W] with values in 0..1 (default: the input, which
        is stretched into it). kinds: how to draw an input, "image", "tokens", "features", "series" or "values", where
        its shape does not tell. What belongs to an input may be given by its name, as a mapping. Raises ValueError for
        numbers of names that do not fit.
        """
        return dataclasses.replace(self, captions=captioned(self, **names))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes ``explanation.json`` and ``tensors.safetensors`` into a new folder, all of it or nothing.

        An earlier explanation in that folder is replaced; a folder with other things in it is refused
        (`FileExistsError`). Returns the folder.
        """
        return FILES.save(folder, *written(self))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Explanation:
        """Reads a saved explanation; nothing in the files is executed. Raises `ExplanationFileError`."""
        head, tensors = FILES.load(folder)
        try:
            return cls(**read(head, tensors))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FILES.incomplete(folder, error) from None

    def __str__(self) -> str:
        return f"mode {self.mode}, target {self.target}\n" + "\n".join(map(str, self.relevance.ledgers))
