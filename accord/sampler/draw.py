"""The distribution that a token is drawn from, and the draw: one number per row decides it."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from accord.recipe import Decoding
from accord.sampler import PLAIN

BLOCK = 64  # tokens that are added up before they are looked at one by one


def draw(logits: Tensor, temperature: float, noise: Tensor, decoding: Decoding = PLAIN) -> tuple[Tensor, Tensor]:
    """A token of each row, [B], and its log-prob, [B], under the distribution that it was drawn from.

    logits: [B, V] float32. noise: [B] float64 in [0, 1). The token is where the cumulative distribution passes the noise.
    Temperature 0 takes the most likely token; its log-prob is that at temperature 1.
    """
    if temperature == 0:
        token = most_likely(logits)
        return token, logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(-1)
    p = torch.softmax(truncated(logits if temperature == 1 else logits / temperature, decoding), dim=-1)
    token = passed(p, noise)
    return token, p.gather(1, token[:, None])[:, 0].log()


def passed(p: Tensor, noise: Tensor) -> Tensor:
    """Where the cumulative sum of each row of `p`, [B, V], passes `noise` times its total: [B].

    Summed in two levels, blocks of tokens and tokens of a block, so that nothing as wide as the vocabulary is summed up step
    by step. The chance of a token is off by float32's rounding of its block's sum, a part in 1e7 of itself.
    """
    blocks = _blocks(p, 0.0)
    ends = blocks.sum(-1).double().cumsum(-1)  # [B, V / BLOCK]
    aim = _below(noise[:, None] * ends[:, -1:], ends)
    block = torch.searchsorted(ends, aim, right=True)  # [B, 1]
    start = functional.pad(ends, (1, 0)).gather(1, block)
    inside = blocks[torch.arange(len(p), device=p.device), block[:, 0]].double().cumsum(-1)  # [B, BLOCK]
    rest = (aim - start) / (ends.gather(1, block) - start) * inside[:, -1:]
    return (block * BLOCK + torch.searchsorted(inside, _below(rest, inside), right=True))[:, 0]


def _blocks(x: Tensor, fill: float) -> Tensor:
    """The columns of [B, V] in blocks, the last one filled up: [B, V / BLOCK, BLOCK]."""
    spare = -x.shape[1] % BLOCK
    return (functional.pad(x, (0, spare), value=fill) if spare else x).reshape(len(x), -1, BLOCK)


def _below(aim: Tensor, ends: Tensor) -> Tensor:
    """An aim that rounding may have carried to the end of a cumulative sum, where nothing is."""
    return torch.minimum(aim, torch.nextafter(ends[:, -1:], torch.zeros_like(aim)))


def most_likely(logits: Tensor) -> Tensor:
    """The first of the largest values of each row, [B]: `argmax`, which takes ten times as long on a CPU."""
    blocks = _blocks(logits, -torch.inf)
    block = blocks.amax(-1).argmax(-1)
    return block * BLOCK + blocks[torch.arange(len(logits), device=logits.device), block].argmax(-1)


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits [B, V] with those of the tokens `seen` in a row, [B, T], divided by the penalty where positive, else multiplied.

    Keskar et al. 2019, https://arxiv.org/abs/1909.05858, as `RepetitionPenaltyLogitsProcessor` of transformers has it.
    """
    found = logits.gather(1, seen)
    return logits.scatter(1, seen, torch.where(found < 0, found * penalty, found / penalty))


def truncated(logits: Tensor, decoding: Decoding) -> Tensor:
    """Logits with -inf where `top_k`, then `top_p`, then `min_p` leave a token out: [B, V].

    Each of the three keeps what is at least as likely as some token of the row, so together they are one threshold.
    """
    bounds: list[Tensor] = []  # [B, 1] each
    if decoding.top_k:
        best = logits.topk(min(decoding.top_k, logits.shape[1])).values
        bounds.append(best[:, -1:])
        if decoding.top_p < 1:
            bounds.append(_last_of_mass(best, best.logsumexp(-1, keepdim=True), decoding.top_p)[0])
    elif decoding.top_p < 1:
        bounds.append(_nucleus(logits, decoding.top_p))
    if decoding.min_p > 0:
        bounds.append(logits.amax(-1, keepdim=True) + math.log(decoding.min_p))
    return logits.masked_fill(logits < torch.stack(bounds).amax(0), -torch.inf) if bounds else logits


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """The smallest logit of each row's nucleus, [B, 1]: the fewest most likely tokens with `top_p` of the mass.

    Holtzman et al. 2020, https://arxiv.org/abs/1904.09751. Sorting a whole vocabulary takes longer than a small model's
    forward pass, so the nucleus is looked for among few tokens first.
    """
    total = logits.logsumexp(-1, keepdim=True)
    bound, left = torch.empty_like(total), torch.arange(len(logits), device=logits.device)
    for count in (64, 1024, logits.shape[1]):
        best = logits[left].topk(min(count, logits.shape[1])).values
        bound[left], found = _last_of_mass(best, total[left], top_p)
        left = left[~found]
        if not len(left):
            break
    return bound


def _last_of_mass(best: Tensor, total: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The first of the sorted logits, [B, N], up to which they have `top_p` of the mass (or the last), and whether they have.

    total: the log of the sum that masses are shares of, [B, 1].
    """
    below = ((best - total).exp().cumsum(-1) < top_p).sum(-1)
    return best.gather(1, below.clamp(max=best.shape[1] - 1)[:, None]), below < best.shape[1]


def uniform(seed: int, numbers: Tensor, position: int | Tensor) -> Tensor:
    """A number in [0, 1) for each answer number, [B] float64: a counter-based generator (splitmix64's finaliser).

    position: of the token in its answer, one for all or [B].
    """
    step = (
        torch.as_tensor(position, device=numbers.device) + 1
    ) * 1442695040888963407  # wraps: only its low bits count
    state = numbers * -7046029254386353131 + seed * 6364136223846793005 % 2**62 + (step & (2**62 - 1))
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        state = (state ^ _shift(state, shift)) * factor
    state = state ^ _shift(state, 31)
    return _shift(state, 11).double() * 2.0**-53


def _shift(values: Tensor, bits: int) -> Tensor:
    """Logical (not arithmetic) shift of int64 to the right."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
