"""Row counts that products are rounded up to, on processors where one of a shape not met before is dear.

oneDNN compiles a kernel for every shape of a product in half precision. For a matrix unit (AMX) that takes 3 to 5 ms and a
megabyte, ten times as long as a product of a small model itself; with ragged rows no two micro-batches would have the same
number of tokens, and a third of a training step would be spent on it (docs/log.md).
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

LEAST = 16  # rows that a matrix unit takes at once
KERNELS = 128 if torch.cpu._is_amx_tile_supported() else 64  # that a process keeps; left to itself oneDNN keeps 1,024


def rounded(count: int, like: Tensor | PreTrainedModel) -> int:
    """How many rows to compute for `count` of them: in products of a model, or of hidden states like these, [N, width].

    Of the sizes between a power of two and the next there are as many as balance both costs: what is computed in vain grows
    with the square of the width, compiling does not.
    """
    if not dear(like):
        return count
    width = like.shape[-1] if isinstance(like, Tensor) else like.config.hidden_size
    step = max(LEAST, 2 ** ((count - 1).bit_length() - 1) // max(8, width // 48)) if count > 1 else LEAST
    return -(-count // step) * step


def dear(like: Tensor | PreTrainedModel) -> bool:
    """Whether compiling a product of this, or under autocast in its precision, takes longer than the product."""
    if like.device.type != "cpu" or not torch.cpu._is_amx_tile_supported():
        return False
    precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else like.dtype
    return precision in {torch.bfloat16, torch.float16}
