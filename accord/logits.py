"""What is wanted of logits, without the logits: a language-model head and the softmax after it, in chunks.

A chunk's logits live for one turn of a loop. The backward pass computes them again from the hidden states, so that
[tokens, vocabulary] is never held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CHUNK = 2**21  # logits at once: 8 MB in float32, which a processor's cache holds from one pass over them to the next
FEWEST = 128  # rows at once all the same: a product of fewer waits for the weights of the head
SLOPES = (
    2**23
)  # of so many at once a gradient of the weights is made: adding one up costs as much as a pass over all of them


@dataclass(frozen=True)
class Head:
    """A linear head in the precision of its products, and what its logits are divided by."""

    weight: Tensor  # [V, hidden]
    bias: Tensor | None  # [V]
    temperature: float

    @property
    def rows(self) -> int:
        """How many rows of logits are held at once."""
        return max(FEWEST, CHUNK // len(self.weight))

    def held(self, hidden: Tensor, rows: int) -> Tensor:
        """Room for so many rows of logits, in float32 at least. New memory for every chunk costs more than what is computed
        in it."""
        kind = torch.promote_types(hidden.dtype, torch.float32)
        return hidden.new_empty(min(rows, len(hidden)), len(self.weight), dtype=kind)

    def chunks(self, hidden: Tensor, rows: int) -> Iterator[tuple[slice, Tensor]]:
        """So many rows after the other: where they are, and their logits, [rows, V], which are the caller's until the next
        ones."""
        held = self.held(hidden, rows)
        for start in range(0, len(hidden), rows):
            part = slice(start, min(start + rows, len(hidden)))
            logits = held[: part.stop - start].copy_(nn.functional.linear(hidden[part], self.weight, self.bias))
            yield part, logits.div_(self.temperature) if self.temperature != 1.0 else logits


def token_outputs(
    hidden: Tensor, head: nn.Module, targets: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each token its log-prob and the entropy of its distribution, in nats, and whether it is the likeliest (1 or 0).

    hidden: [N, hidden], from which the head predicts. targets: [N] int64. Returns [N] each. Under autocast products are in
    its precision, all after them in float32.
    """
    weight, bias = _weights(head)
    found: tuple[Tensor, Tensor, Tensor] = _TokenOutputs.apply(
        hidden, weight, bias, targets, temperature, _precision(hidden)
    )  # pyright: ignore[reportAssignmentType]
    return found


@torch.no_grad()
def mean_logit(hidden: Tensor, head: nn.Module, *, temperature: float = 1.0) -> Tensor:
    """The mean of each place's logits over the vocabulary, [N], from hidden states, [N, hidden]: as a head is linear, that of
    its mean row."""
    weight, bias = _weights(head)
    found = hidden.to(weight.dtype) @ weight.mean(0)
    return (found if bias is None else found + bias.mean()) / temperature


@torch.no_grad()
def kl(ours: tuple[Tensor, nn.Module], theirs: tuple[Tensor, nn.Module], *, temperature: float = 1.0) -> Tensor:
    """KL(p || q) at each place, [N]: the exact sum over the vocabulary, in nats.

    ours, theirs: hidden states, [N, hidden], and the head, of p and of q. Tokens that only one of them has do not count.
    """
    heads = [_cast(head, hidden, temperature) for hidden, head in (ours, theirs)]
    rows, shared = min(head.rows for head in heads), min(len(head.weight) for head in heads)
    low = [hidden.to(head.weight.dtype) for (hidden, _), head in zip((ours, theirs), heads, strict=True)]
    found: list[Tensor] = []
    for (_, p), (_, q) in zip(heads[0].chunks(low[0], rows), heads[1].chunks(low[1], rows), strict=True):
        p, q = torch.log_softmax(p, 1)[:, :shared], torch.log_softmax(q, 1)[:, :shared]
        found.append((p.exp() * (p - q)).sum(1))
    return torch.cat(found) if found else ours[0].new_zeros(0)


