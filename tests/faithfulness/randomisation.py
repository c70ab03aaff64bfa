"""Sanity: an explanation of a trained model must change when the model's weights are shuffled (Adebayo et al. 2018)."""

from __future__ import annotations

import copy

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from .methods import Method
from .problems import Problem

SAMPLES = 30


@torch.no_grad()
def shuffled(model: nn.Module) -> nn.Module:
    """A copy with the numbers of every parameter in random order: the same sizes, nothing that was learned."""
    generator = torch.Generator().manual_seed(1)
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        order = torch.randperm(parameter.numel(), generator=generator)
        parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
    return model


def likeness(method: Method, problem: Problem, before: Tensor) -> float:
    """Mean rank correlation of the features' relevance, `before` [N, F] and with shuffled weights; 1: no change."""
    some = problem.part(slice(0, SAMPLES))
    after = method.relevance(some.with_model(shuffled(problem.model)))
    return sum(map(_rank_correlation, before, after, some.valid())) / len(some.x)


def _rank_correlation(before: Tensor, after: Tensor, valid: Tensor) -> float:
    one, two = before[valid], after[valid]
    if bool((one == one[0]).all()) or bool((two == two[0]).all()):
        return 1.0  # a map that is the same everywhere says nothing about the model
    return float(spearmanr(one.numpy(), two.numpy()).statistic)
