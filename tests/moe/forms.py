"""One mixture of experts in the forms that users write it in: loops over experts or tokens, dense ones, parameters.

A form gets the mixture, its tokens [S, H] and the router's weights: `full` [S, E], zero where an expert was not chosen,
and `w`, `i` [S, k], the chosen and their numbers. All forms are the same function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, EXPERTS = 6, 4


class Mixture(nn.Module):
    """A router over experts that are modules, and again parameters of the same values: [..., H] -> [..., H]."""

    def __init__(self, form: str, k: int = 2) -> None:
        super().__init__()
        self.form, self.k = form, k
        self.router = nn.Linear(WIDTH, EXPERTS)
        parts = [nn.Sequential(nn.Linear(WIDTH, 5), nn.ReLU(), nn.Linear(5, WIDTH)) for _ in range(EXPERTS)]
        self.experts: Any = nn.ModuleDict({f"expert_{n}": e for n, e in enumerate(parts)})
        if form != "a dictionary of modules":
            self.experts = nn.ModuleList(parts)
        self.up = nn.Parameter(torch.stack([e[0].weight.detach() for e in parts]))
        self.up_bias = nn.Parameter(torch.stack([e[0].bias.detach() for e in parts]))
        self.down = nn.Parameter(torch.stack([e[2].weight.detach() for e in parts]))
        self.down_bias = nn.Parameter(torch.stack([e[2].bias.detach() for e in parts]))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, WIDTH)
        made: Tensor = FORMS[self.form](self, tokens, *self.weights(tokens))
        return made.reshape(x.shape)

    def weights(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        probability = self.router(tokens).softmax(-1)
        w, i = probability.topk(self.k)
        w = w / w.sum(-1, keepdim=True)
        return torch.zeros_like(probability).scatter(1, i, w), w, i

    def returned(self, tokens: Tensor) -> Tensor:
        """What every expert makes of every token, [S, E, H]; from the parameters."""
        inner = (torch.einsum("td,efd->tef", tokens, self.up) + self.up_bias).relu()
        return torch.einsum("tef,edf->ted", inner, self.down) + self.down_bias


class Net(nn.Module):
    """Tokens or a row of numbers, through a mixture, to classes."""

    def __init__(self, form: str, k: int = 2) -> None:
        super().__init__()
        self.first, self.moe, self.head = nn.Linear(WIDTH, WIDTH), Mixture(form, k), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.moe(self.before(x)))

    def before(self, x: Tensor) -> Tensor:
        return self.first(x).tanh()

    def rest(self, mixed: Tensor) -> Tensor:
        return self.head(mixed.mean(1) if mixed.dim() == 3 else mixed)


def _masks(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for e, expert in enumerate(m.experts):
        mine = (i == e).any(-1)
        if mine.any():
            out[mine] += full[mine, e].unsqueeze(-1) * expert(x[mine])
    return out


def _slots(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for slot in range(m.k):
        for e, expert in enumerate(m.experts):
            mine = i[:, slot] == e
            if mine.any():
                out[mine] += w[mine, slot].unsqueeze(-1) * expert(x[mine])
    return out


def _index_add(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    chosen = F.one_hot(i, EXPERTS).permute(2, 1, 0)
    for e, expert in enumerate(m.experts):
        slot, token = torch.where(chosen[e])
        if len(token):
            out.index_add_(0, token, expert(x[token]) * w[token, slot, None])
    return out


def _named(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for e in i.unique().tolist():
        token, slot = torch.where(i == e)
        out.index_put_((token,), m.experts[f"expert_{e}"](x[token]) * w[token, slot, None], accumulate=True)
    return out


def _put(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for e, expert in enumerate(m.experts):
        token, slot = torch.where(i == e)
        if len(token):
            out[token] += w[token, slot, None] * expert(x[token])
    return out


def _sorted(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    order = i.flatten().argsort(stable=True)
    token = order // m.k
    parts = x[token].split(i.flatten().bincount(minlength=EXPERTS).tolist())
    made = torch.cat([expert(part) for expert, part in zip(m.experts, parts, strict=True) if len(part)])
    return torch.zeros_like(x).index_add(0, token, made * w.flatten()[order, None])


def _unsorted(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    order = i.flatten().argsort(stable=True)
    parts = x[order // m.k].split(i.flatten().bincount(minlength=EXPERTS).tolist())
    made = torch.cat([expert(part) for expert, part in zip(m.experts, parts, strict=True) if len(part)])
    back = torch.empty_like(made)
    back[order] = made
    return (back.view(-1, m.k, WIDTH) * w.unsqueeze(-1)).sum(1)


def _tokens(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for token in range(len(x)):
        for slot in range(m.k):
            out[token] += w[token, slot] * m.experts[i[token, slot].item()](x[token])
    return out


def _token_list(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    chosen = i.tolist()
    return torch.stack([sum(w[t, j] * m.experts[e](x[t]) for j, e in enumerate(chosen[t])) for t in range(len(x))])


def _all(m: Any, x: Tensor, dim: int) -> Tensor:
    return torch.stack([expert(x) for expert in m.experts], dim)


def _one_by_one(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    out: Any = 0
    for e, expert in enumerate(m.experts):
        out = out + full[:, e : e + 1] * expert(x)
    return out


def _where(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for e, expert in enumerate(m.experts):
        out = out + torch.where((i == e).any(-1, keepdim=True), full[:, e, None] * expert(x), 0.0)
    return out


def _picked(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    chosen = _all(m, x, 1).gather(1, i.unsqueeze(-1).expand(-1, -1, WIDTH))
    return (chosen * w.unsqueeze(-1)).sum(1)


def _loop_of_slices(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for e in range(EXPERTS):
        token, slot = torch.where(i == e)
        if len(token):
            inner = F.linear(x[token], m.up[e], m.up_bias[e]).relu()
            out.index_add_(0, token, F.linear(inner, m.down[e], m.down_bias[e]) * w[token, slot, None])
    return out


def _slices_by_token(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    inner = ((m.up[i] @ x[:, None, :, None]).squeeze(-1) + m.up_bias[i]).relu()
    made = (inner.unsqueeze(-2) @ m.down[i].mT).squeeze(-2) + m.down_bias[i]
    return (w.unsqueeze(1) @ made).squeeze(1)


def _slices_einsum(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    inner = (torch.einsum("td,tkfd->tkf", x, m.up[i]) + m.up_bias[i]).relu()
    return torch.einsum("tk,tkd->td", w, torch.einsum("tkf,tkdf->tkd", inner, m.down[i]) + m.down_bias[i])


def _batches(m: Any, x: Tensor, full: Tensor, w: Tensor, i: Tensor) -> Tensor:
    inner = (torch.bmm(x.expand(EXPERTS, -1, -1), m.up.mT) + m.up_bias[:, None]).relu()
    made = inner @ m.down.transpose(1, 2) + m.down_bias[:, None]
    return (made * full.T.unsqueeze(-1)).sum(0)


FORMS: dict[str, Callable[[Any, Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "masks": _masks,
    "masks by slot": _slots,
    "index_add": _index_add,
    "a dictionary of modules": _named,
    "written into places": _put,
    "sorted by expert": _sorted,
    "sorted and back": _unsorted,
    "token by token": _tokens,
    "a list of tokens": _token_list,
    "one by one": _one_by_one,
    "where": _where,
    "picked": _picked,
    "stack, sum": lambda m, x, full, w, i: (_all(m, x, 1) * full.unsqueeze(-1)).sum(1),
    "stack first": lambda m, x, full, w, i: (_all(m, x, 0) * full.T.unsqueeze(-1)).sum(0),
    "stack last": lambda m, x, full, w, i: (_all(m, x, -1) * full.unsqueeze(1)).sum(-1),
    "matmul": lambda m, x, full, w, i: (full.unsqueeze(1) @ _all(m, x, 1)).squeeze(1),
    "matmul, stack last": lambda m, x, full, w, i: (_all(m, x, -1) @ full.unsqueeze(-1)).squeeze(-1),
    "bmm": lambda m, x, full, w, i: torch.bmm(full.unsqueeze(1), _all(m, x, 1)).squeeze(1),
    "einsum": lambda m, x, full, w, i: torch.einsum("te,teh->th", full, _all(m, x, 1)),
    "einsum, stack first": lambda m, x, full, w, i: torch.einsum("eth,te->th", _all(m, x, 0), full),
    "einsum, stack last": lambda m, x, full, w, i: torch.einsum("the,te->th", _all(m, x, -1), full),
    "slices in a loop": _loop_of_slices,
    "slices by token": _slices_by_token,
    "slices, einsum": _slices_einsum,
    "batches": _batches,
    "einsum over experts": lambda m, x, full, w, i: torch.einsum("te,ted->td", full, m.returned(x)),
}
