"""The forward pass of known architectures with nothing in it but what a layout needs.

A step of decoding has few numbers and many operators, so what transformers does around each of them takes longer than most
of them. Here every layer is x <- x + out(read(heads(norm(x)))), x <- x + feed(norm(x)), all of whose weights were made ready
before. The residual stream has the precision of the weights, products that of autocast, norms and angles are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from accord import lora
from accord.attention import NAME, laid_out
from accord.norm import rms_norm
from accord.sampler.cache import Prompts, Rows
from accord.sampler.weights import Map, product

if TYPE_CHECKING:  # importing classes of transformers that nobody asked for takes seconds
    from transformers import GPT2LMHeadModel, LlamaForCausalLM
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm
    from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

ROOTS = {"GPT2LMHeadModel", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
PARTS = {
    nn.Linear,
    Conv1D,
    nn.Embedding,
    nn.LayerNorm,
    nn.ModuleList,
    nn.Dropout,
}  # beside those of an architecture's own
PRECISIONS = {torch.float32, torch.bfloat16, torch.float16}


class Forward(Protocol):
    """Logits of tokens, [N], at positions, [N]: [N, V], or with `last` of those tokens alone, [P, V]."""

    def __call__(
        self, tokens: Tensor, positions: Tensor, layout: Prompts | Rows, last: Tensor | None = None
    ) -> Tensor: ...


@contextmanager
def ready(model: PreTrainedModel) -> Iterator[tuple[Forward, torch.dtype]]:
    """A model's forward pass over a layout, and the precision of keys and values.

    It is transformers' own where a model is not what its class says: where parts are replaced, or have hooks.
    """
    device = model.device.type
    cast_to = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    dtype = cast_to or model.dtype
    if plain(model):
        with torch.autocast(device, enabled=False):
            yield (gpt2 if type(model).__name__ == "GPT2LMHeadModel" else llama)(model, dtype), dtype
        return
    attention = model.config._attn_implementation or "eager"
    try:
        model.set_attn_implementation(NAME)
        yield partial(_whole, model), dtype
    finally:
        model.set_attn_implementation(attention)


def _whole(
    model: PreTrainedModel, tokens: Tensor, positions: Tensor, layout: Prompts | Rows, last: Tensor | None = None
) -> Tensor:
    return model(**laid_out(tokens[None], positions[None], layout), logits_to_keep=0 if last is None else last).logits[
        0
    ]


def plain(model: PreTrainedModel) -> bool:
    """Whether a model is made of its architecture's own parts, beside adapters, and nothing listens to them."""
    if type(model).__name__ not in ROOTS or model.device.type not in {"cpu", "cuda"} or model.dtype not in PRECISIONS:
        return False
    homes = {type(model).__module__, "transformers.activations"}
    adapters = {part for held in model.modules() if isinstance(held, lora.Adapters) for part in held.modules()}
    return _listeners(model) == 2 * (lora.name_of(model) is not None) and all(
        (type(part) in PARTS or type(part).__module__ in homes)
        and _own(vars(part).get("forward"))
        and (part is model or _listeners(part) == sum(isinstance(child, lora.Adapters) for child in part.children()))
        for part in model.modules()
        if part not in adapters
    )


def _listeners(module: nn.Module) -> int:
    """How many hooks a module has: a view of a trunk has two, a layer with adapters has one."""
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def _own(forward: object) -> bool:
    """Whether what stands in for a module's forward pass, if anything, computes the same: accord's own does."""
    inner = (
        forward.func if isinstance(forward, partial) else forward.__func__ if isinstance(forward, MethodType) else None
    )
    return forward is None or (inner is not None and inner.__module__.split(".")[0] == "accord")


# ----------------------------------------------------------------------------------------------------- the forward pass


@dataclass(frozen=True)
class Layer:
    """One layer: [N, C] to [N, C], but for `heads`."""

    heads: Callable[[Tensor, Tensor], Sequence[Tensor]]  # [N, C], angles: q [N, H, D], k, v [N, K, D]
    out: Map  # from [N, H * D]
    feed: Map
    scale: float


@dataclass(frozen=True)
class Lean:
    """A decoder. `angles`: cos + i sin of positions, [N, 1, D / 2], where heads are turned by them."""

    embed: Callable[[Tensor, Tensor], Tensor]
    angles: Map
    layers: list[Layer]
    head: Map

    def __call__(self, tokens: Tensor, positions: Tensor, layout: Prompts | Rows, last: Tensor | None = None) -> Tensor:
        """As `Forward` says."""
        x = self.embed(tokens, positions)
        angles = self.angles(positions)
        for i, layer in enumerate(self.layers):
            read = layout.read(*layer.heads(x, angles), layer=i, scale=layer.scale).flatten(1)
            if last is not None and i == len(self.layers) - 1:  # nobody reads the other tokens any more
                x, read = x.index_select(0, last), read.index_select(0, last)
            x += layer.out(read)
            x += layer.feed(x)
        return self.head(x)


