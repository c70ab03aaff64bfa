"""What a notebook shows of an explanation: a card of HTML without scripts, which loads nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlb_core.findings import explained, prediction, target_text
from dlb_core.ledger_lines import ledger_lines
from dlb_core.table import aligned
from dlb_core.viz.card_style import STYLE
from dlb_core.viz.colour import colour_limit, colours
from dlb_core.viz.png import data_uri, png
from dlb_core.viz.text import coloured_text, escaped, scale_bar
from dlb_core.viz.view import View, ledger_of, sides, views

if TYPE_CHECKING:
    from dlb_core.explanation import Explanation
    from dlb_core.kernel.ledger import Ledger

LARGEST = 160_000  # characters of the inputs on a card; what is beyond is in the report
PICTURE = 30_000  # bytes of one picture
SHOWN = 180  # pixels of its longer side on the card
SIDES = (224, 160, 112, 80, 56)  # of a picture, in pixels: the largest that is small enough as a file
TOKENS, ROWS, ACCOUNTS, STRONG = 250, 12, 8, 5  # shown of each


def card(explanation: Explanation) -> str:
    """Prediction, inputs by what they are, and the ledger, of the first sample (and the first of several targets)."""
    parts = [heading(explanation.captions.model, explanation.mode, explanation.options)]
    samples = explanation.output.shape[0] if explanation.output.dim() else 1
    notes = [f"sample 1 of {samples}"] if samples > 1 else []
    if len(explanation.relevance.ledgers) > 1:
        notes.append(f"target 1 of {len(explanation.relevance.ledgers)}")
    if notes:
        parts.append(f"<p>{', '.join(notes)}; to_html shows all</p>")
    parts += [_prediction(explanation), *_inputs(explanation)]
    for side, relevance in sides(explanation.relevance).items():
        detail = f"of all {samples} samples" if samples > 1 else ""
        parts.append(books(f"ledger {side}".strip(), ledger_of(relevance), detail))
    return framed(parts)


def heading(model: str, mode: str, options: Mapping[str, Any]) -> str:
    """What was explained, and how."""
    about = [f"mode {mode}"] if mode else []
    about += [f"{name}={value}" for name, value in options.items() if value is not None]
    head = strong(model) if model else ""
    return f'<div class="dlb-head">{head}<span>{escaped(", ".join(about))}</span></div>'


def framed(parts: Iterable[str]) -> str:
    """The parts of a card in their frame, with the style that they need."""
    return f'<div class="dlb-card"><style>{STYLE}</style>{"".join(parts)}</div>'


def strong(text: str) -> str:
    """A name in bold."""
    return f"<b>{escaped(text)}</b>"


def section(title: str, body: str, detail: str = "") -> str:
    """A part of the card under its title."""
    return f'<div class="dlb-part"><h4>{escaped(title)} <small>{escaped(detail)}</small></h4>{body}</div>'


def rows(columns: Sequence[str], cells: Iterable[Sequence[str]], *, total: bool = False, told: bool = False) -> str:
    """A table of cells that are HTML; `total` sets the last row apart, `told`: the last column is text."""
    heads = "".join(f'<th scope="col">{escaped(name)}</th>' for name in columns)
    lines = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in cells]
    if total:
        lines[-1] = lines[-1].replace("<tr>", '<tr class="dlb-sum">', 1)
    kind = ' class="dlb-told"' if told else ""
    return f"<table{kind}><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def bar(part: float) -> str:
    """A number from -1 to 1 as a length: to the right of the middle and red, or to the left and blue."""
    if not math.isfinite(part):
        return ""
    width = 50 * min(1.0, abs(part))
    side = f"left:50%;width:{width:.1f}%" if part >= 0 else f"right:50%;width:{width:.1f}%"
    sign = "dlb-for" if part >= 0 else "dlb-against"
    return f'<span class="dlb-bar" aria-hidden="true"><i class="{sign}" style="{side}"></i></span>'


def length(part: float) -> str:
    """A number from 0 to 1 as a length."""
    width = 100 * max(0.0, min(1.0, part)) if math.isfinite(part) else 0.0
    style = f"left:0;width:{width:.1f}%"
    return f'<span class="dlb-bar dlb-plain" aria-hidden="true"><i style="{style}"></i></span>'


def _prediction(explanation: Explanation) -> str:
    name = explanation.captions.of_class
    output = explanation.output[:1] if explanation.output.dim() else explanation.output
    found, target = prediction(output, "auto"), explained(explanation)
    detail = f"explained: {target_text(target, name)}"
    if not explanation.output.numel():
        return section("prediction", "<p>an empty batch</p>", detail)
    if "classes" in found:
        chosen = target if isinstance(target, int) else None
        cells = [
            [
                strong(name(each["class"])) if each["class"] == chosen else escaped(name(each["class"])),
                f"{100 * each['probability']:.2f} %",
                length(each["probability"]),
            ]
            for each in found["classes"][0]
        ]
        return section("prediction", rows(("class", "probability", ""), cells), detail)
    keys = ("values",) if "values" in found else ("min", "mean", "max")
    told = ", ".join(f"{key} {_rounded(found[key])}" for key in keys)
    return section("prediction", f"<p>output {found['shape']}: {escaped(told)}</p>", detail)


def _inputs(explanation: Explanation) -> Iterable[str]:
    if 0 in explanation.output.shape[:1]:
        return
    by_name: dict[str, list[View]] = {}
    for view in views(explanation):
        by_name.setdefault(view.name, []).append(view)
    written = 0
    for name, found in by_name.items():
        if written > LARGEST:
            yield section(name, "<p>left out here for its size; to_html shows it</p>")
            continue
        made = section(name, _drawn(explanation, name, found), f"{found[0].kind} {[*found[0].units.shape]}")
        written += len(made)
        yield made


def _drawn(explanation: Explanation, name: str, found: Sequence[View]) -> str:
    if not found[0].units.numel():
        return "<p>empty</p>"
    if found[0].kind == "tokens":
        return coloured_text(explanation, name).first(TOKENS).html()
    draw = {"image": _image, "features": _features, "series": _series}.get(found[0].kind, _values)
    return draw(found)


def _image(found: Sequence[View]) -> str:
    """The picture, and relevance on it; of a contrastive mode on one scale."""
    planes = [view.plane.nan_to_num() for view in found]
    limit, picture = colour_limit(torch.stack(planes)), found[0].picture
    height, width = planes[0].shape
    figures = []
    if picture is not None:
        coloured = picture.expand(3, -1, -1)
        figures.append(_figure("input", (height, width), lambda size: _smaller(coloured, size)))
    for view, plane in zip(found, planes, strict=True):
        paint = partial(_overlay, picture, plane, limit)
        figures.append(_figure(view.side or "relevance", (height, width), paint))
    return f'<div class="dlb-row">{"".join(figures)}</div>{_scale(planes, limit)}{_strongest(found)}'


def _figure(caption: str, shape: tuple[int, int], paint: Callable[[tuple[int, int]], Tensor]) -> str:
    """A picture of this shape, painted [3, *size] in 0..1 at the largest size that is small enough as a file."""
    for side in SIDES:
        part = min(1.0, side / max(shape))
        height, width = size = max(1, round(shape[0] * part)), max(1, round(shape[1] * part))
        file = png((paint(size) * 255).round().byte().permute(1, 2, 0).numpy())
        if len(file) <= PICTURE:
            break
    small = max(size) <= SHOWN // 2  # enlarged pixel by pixel; others are shown at one size
    factor = round(SHOWN / max(size)) if small else SHOWN / max(size)
    place = f'width="{round(width * factor)}" height="{round(height * factor)}"'
    smooth = "" if small else ' style="image-rendering:auto"'
    alt = f"{escaped(caption)}, {shape[0]} x {shape[1]}"
    image = f'<img alt="{alt}" {place}{smooth} src="{data_uri(file)}">'
    return f"<figure>{image}<figcaption>{escaped(caption)}</figcaption></figure>"


def _overlay(picture: Tensor | None, plane: Tensor, limit: float, size: tuple[int, int]) -> Tensor:
    """Relevance [H, W] as colour, on what there is of a picture in pale grey."""
    shown = _smaller(plane[None], size)[0]
    paint = torch.from_numpy(colours(shown, limit)).permute(2, 0, 1) / 255
    if picture is None:
        return paint
    grey = 0.55 + 0.45 * _smaller(picture, size).mean(0, keepdim=True)
    return torch.lerp(grey, paint, (shown.abs() / (limit or 1.0)).clamp(0, 1).sqrt())


def _smaller(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Planes [C, H, W] at a smaller size, by averages."""
    if planes.shape[-2:] == size:
        return planes.float()
    return torch.nn.functional.adaptive_avg_pool2d(planes[None].float(), size)[0]