class _TokenOutputs(torch.autograd.Function):
    """log p(y) and the entropy H of p = softmax(z), z = (W h + b) / temperature.

    d log p(y) / dz = onehot(y) - p and dH / dz = -p (log p + H).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float,
        precision: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        head = Head(weight.to(precision), None if bias is None else bias.to(precision), temperature)
        low = hidden.to(precision)
        logp, entropy, norm, likeliest = (
            hidden.new_empty(len(hidden), dtype=torch.promote_types(precision, torch.float32)) for _ in range(4)
        )
        room = head.held(low, head.rows)
        for part, z in head.chunks(low, head.rows):
            top, aim = z.amax(1), z.gather(1, targets[part, None])[:, 0]
            z -= top[:, None]
            p = torch.exp(z, out=room[: len(z)])
            total = p.sum(1)
            norm[part] = total.log() + top
            entropy[part] = total.log() - p.mul_(z).sum(1) / total
            logp[part] = aim - norm[part]
            likeliest[part] = (aim == top).to(aim.dtype)
        ctx.head, ctx.kinds = head, (hidden.dtype, weight.dtype)
        ctx.save_for_backward(low, targets, norm, entropy)
        ctx.mark_non_differentiable(likeliest)
        ctx.set_materialize_grads(False)  # None tells what nobody asked for
        return logp, entropy, likeliest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        low, targets, norm, entropy = ctx.saved_tensors
        of_logp, of_entropy, _ = gradients
        head: Head = ctx.head
        of_hidden, of_weight, of_bias = torch.empty_like(low), None, None
        of_logp = torch.zeros_like(norm) if of_logp is None else of_logp
        room = head.held(low, head.rows) if of_entropy is not None else None
        most = max(head.rows, SLOPES // len(head.weight))
        slopes = low.new_empty(min(most, len(low)), len(head.weight))
        for start in range(0, len(low), most):
            whole = slice(start, min(start + most, len(low)))
            step, y, n, up = slopes[: whole.stop - start], targets[whole, None], norm[whole, None], of_logp[whole, None]
            for part, z in head.chunks(low[whole], head.rows):
                z -= n[part]
                slope = z.exp_() if room is None else torch.exp(z, out=room[: len(z)])  # p
                if of_entropy is not None:
                    slope *= z.add_(entropy[whole, None][part]).mul_(-of_entropy[whole, None][part]).sub_(up[part])
                else:
                    slope *= -up[part]
                slope.scatter_add_(1, y[part], up[part])
                step[part] = slope.div_(head.temperature) if head.temperature != 1.0 else slope
            torch.mm(step, head.weight, out=of_hidden[whole])
            if ctx.needs_input_grad[1]:
                of_weight = _added(of_weight, step.T @ low[whole], ctx.kinds[1])
            if head.bias is not None and ctx.needs_input_grad[2]:
                of_bias = _added(of_bias, step.sum(0), ctx.kinds[1])
        if not len(low) and ctx.needs_input_grad[1]:
            of_weight = torch.zeros_like(
                head.weight, dtype=ctx.kinds[1]
            )  # data-parallel wrappers wait for every weight
        return of_hidden.to(ctx.kinds[0]), of_weight, of_bias, None, None, None


def _added(total: Tensor | None, part: Tensor, kind: torch.dtype) -> Tensor:
    """A sum with one part more."""
    return part.to(kind) if total is None else total.add_(part)


def _weights(head: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear head."""
    assert isinstance(head, nn.Linear)
    return head.weight, head.bias


def _cast(head: nn.Module, hidden: Tensor, temperature: float) -> Head:
    weight, bias = _weights(head)
    kind = _precision(hidden)
    return Head(weight.to(kind), None if bias is None else bias.to(kind), temperature)


def _precision(hidden: Tensor) -> torch.dtype:
    """The precision of products: autocast's where it is on."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
