"""RMS norms and GELU in few passes are those of plain transformers, and so are their gradients."""

from __future__ import annotations

import pytest
import torch
from test_packed import tiny
from torch import Tensor

from accord.norm import quicken


def found(norm: torch.nn.Module, values: Tensor) -> list[Tensor]:
    """The output under weights of its own, and the gradients."""
    norm.weight.data = torch.linspace(0.5, 2, norm.weight.numel())
    out = norm(values)
    total = (out.float() * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum()
    return [out.float(), *torch.autograd.grad(total, [values, norm.weight])]


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_values_and_gradients_are_those_of_plain_transformers(kind: str, half: bool) -> None:
    model, plain = tiny(kind, "sdpa", scorer=False), tiny(kind, "sdpa", scorer=False)
    quicken(model)
    values = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        ours, theirs = (found(each.base_model.norm, values) for each in (model, plain))
        assert model.base_model.norm(values).dtype == (torch.bfloat16 if half else torch.float32)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=0.01 if half else 1e-5, atol=0.01 if half else 1e-5)
    wanted = sum("norm" in name for name, _ in plain.named_modules())
    assert sum("forward" in vars(module) for module in model.modules()) == wanted


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_gelu_is_that_of_plain_transformers_and_keeps_its_input_alone(half: bool) -> None:
    model, plain = tiny("gpt2", "sdpa", scorer=False), tiny("gpt2", "sdpa", scorer=False)
    quicken(model)
    dtype = torch.bfloat16 if half else torch.float32
    values = torch.linspace(-6, 6, 300, dtype=dtype).requires_grad_()
    found: list[tuple[Tensor, Tensor]] = []
    kept: list[list[int]] = []
    for each in (model, plain):
        act, sizes = next(part for name, part in each.named_modules() if name.endswith("mlp.act")), list[int]()
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            out = act(values)
        found.append((out, torch.autograd.grad(out.float().sum(), values)[0]))
        kept.append(sizes)
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=0.02 if half else 1e-5, atol=0.02 if half else 1e-5)
    assert kept[0] == [300]
    assert kept[1].count(300) >= 4