def _series(found: Sequence[View]) -> str:
    """Relevance by time (to the right) and channel (downwards)."""
    planes = [view.units.T.nan_to_num() for view in found]
    limit = colour_limit(torch.stack(planes))
    made = []
    for view, plane in zip(found, planes, strict=True):
        size = min(plane.shape[0], 24), min(plane.shape[1], 400)
        file = png(colours(_smaller(plane[None], size)[0], limit))
        label = (
            f"{view.side or 'relevance'}: {plane.shape[0]} channels, {plane.shape[1]} steps in time from left to right"
        )
        high = max(10, round(24 / size[0])) * size[0]
        image = f'<img alt="{escaped(label)}" style="width:100%;height:{high}px" src="{data_uri(file)}">'
        made.append(f"<figure>{image}<figcaption>{escaped(label)}</figcaption></figure>")
    return "".join(made) + _scale(planes, limit) + _strongest(found)


def _features(found: Sequence[View]) -> str:
    """The strongest columns of a table with their values."""
    first = found[0]
    limit = max(float(view.units.nan_to_num().abs().max()) for view in found) or 1.0
    size = torch.stack([view.units.abs() for view in found]).amax(0)
    best = size.argsort(descending=True, stable=True)[:ROWS].tolist()
    units = [aligned([float(view.units[i]) for i in best], sign="+") for view in found]
    cells = [
        [
            escaped(first.labels[i]),
            "" if first.values is None else escaped(_rounded(first.values[i].item())),
            *(part for u, v in zip(units, found, strict=True) for part in (u[n], bar(float(v.units[i]) / limit))),
        ]
        for n, i in enumerate(best)
    ]
    sides = (part for view in found for part in (view.side or "relevance", ""))
    more = len(first.labels) - len(best)
    rest = f"<p>and {more} more</p>" if more else ""
    return rows(("feature", "value", *sides), cells) + rest


