"""All entries of the matrix, by name."""

from __future__ import annotations

from . import detection, experts, multimodal, recurrent, tabular, text, vision
from .entry import Entry

FAMILIES = (vision, detection, text, experts, multimodal, recurrent, tabular)
ENTRIES: dict[str, Entry] = {entry.name: entry for family in FAMILIES for entry in family.ENTRIES}
