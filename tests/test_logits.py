"""Log-probs, entropies and KL in chunks are those of whole logits, and so are their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from accord import logits


def plain(hidden: Tensor, head: nn.Linear, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    z = head(hidden).float() / temperature
    everything = torch.log_softmax(z, dim=1)
    return (
        everything.gather(1, targets[:, None])[:, 0],
        -(everything.exp() * everything).sum(1),
        (z.argmax(1) == targets).float(),
    )


def made(bias: bool, kind: torch.dtype = torch.float32) -> tuple[Tensor, nn.Linear, Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(16, 97, bias=bias, dtype=kind)
    head.weight.data *= 4
    hidden = torch.randn(50, 16, dtype=kind, requires_grad=True)
    targets = torch.randint(97, (50,))
    targets[:20] = head(hidden).argmax(1)[:20]
    return hidden, head, targets


@pytest.fixture(params=[1, 7 * 97, 2**23], ids=["a row", "seven rows", "all rows"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(logits, "CHUNK", request.param)
    return request.param


@pytest.mark.parametrize("bias", [False, True])
def test_the_mean_of_logits_is_that_of_the_mean_row(bias: bool) -> None:
    hidden, head, _ = made(bias)
    assert torch.allclose(logits.mean_logit(hidden, head, temperature=0.7), (head(hidden) / 0.7).mean(1), atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_whole_logits(chunk: int, bias: bool, temperature: float) -> None:
    hidden, head, targets = made(bias)
    weights = torch.randn(2, 50)
    found = logits.token_outputs(hidden, head, targets, temperature=temperature)
    expected = plain(hidden, head, targets, temperature)
    assert 20 <= int(found[2].sum()) < 50
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    for ends in (weights[0], weights):  # of the log-probs alone, and with the entropies'
        wanted = [hidden, *head.parameters()]
        pick = len(ends) if ends.dim() == 2 else 1
        rows = ends.reshape(-1, 50)
        ours = torch.autograd.grad(
            [(f * w).sum() for f, w in zip(found[:pick], rows, strict=True)], wanted, retain_graph=True
        )
        theirs = torch.autograd.grad(
            [(f * w).sum() for f, w in zip(expected[:pick], rows, strict=True)], wanted, retain_graph=True
        )
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, atol=1e-4, rtol=1e-4)


def test_half_precision_is_that_of_a_plain_head() -> None:
    hidden, head, targets = made(False)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = logits.token_outputs(hidden, head, targets), plain(hidden, head, targets, 1.0)
    assert torch.allclose(found[0], expected[0], atol=1e-4)
    ours, theirs = (torch.autograd.grad(x[0].sum(), [hidden, head.weight]) for x in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm()) < 0.01 * float(other.norm())


def test_weights_that_stand_still_get_no_gradient() -> None:
    hidden, head, targets = made(True)
    head.requires_grad_(False)
    logits.token_outputs(hidden, head, targets)[0].sum().backward()
    assert hidden.grad is not None
    assert head.weight.grad is None


def test_kl_is_the_sum_over_the_vocabulary(chunk: int) -> None:
    hidden, head, _ = made(False)
    other, larger, _ = made(True)
    larger = nn.Linear(16, 98)  # with a pad token of its own
    p, q = torch.log_softmax(head(hidden) / 0.7, 1), torch.log_softmax(larger(other * 2) / 0.7, 1)[:, :97]
    found = logits.kl((hidden, head), (other * 2, larger), temperature=0.7)
    assert torch.allclose(found, (p.exp() * (p - q)).sum(1), atol=1e-4)
    assert float(found.min()) > 0


def test_nothing_to_predict() -> None:
    hidden, head, targets = made(False)
    assert [len(found) for found in logits.token_outputs(hidden[:0], head, targets[:0])] == [0, 0, 0]