def gpt2(model: PreTrainedModel, dtype: torch.dtype) -> Lean:
    """Layer norms, learned positions (Radford et al. 2019)."""
    whole = cast("GPT2LMHeadModel", model)
    trunk, made = whole.transformer, partial(product, dtype=dtype, adapter=lora.name_of(model) or "")

    def norm(part: nn.LayerNorm) -> Map:
        return lambda x: functional.layer_norm(x, part.normalized_shape, part.weight, part.bias, part.eps).to(dtype)

    def layer(block: GPT2Block) -> Layer:
        attention, mlp = block.attn, block.mlp
        first, second, qkv = norm(block.ln_1), norm(block.ln_2), made([attention.c_attn])
        widen, narrow, shape = made([mlp.c_fc]), made([mlp.c_proj]), (-1, 3, attention.num_heads, attention.head_dim)
        return Layer(
            heads=lambda x, _: qkv(first(x)).view(shape).unbind(1),
            out=made([attention.c_proj]),
            feed=lambda x: narrow(mlp.act(widen(second(x)))),
            scale=attention.scaling,
        )

    last, head = norm(trunk.ln_f), made([whole.lm_head])
    return Lean(
        embed=lambda tokens, positions: trunk.wte(tokens) + trunk.wpe(positions),
        angles=lambda positions: positions,  # nobody asks
        layers=[layer(cast("GPT2Block", block)) for block in trunk.h],
        head=lambda x: head(last(x)),
    )


def llama(model: PreTrainedModel, dtype: torch.dtype) -> Lean:
    """RMS norms, heads turned by positions, gated layers (Touvron et al. 2023); of Qwen3 queries and keys are normed too.

    The two numbers that are turned together stand half a head apart. Here they are neighbours, one complex number.
    """
    whole = cast("LlamaForCausalLM", model)
    trunk, made = whole.model, partial(product, dtype=dtype, adapter=lora.name_of(model) or "")

    def norm(part: LlamaRMSNorm) -> Map:
        return lambda x: rms_norm(x, part.weight, part.variance_epsilon, dtype)

    def angles(positions: Tensor) -> Tensor:
        cos, sin = (
            x[0, :, None, : x.shape[-1] // 2] for x in trunk.rotary_emb(trunk.norm.weight.float(), positions[None])
        )
        return torch.complex(cos, sin)

    def layer(block: LlamaDecoderLayer) -> Layer:
        attention, mlp = block.self_attn, block.mlp
        size, count = attention.head_dim, attention.q_proj.out_features // attention.head_dim
        turning = count + attention.k_proj.out_features // size  # heads of queries and keys
        neighbours = torch.arange(size).view(2, -1).T.flatten()
        order = torch.arange(size * (2 * turning - count)).view(-1, size)
        order[:turning] = order[:turning, neighbours]
        qkv = made([attention.q_proj, attention.k_proj, attention.v_proj], order=order.flatten().to(model.device))
        first, second = norm(block.input_layernorm), norm(block.post_attention_layernorm)
        gate, up, down = (made([part]) for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        norms: Map | None = None
        if type(attention).__name__ == "Qwen3Attention":
            of_q, of_k = cast("Qwen3Attention", attention).q_norm, cast("Qwen3Attention", attention).k_norm
            weights = torch.cat([of_q.weight.expand(count, -1), of_k.weight.expand(turning - count, -1)])[:, neighbours]
            norms = partial(rms_norm, weight=weights, epsilon=of_q.variance_epsilon, precision=torch.float32)

        def heads(x: Tensor, turns: Tensor) -> Sequence[Tensor]:
            q_k, v = qkv(first(x)).view(len(x), -1, size).tensor_split([turning], dim=1)
            q_k = (norms(q_k) if norms else q_k).float().unflatten(-1, (-1, 2))
            turned = torch.view_as_real(torch.view_as_complex(q_k) * turns).flatten(2)
            return turned[:, :count], turned[:, count:], v

        def feed(x: Tensor) -> Tensor:
            x = second(x)
            return down(mlp.act_fn(gate(x)).mul_(up(x)))

        return Layer(heads=heads, out=made([attention.o_proj]), feed=feed, scale=attention.scaling)

    last, head = norm(trunk.norm), made([whole.lm_head])
    return Lean(
        embed=lambda tokens, _: trunk.embed_tokens(tokens),
        angles=angles,
        layers=[layer(cast("LlamaDecoderLayer", block)) for block in trunk.layers],
        head=lambda x: head(last(x)),
    )