def _values(found: Sequence[View]) -> str:
    return _strongest(found, ROWS)


def _strongest(found: Sequence[View], most: int = STRONG) -> str:
    """Where the most units are, in a line for each side."""
    lines = []
    for view in found:
        flat = view.units.flatten().nan_to_num()
        best = flat.abs().topk(min(most, flat.numel())).indices.tolist()
        told = aligned([float(flat[i]) for i in best], sign="+")
        where = ["" if not view.units.dim() else str(_index(i, view.units)) for i in best]
        each = ", ".join(f"{place} {units}".strip() for place, units in zip(where, told, strict=True))
        lines.append(f"<p>strongest{' ' + view.side if view.side else ''}: {escaped(each)}</p>")
    return "".join(lines)


def _index(position: int, tensor: Tensor) -> list[int]:
    return [int(i) for i in torch.unravel_index(torch.tensor(position), tensor.shape)]


def _scale(planes: Sequence[Tensor], limit: float) -> str:
    return scale_bar(limit, signed=any(bool((plane < 0).any()) for plane in planes))


def books(title: str, ledger: Ledger, detail: str = "") -> str:
    """Where the seed went; shares add up to 100.00 %."""
    lines = ledger_lines(ledger, ACCOUNTS)
    units = aligned([line.units for line in lines], digits=5)
    cells = [
        [escaped(line.account), told, escaped(line.share_text), bar((line.share or 0.0) / 100)]
        for line, told in zip(lines, units, strict=True)
    ]
    cells.append(["= seed", f"{ledger.seed:.6g}", "100.00 %" if ledger.sums else "-", ""])
    if ledger.gain > 1.005:  # contributions of both signs: the sum alone would hide their size
        gain = f"sum of |relevance| at the inputs is {ledger.gain:.3g} x the seed's"
        detail = f"{detail}; {gain}" if detail else gain
    return section(title, rows(("account", "units", "share", ""), cells, total=True), detail)


def _rounded(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_rounded, value))}]"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
