"""Captions: what a reader calls the classes, tokens and features of an explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dlb_core.choices import choose

if TYPE_CHECKING:
    from dlb_core.explanation import Explanation

KINDS = ("image", "tokens", "features", "series", "values")


@dataclass(frozen=True)
class Captions:
    """Names that pictures show beside numbers; see `Explanation.captioned`.

    model: its name. classes: of the output. By input: tokens (texts of each sample), features (columns), images (what
    to show, [B, 1 or 3, H, W]), kinds (how to draw it).
    """

    model: str = ""
    classes: tuple[str, ...] = ()
    tokens: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    images: Mapping[str, Tensor] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)

    def of_class(self, number: int) -> str:
        """The name of a class, else its number."""
        return self.classes[number] if 0 <= number < len(self.classes) else str(number)


def captioned(
    explanation: Explanation,
    *,
    model: str | None = None,
    classes: Sequence[str] | Mapping[int, str] | None = None,
    tokenizer: Any = None,
    tokens: Any = None,
    features: Any = None,
    images: Any = None,
    kinds: Any = None,
) -> Captions:
    """See `Explanation.captioned`; what is not given stays as it is."""
    known = explanation.captions
    more: dict[str, Any] = {}
    if model is not None:
        more["model"] = str(model)
    if classes is not None:
        more["classes"] = _classes(classes, explanation.output)
    if tokenizer is not None and tokens is not None:
        raise ValueError("tokens= are the texts that tokenizer= would give: give one of them")
    if tokenizer is not None:
        tokens = {name: token_texts(tokenizer, ids) for name, ids in _ids(explanation).items()}
    if tokens is not None:
        found = {name: _rows(each) for name, each in _by_input(tokens, "tokens", explanation).items()}
        for name, rows in found.items():
            shape = explanation.given[name].shape[:2]
            if [*map(len, rows)] != [shape[1]] * shape[0]:
                raise ValueError(f"tokens of {name!r}: {[*map(len, rows)]} texts, expected {shape[1]} for each sample")
        more["tokens"] = {**known.tokens, **found}
    if features is not None:
        named = {n: tuple(map(str, each)) for n, each in _by_input(features, "features", explanation).items()}
        for name, columns in named.items():
            if len(columns) not in explanation.given[name].shape[1:]:
                raise ValueError(
                    f"features of {name!r}: {len(columns)} names for an input {list(explanation.given[name].shape)}"
                )
        more["features"] = {**known.features, **named}
    if images is not None:
        shown = _by_input(images, "images", explanation)
        for name, image in shown.items():
            _check_image(name, image, explanation.given[name].shape[0])
        more["images"] = {**known.images, **{name: image.detach().cpu().float() for name, image in shown.items()}}
    if kinds is not None:
        drawn = _by_input(kinds, "kinds", explanation)
        for kind in drawn.values():
            choose("kind", kind, KINDS)
        more["kinds"] = {**known.kinds, **drawn}
    return replace(known, **more)


def class_names(config: Any) -> tuple[str, ...]:
    """What a config of transformers calls the classes; nothing where it only numbers them."""
    names = getattr(config, "id2label", None)
    if not isinstance(names, Mapping):
        return ()
    found = tuple(str(names[number]) for number in sorted(names))
    return () if all(name == f"LABEL_{number}" for number, name in enumerate(found)) else found


def fitting(classes: Sequence[str], output: Tensor) -> Sequence[str] | None:
    """The names, if an output can have so many classes."""
    return classes if classes and len(classes) in output.shape[1:] else None


def _classes(classes: Sequence[str] | Mapping[int, str], output: Tensor) -> tuple[str, ...]:
    if isinstance(classes, Mapping):
        numbered = {int(number): str(name) for number, name in classes.items()}
        names = tuple(numbered.get(number, str(number)) for number in range(max(numbered, default=-1) + 1))
    else:
        names = tuple(map(str, classes))
    if output.dim() and len(names) not in output.shape[1:] and output.shape[1:].numel() != 1:
        raise ValueError(f"classes: {len(names)} names for an output {list(output.shape)}")
    return names


def _ids(explanation: Explanation) -> dict[str, Tensor]:
    """The explained inputs that hold ids of tokens."""
    given = explanation.given
    found = {n: given[n] for n in explanation.inputs if n in given and _holds_ids(given[n])}
    if not found:
        raise ValueError("tokenizer=: no explained input holds ids of tokens, [B, T]")
    return found


def _holds_ids(tensor: Tensor) -> bool:
    return tensor.dim() == 2 and not tensor.is_floating_point() and not tensor.is_complex()


def token_texts(tokenizer: Any, ids: Tensor) -> list[list[str]]:
    """The text that each token of [B, T] adds, the space before it included; one that adds none by its own name."""
    from dlb_core.pipeline.encoding import written

    rows = []
    for row in ids.tolist():
        text, tokens, spans, _ = written(tokenizer, row)
        rows.append([text[start:stop] or token for token, (start, stop) in zip(tokens, spans, strict=True)])
    return rows


def _by_input(value: Any, what: str, explanation: Explanation) -> dict[str, Any]:
    """What was given by input; without names it belongs to the only one."""
    if not explanation.given:
        raise ValueError(f"{what}=: this explanation does not hold its inputs")
    if isinstance(value, Mapping):
        if unknown := [name for name in value if name not in explanation.inputs]:
            raise ValueError(
                f"{what}=: {unknown[0]!r} is no explained input; choose from {', '.join(explanation.inputs)}"
            )
        return dict(value)
    names = [*explanation.inputs]
    if len(names) != 1:
        raise ValueError(f"{what}=: there are several inputs ({', '.join(names)}): give a mapping by name")
    return {names[0]: value}


def _rows(texts: Sequence[Any]) -> tuple[tuple[str, ...], ...]:
    """Texts by sample; those of a single sample may come without a list around them."""
    rows = [texts] if all(isinstance(text, str) for text in texts) else texts
    return tuple(tuple(map(str, row)) for row in rows)


def _check_image(name: str, image: Any, samples: int) -> None:
    fits = isinstance(image, Tensor) and image.dim() == 4 and image.shape[1] in (1, 3) and len(image) == samples
    if not fits:
        got = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"images of {name!r}: expected a tensor [{samples}, 1 or 3, H, W], got {got}")


def captions_out(captions: Captions) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Captions as JSON and tensors."""
    data = {
        "model": captions.model,
        "classes": [*captions.classes],
        "tokens": {name: [[*row] for row in rows] for name, rows in captions.tokens.items()},
        "features": {name: [*columns] for name, columns in captions.features.items()},
        "images": [*captions.images],
        "kinds": dict(captions.kinds),
    }
    return data, {f"captions/{name}": image for name, image in captions.images.items()}


def captions_in(data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Captions:
    """Captions from JSON and tensors; files from before there were any have none."""
    for kind in data.get("kinds", {}).values():
        choose("kind", kind, KINDS)
    return Captions(
        model=str(data.get("model", "")),
        classes=tuple(map(str, data.get("classes", ()))),
        tokens={name: _rows(rows) for name, rows in data.get("tokens", {}).items()},
        features={name: tuple(map(str, columns)) for name, columns in data.get("features", {}).items()},
        images={name: tensors[f"captions/{name}"] for name in data.get("images", ())},
        kinds=dict(data.get("kinds", {})),
    )
