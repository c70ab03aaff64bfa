"""The tools compared, each through its public interface; what does not run is reported with its reason."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from .methods import MANY, Explain, Method, NotRun
from .networks import Add
from .problems import Problem


def captum_methods() -> Iterator[Method]:
    """Captum: one-pass and sampled methods. A baseline is given wherever one is taken."""
    try:
        from captum import attr
    except ImportError:
        attr = None
    for name, passes, baseline, further in (
        ("InputXGradient", "1", False, {}),
        ("DeepLift", "2", True, {}),
        ("IntegratedGradients", MANY, True, {"internal_batch_size": 512}),
        ("GradientShap", MANY, True, {}),
        ("Occlusion", "one per feature", True, {}),
    ):
        yield Method(name, "Captum", passes, _captum(attr, name, baseline, further))


def _captum(attr: object, name: str, baseline: bool, further: dict[str, object]) -> Callable[[Problem], Explain]:
    def start(problem: Problem) -> Explain:
        if attr is None:
            raise NotRun("Captum is not installed")
        method = getattr(attr, name)(problem.model)
        given = dict(further)
        if points := {"IntegratedGradients": "n_steps", "GradientShap": "n_samples"}.get(name):
            given[points] = problem.points
        if name == "Occlusion":
            size = problem.x.dim() - 1 - problem.trailing
            given["sliding_window_shapes"] = (1,) * size + tuple(problem.x.shape[problem.x.dim() - problem.trailing :])

        def explain(part: Problem) -> Tensor:
            torch.manual_seed(0)
            np.random.seed(0)  # GradientShap draws from it
            if baseline:
                given["baselines"] = (
                    part.baseline[None].expand_as(part.x) if name != "GradientShap" else part.baseline[None]
                )
            x = part.x.clone().requires_grad_()
            return method.attribute(x, target=part.targets, additional_forward_args=part.others or None, **given)

        return explain

    return start


def difference_gradient() -> Method:
    """Gradient x (input - baseline), where the baseline is not zero and Captum's InputXGradient takes none."""

    def start(problem: Problem) -> Explain:
        if not problem.baseline.any():
            raise NotRun("the baseline is zero: the same as InputXGradient")

        def explain(part: Problem) -> Tensor:
            x = part.x.clone().requires_grad_()
            output = part.model(x, *part.others).gather(1, part.targets[:, None])
            return torch.autograd.grad(output.sum(), x)[0] * (part.x - part.baseline)

        return explain

    return Method("gradient x (input - baseline)", "autograd", "1", start)


COMPOSITES = ("EpsilonPlus", "EpsilonAlpha2Beta1", "EpsilonPlusFlat", "EpsilonAlpha2Beta1Flat", "EpsilonGammaBox")


def zennit_composites() -> Iterator[Method]:
    """zennit's own composites, on the models that are made of the modules it gives rules to."""
    for name in COMPOSITES:
        yield Method(name, "zennit", "1", _zennit(name))


def _zennit(name: str) -> Callable[[Problem], Explain]:
    def start(problem: Problem) -> Explain:
        if problem.name not in {"CNN", "residual CNN", "MLP cancer", "MLP wine"}:
            raise NotRun("zennit gives rules to dense and convolutional layers; this model is made of others")
        try:
            from zennit import composites
            from zennit.attribution import Gradient
            from zennit.canonizers import SequentialMergeBatchNorm
        except ImportError as error:
            raise NotRun(f"zennit does not load: {error}") from error
        bounds = {"low": problem.x.min(), "high": problem.x.max()} if name == "EpsilonGammaBox" else {}
        composite = getattr(composites, name)(canonizers=[SequentialMergeBatchNorm()], **bounds)
        model = with_zennit_sums(problem.model)

        def explain(part: Problem) -> Tensor:
            output = model(part.x)
            start = torch.nn.functional.one_hot(part.targets, output.shape[1]) * output  # starts with the value itself
            with Gradient(model, composite) as attributor:
                return attributor(part.x, start)[1]

        return explain

    return start


class _Stacked(nn.Module):
    def __init__(self, total: nn.Module) -> None:
        super().__init__()
        self.total = total

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.total(torch.stack((a, b), -1))


def with_zennit_sums(model: nn.Module) -> nn.Module:
    """A copy whose sums are the modules that zennit knows."""
    from zennit.layer import Sum

    model = copy.deepcopy(model)
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if isinstance(child, Add):
                setattr(module, name, _Stacked(Sum()))
    return model


def autolrp_methods() -> Iterator[Method]:
    """autoLRP: its default configuration and its composite, sample by sample as its interface has it."""
    yield Method("default", "autoLRP", "1", _autolrp(None))
    yield Method("composite", "autoLRP", "1", _autolrp("composite"))


def _autolrp(config: str | None) -> Callable[[Problem], Explain]:
    def start(problem: Problem) -> Explain:
        try:
            import autolrp
        except ImportError as error:
            raise NotRun(f"autoLRP does not load: {error}") from error
        given = {} if config is None else {"config": getattr(autolrp.LRPConfig, config)()}

        def one(x: Tensor, others: tuple[Tensor, ...], target: int) -> Tensor:
            wrapped = autolrp.tensor(x)
            logit = problem.model(wrapped, *others)[0, target]
            logit.lrp(**given)
            return wrapped.relevance.detach() * logit.detach()  # it starts with 1, the others with the value itself

        def explain(part: Problem) -> Tensor:
            rows = range(len(part.x))
            parts = [
                one(part.x[i : i + 1], tuple(o[i : i + 1] for o in part.others), int(part.targets[i])) for i in rows
            ]
            return torch.cat(parts)

        return explain

    return start


def rivals() -> list[Method]:
    """All that is compared."""
    return [*captum_methods(), difference_gradient(), *zennit_composites(), *autolrp_methods()]
