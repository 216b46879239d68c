"""What code computes and holds, counted by running it on tensors that have shapes and no numbers.

So the code that will run is what is counted, not a formula beside it. Such a fake tensor takes no memory, whatever its size
(https://docs.pytorch.org/docs/stable/torch.compiler_fake_tensor.html).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary
from transformers import PreTrainedModel

PICKING = {"embedding", "index", "index_select", "gather"}  # read what they write, however large the table is
# Fused attention on a CPU, which PyTorch's table of operations lacks, and how many matrix products each has.
FUSED = {"_scaled_dot_product_flash_attention_for_cpu": 2, "_scaled_dot_product_flash_attention_for_cpu_backward": 5}
# What operators give that PyTorch cannot run on fake tensors: a weight in oneDNN's order is as large as before; and of which
# numbers are not 0, nobody knows: of none, so that no answer ends.
STAND_INS: dict[str, Callable[[Tensor], Tensor]] = {
    "mkldnn::_reorder_linear_weight": torch.empty_like,
    "aten::nonzero": lambda x: torch.empty(0, x.ndim, dtype=torch.int64),
}


@dataclass(frozen=True)
class Work:
    """What there is to compute, on whatever machine."""

    float32: float = 0.0  # operations of matrix products; a product and a sum are two
    bfloat16: float = 0.0
    operands: float = 0.0  # bytes that these products read and write
    moved: float = 0.0  # bytes that everything else reads and writes
    calls: float = 0.0  # operators that are started

    def __add__(self, other: Work) -> Work:
        return Work(
            self.float32 + other.float32, self.bfloat16 + other.bfloat16, self.operands + other.operands,
            self.moved + other.moved, self.calls + other.calls,
        )  # fmt: skip

    def __mul__(self, times: float) -> Work:
        return Work(*(value * times for value in vars(self).values()))


def without_memory(model: PreTrainedModel) -> PreTrainedModel:
    """A model on the meta device as one of fake weights on the CPU, of float32."""
    model.float()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
    model.tie_weights()
    return model


class Counter(TorchDispatchMode):
    """Counts, while it is entered, the work done and the bytes alive beside the weights and gradients of `held`."""

    def __init__(self, *held: nn.Module) -> None:
        super().__init__()
        self.work = Work()
        self.alive = self.peak = 0
        self._seen = WeakIdKeyDictionary()  # storages
        for weight in [weight for module in held for weight in [*module.parameters(), *module.buffers()]]:
            self._seen[weight.untyped_storage()] = True
            if weight.grad is not None:
                self._seen[weight.grad.untyped_storage()] = True

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:  # fmt: skip
        args = numbered(args) if func is torch.ops.aten.index.Tensor else args
        first = args[0] if args else None
        stand_in = STAND_INS.get(func.name()) if isinstance(first, FakeTensor) else None
        out = stand_in(cast(Tensor, first)) if stand_in else func(*args, **(kwargs or {}))
        given, made = list(tensors([*args, *(kwargs or {}).values()])), list(tensors([out]))
        for tensor in made:
            self._hold(tensor)
        if func.namespace != "prim":  # where a fake tensor is: a real one is not asked
            self.work += work_of(func, args, kwargs or {}, out, given, made)
        return out

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        self._seen[storage] = True
        self.alive += storage.nbytes()
        weakref.finalize(storage, self._let_go, storage.nbytes())
        self.peak = max(self.peak, self.alive)

    def _let_go(self, size: int) -> None:
        self.alive -= size


def work_of(
    func: OpOverload, args: Sequence[object], kwargs: Mapping[str, object], out: object, given: Sequence[Tensor],
    made: Sequence[Tensor],
) -> Work:  # fmt: skip
    """The work of one operator, of the tensors that it was given and has made. A view costs its call."""
    if func.is_view:
        return Work(calls=1)
    name = func.overloadpacket.__name__
    written = sum(map(size_of, made))
    bytes_ = 2 * written if name in PICKING else written + sum(map(size_of, given))
    operations = 0.0
    if func.overloadpacket in flop_registry:
        operations = flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
    elif name in FUSED:
        query, key = given[1:3] if name.endswith("backward") else given[:2]
        operations = 2.0 * FUSED[name] * query.numel() * key.shape[-2]
    elif name == "_linear_pointwise":  # oneDNN's product of the input and a weight, [out, in]
        operations = 2.0 * given[0].numel() * given[1].shape[0]
    if not operations:
        return Work(moved=bytes_, calls=1)
    if made[0].dtype == torch.bfloat16:
        return Work(bfloat16=operations, operands=bytes_, calls=1)
    return Work(float32=operations, operands=bytes_, calls=1)


def numbered(args: Sequence[object]) -> tuple[object, ...]:
    """The arguments of an indexing with masks as numbers: how many a mask picks a fake tensor would not tell."""
    values, places = args
    found: list[Tensor | None] = []
    for place in cast(Sequence[Tensor | None], places):
        masks = place is not None and place.dtype == torch.bool and not isinstance(place, FakeTensor)
        found += place.nonzero(as_tuple=True) if place is not None and masks else [place]
    return values, found


def tensors(values: Iterable[object]) -> Iterator[Tensor]:
    """The tensors among the arguments or results of an operator, also those in lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)


def size_of(tensor: Tensor) -> int:
    """Bytes of the numbers in a tensor."""
    return tensor.numel() * tensor.element_size()
