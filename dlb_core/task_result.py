"""What a task gives: a mapping that nobody can change, whose entries are attributes, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Self


class TaskResult(Mapping[str, Any]):
    """What a task gave, read only: `result["relevance"]` and `result.relevance` are the same.

    Always there: `task`, `decided` (a sentence: which task, and why), `relevance` and `explanation`. Of a prediction:
    `node_io` and `predictions`, of texts `tokens` and `words`; of a generation: `generated_ids` and the traces that
    were asked for (without any, `relevance` and `explanation` are None).
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = MappingProxyType(dict(values))

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise KeyError(f"{name!r}: this result holds {', '.join(self._values)}")
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"this result has no {name!r}")
        return self._values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "_values" or "_values" in self.__dict__:
            raise AttributeError("a result is read only")
        super().__setattr__(name, value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __repr__(self) -> str:
        return f"TaskResult({self['decided']} Holds: {', '.join(self._values)})"

    def with_more(self, **values: Any) -> Self:
        """The same result with more in it."""
        return type(self)({**self._values, **values})
