"""Temperature scaling: the temperature that makes a model's probabilities as right as its confidence claims.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599). The negative
log-likelihood of softmax(logits / T) is convex in 1 / T, so its minimum is where one slope crosses zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlb_core.table import Table

BINS = 15
BOUNDS = (0.01, 100.0)
IGNORE = -100
AT_ONCE = 1 << 22  # logits in float64 at a time
STEPS = 200


@dataclass(frozen=True)
class TemperatureFit:
    """A fitted temperature and what it changed.

    temperature: give it to `predict(x, temperature=...)`. nll_before, nll_after: mean negative log-likelihood in nats,
    at temperature 1 and at the fitted one. ece_before, ece_after: expected calibration error, 0 to 1. samples: labels
    that counted. at_bound: the likelihood would improve beyond the bound that stopped it.
    """

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    samples: int
    at_bound: bool

    def table(self) -> Table:
        """Before and after, one row each."""
        rows = [
            ("before", 1.0, self.nll_before, self.ece_before),
            ("after", self.temperature, self.nll_after, self.ece_after),
        ]
        bound = ", stopped at a bound" if self.at_bound else ""
        columns = ("", "temperature", "negative log-likelihood", "calibration error")
        return Table(columns, rows, title=f"temperature of {self.samples} samples{bound}")

    def __str__(self) -> str:
        return str(self.table())


def fit_temperature(
    logits: Any, labels: Any, *, bounds: tuple[float, float] = BOUNDS, ignore_index: int = IGNORE
) -> TemperatureFit:
    """The temperature T > 0 that minimises the negative log-likelihood of the labels under softmax(logits / T).

    logits: [N, C] with labels [N] from 0 to C - 1; or of any number of leading axes, as tokens [N, T, C] with labels
    [N, T]; or binary, [N] or [N, 1] with labels of 0 and 1. Use data that the model was not trained on. bounds: T stays
    between them, and 1 lies between them; a model that makes no mistake on this data is pushed to the lower one,
    logits that tell against the labels to the upper one (`at_bound`). ignore_index: labels that do not count. Computed
    in float64. The calibration error has 15 bins of equal width, over the probability of the most probable class.

    Raises ValueError for shapes that do not match, values that are not finite, labels that are no classes or all of one
    class, and logits that are alike for all classes, which no temperature changes.
    """
    low, high = _checked(bounds)
    data = _Data.read(logits, labels, ignore_index)
    before = data.at(1.0).nll
    temperature, at_bound = _minimum(data, low, high)
    after = data.at(1 / temperature).nll
    if after > before:  # by rounding: 1 was the minimum
        temperature, after, at_bound = 1.0, before, False
    return TemperatureFit(
        temperature=temperature,
        nll_before=before,
        nll_after=after,
        ece_before=data.calibration_error(1.0),
        ece_after=data.calibration_error(1 / temperature),
        samples=len(data.labels),
        at_bound=at_bound,
    )


class _Point(NamedTuple):
    """The mean negative log-likelihood at one 1 / T, and its two derivatives by 1 / T."""

    nll: float
    slope: float
    curvature: float


@dataclass(frozen=True)
class _Data:
    """Logits [N, C] and labels [N] that count."""

    logits: Tensor
    labels: Tensor

    @classmethod
    def read(cls, logits: Any, labels: Any, ignore_index: int) -> _Data:
        """Checked and flattened. Raises ValueError."""
        logits, labels = torch.as_tensor(logits).detach(), torch.as_tensor(labels).detach()
        if not logits.is_floating_point():
            raise ValueError(f"logits have dtype {logits.dtype}: they must be floating numbers")
        if logits.dim() == 1 or (logits.dim() == 2 and logits.shape[1] == 1):
            logits = torch.stack([torch.zeros_like(logits.flatten()), logits.flatten()], 1)
            labels = labels.flatten() if labels.shape == (len(logits), 1) else labels
        if logits.dim() < 2 or labels.shape != logits.shape[:-1]:
            raise ValueError(
                f"labels {list(labels.shape)} do not match logits {list(logits.shape)}: one label for each row of "
                "logits, classes last"
            )
        if logits.shape[-1] < 2:
            raise ValueError(f"logits {list(logits.shape)} have one class: its probability is 1 at any temperature")
        whole = labels.to(device=logits.device, dtype=torch.int64)
        if labels.is_complex() or not bool((whole == labels.to(logits.device)).all()):
            raise ValueError("labels must be whole numbers, the classes")
        counted = whole != ignore_index
        data = cls(logits[counted], whole[counted])
        data._check(ignore_index)
        return data

    def _check(self, ignore_index: int) -> None:
        if not len(self.labels):
            raise ValueError(f"there is no label that counts (labels of {ignore_index} do not)")
        if not bool(torch.isfinite(self.logits).all()):
            raise ValueError("logits have NaN or infinite values: leave such rows out, or give masked classes -1e4")
        smallest, largest, classes = int(self.labels.min()), int(self.labels.max()), self.logits.shape[1]
        if smallest < 0 or largest >= classes:
            raise ValueError(f"labels go from {smallest} to {largest}, classes from 0 to {classes - 1}")
        if smallest == largest:
            raise ValueError(f"all labels are {largest}: one class says nothing about how sure to be of the others")
        if bool((self.logits == self.logits[:, :1]).all()):
            raise ValueError("in every row all logits are alike: no temperature changes them")

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows in float64, so many at a time that they fit."""
        rows = max(1, AT_ONCE // self.logits.shape[1])
        for logits, labels in zip(self.logits.split(rows), self.labels.split(rows), strict=True):
            yield logits.double(), labels

    def at(self, inverse: float) -> _Point:
        """Mean of log sum exp(s z) - s z_y, of E[z] - z_y, and of the variance of z, at s = 1 / T."""
        total = torch.zeros(3, dtype=torch.float64, device=self.logits.device)
        for logits, labels in self.parts():
            centred = logits - logits.gather(1, labels[:, None])  # the label's logit becomes 0, whatever the shift was
            scaled = centred * inverse
            probability = scaled.softmax(1)
            mean = (probability * centred).sum(1)
            variance = (probability * (centred - mean[:, None]).square()).sum(1)
            total += torch.stack([scaled.logsumexp(1).sum(), mean.sum(), variance.sum()])
        return _Point(*(total / len(self.labels)).tolist())

    def calibration_error(self, inverse: float) -> float:
        """Sum over bins of |right - sure| of its samples, as a part of all samples."""
        counts = torch.zeros(BINS, dtype=torch.float64, device=self.logits.device)
        gaps = torch.zeros_like(counts)
        for logits, labels in self.parts():
            sure, predicted = (logits * inverse).softmax(1).max(1)
            bins = (sure * BINS).ceil().long().clamp(1, BINS) - 1  # (0, 1/15], (1/15, 2/15], ...
            gaps.index_add_(0, bins, (predicted == labels).double() - sure)
            counts.index_add_(0, bins, torch.ones_like(sure))
        return float(gaps.abs().sum() / counts.sum())


def _minimum(data: _Data, low: float, high: float) -> tuple[float, bool]:
    """The best temperature, and whether a bound stopped the search.

    Newton's step on the slope, which rises with 1 / T; where it leaves the bracket, the middle of the bracket's
    logarithms.
    """
    left, right = 1 / high, 1 / low
    if data.at(left).slope >= 0:
        return high, True
    if data.at(right).slope <= 0:
        return low, True
    inverse = 1.0 if left < 1.0 < right else math.sqrt(left * right)
    for _ in range(STEPS):
        point = data.at(inverse)
        if point.slope == 0:
            break
        if point.slope < 0:
            left = inverse
        else:
            right = inverse
        step = inverse - point.slope / point.curvature if point.curvature > 0 else left
        following = step if left < step < right else math.sqrt(left * right)
        if abs(following - inverse) <= 1e-13 * inverse:
            break
        inverse = following
    return 1 / inverse, False


def _checked(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    if not (0 < low <= 1 <= high < math.inf and low < high):
        raise ValueError(f"bounds={bounds!r}: give two positive numbers with 1 between them")
    return float(low), float(high)
