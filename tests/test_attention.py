"""Attention under accord's name: without a layout it is transformers' own, with one it is the layout's."""

from __future__ import annotations

import pytest
import torch
from test_packed import tiny
from torch import Tensor

from accord.attention import KNOWN, NAME, laid_out


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_without_a_layout_attention_is_plain_transformers(kind: str) -> None:
    tokens = torch.randint(2, 97, (3, 17), generator=torch.Generator().manual_seed(0))
    attend = torch.ones_like(tokens)
    attend[1, :5] = 0
    kept = attend.bool()
    ours = tiny(kind, NAME, scorer=False)(input_ids=tokens, attention_mask=attend).logits
    theirs = tiny(kind, "sdpa", scorer=False)(input_ids=tokens, attention_mask=attend).logits
    assert torch.equal(ours[kept], theirs[kept])


class Itself:
    """Every token sees itself alone, so it reads its own value."""

    def __init__(self) -> None:
        self.layers: list[int] = []

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, layer: int, scale: float) -> Tensor:
        assert scale == pytest.approx(query.shape[-1] ** -0.5)
        self.layers.append(layer)
        return value.repeat_interleave(query.shape[1] // key.shape[1], 1).transpose(1, 2)


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_every_layer_attends_by_the_layout(kind: str) -> None:
    model = tiny(kind, NAME, scorer=False)
    tokens = torch.randint(2, 97, (1, 9), generator=torch.Generator().manual_seed(0))
    layout = Itself()
    together = model(**laid_out(tokens, torch.arange(9)[None], layout)).logits
    assert layout.layers == list(range(model.config.num_hidden_layers))
    alone = [model(**laid_out(tokens[:, [i]], torch.tensor([[i]]), Itself())).logits for i in range(9)]
    assert torch.allclose(together, torch.cat(alone, dim=1), atol=1e-5)
