"""The one place for devices, precision and processes. Stages see: update, outputs, kl, save, state; never a rank.

Every process holds the whole batch and works on its share of the micro-batches, so counts need no communication and the
gradient is that of the whole batch, whatever the number of processes or the token budget.
"""

from __future__ import annotations

import math
import os
import random
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeVar, cast

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from accord import processes
from accord.data.batch import Batch
from accord.errors import EngineError
from accord.health import NotFinite, Spikes, enough_memory
from accord.lora import own_parameters
from accord.machine import device_of, give_back, keep_memory, precision_of, process_count
from accord.model import checkpoint_layers, narrow, score_head
from accord.objectives import Objective
from accord.outputs import Output, Outputs, Roles, packs, token_kl
from accord.recipe import Compute, Decoding, Optim
from accord.run import write_folder
from accord.sampler import PLAIN, Ask, Rollout, Sampler

Item = TypeVar("Item")


@dataclass
class Learner:
    """Models under training with their optimizer. Roles whose name is in `resting` stand still in an update."""

    roles: Roles
    module: nn.Module  # `roles`, wrapped for the device and the processes
    optimizer: torch.optim.Optimizer
    clip: float
    micro_tokens: int
    spikes: Spikes
    resting: set[str] = field(default_factory=set)

    def trained(self) -> list[str]:
        """The names of the weights that do not stand still."""
        named = self.roles.named_parameters(remove_duplicate=False)
        return [name for name, weight in named if weight.requires_grad]

    def set_lr(self, factor: float) -> float:
        """Scale every group's peak learning rate by `factor`; returns the first group's."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0 if group["role"] in self.resting else group["peak"] * factor
        return float(self.optimizer.param_groups[0]["peak"] * factor)


@dataclass(frozen=True)
class Part:
    """What an update adds up: batches, each under an objective of its own. Numbers of a named one go as `name/...`."""

    batch: Batch
    objective: Objective
    params: dict[str, object] = field(default_factory=dict)
    weight: float = 1.0
    name: str = ""
    of_more: bool = False  # one of the parts of an objective

    def parted(self) -> list[Part]:
        """The parts of its objective."""
        divided = self.objective.divided(self.params)
        return [replace(self, objective=part, params=params, of_more=True) for part, params in divided]


@dataclass
class Progress:
    """How far a stage is, and what it must remember beyond weights (controller, best checkpoint), to go on after a stop."""

    step: int = 0
    memory: dict[str, object] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)  # of the log files at that step


class Engine:
    """Runs forward and backward passes on whatever the machine has."""

    def __init__(self, compute: Compute) -> None:
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # it warns of every new head, which is what a reward stage makes
        # oneDNN, and PyTorch around it, keep a compiled kernel for each shape they have met, 1,024 of each kind by default:
        # with ragged rows hundreds of megabytes.
        for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
            os.environ.setdefault(cache, "64")
        keep_memory()
        device = device_of(compute.device)
        threads = compute.threads or max(1, torch.get_num_threads() // process_count(compute))
        self.precision = precision_of(compute.precision, device)
        if not processes.group():  # what an earlier engine left: another precision, or processes that are gone
            AcceleratorState._reset_state(reset_partial_state=True)
        with warnings.catch_warnings():  # of the threads that it sets
            warnings.filterwarnings("ignore", "OMP_NUM_THREADS", UserWarning)
            self.accelerator = Accelerator(
                cpu=device == "cpu",
                mixed_precision="bf16" if self.precision == "bfloat16" else "no",
                # One process may work alone for hours (processes.apart) while the others wait.
                kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))],
            )
        torch.set_num_threads(threads)  # after accelerate, which has a mind of its own

    @property
    def device(self) -> torch.device:
        """Where models and batches go."""
        return self.accelerator.device

    @property
    def threads(self) -> int:
        """CPU threads of one operation; results are bit-equal only for the same number."""
        return torch.get_num_threads()

    @property
    def whole(self) -> bool:
        """Whether every process holds whole models, not shards of them."""
        return self.accelerator.distributed_type not in {DistributedType.FSDP, DistributedType.DEEPSPEED}

    def autocast(self) -> AbstractContextManager[None]:
        """Where a frozen model runs in the run's precision."""
        return self.accelerator.autocast()

    def release(self) -> None:
        """Give back to the machine what earlier learners held."""
        self.accelerator.free_memory()  # it would hold the models and optimizers of all of them
        give_back()

    # ------------------------------------------------------------------------------------------------------- training

    def learner(self, roles: Roles, optim: Optim, *, peaks: dict[str, float] | None = None) -> Learner:
        """Roles with an optimizer; `peaks` gives a role a learning rate of its own."""
        self.release()
        groups: list[dict[str, object]] = []
        seen: set[int] = set()
        for name, model in roles.named_children():
            if optim.checkpointing:
                checkpoint_layers(cast(PreTrainedModel, model))
            weights = [weight for weight in own_parameters(model) if id(weight) not in seen]
            seen |= {id(weight) for weight in weights}  # a head on the policy's trunk: the trunk is the policy's
            peak = (peaks or {}).get(name, optim.lr)
            groups.append({"params": weights, "role": name, "peak": peak, "lr": peak})
        optimizer = _optimizer(groups, optim)
        if processes.count() < self.accelerator.num_processes:  # alone for now: nobody to exchange gradients with
            module = self.accelerator.prepare_model(roles, evaluation_mode=True)
            prepared = self.accelerator.prepare_optimizer(optimizer)
        else:
            module, prepared = self.accelerator.prepare(roles, optimizer)
        return Learner(roles, cast(nn.Module, module), prepared, optim.clip, optim.micro_tokens, Spikes(optim.skip))

    def update(
        self,
        learner: Learner,
        batch: Batch,
        objective: Objective,
        params: dict[str, object],
        *,
        mix: Part | None = None,
    ) -> dict[str, float]:
        """One optimizer step on the gradient of the whole batch; returns the objective's metrics and `grad_norm`.

        `mix` adds the gradient of another batch under another objective. Raises NotFinite, before the step is taken,
        where loss or gradient are not finite.
        """
        whole = Part(batch, objective, params)
        # The batch goes last, and in one pass where there is more than one process: data-parallel wrappers exchange gradients
        # in the last pass, which must touch every weight.
        apart = objective.parts and processes.count() == 1 and not learner.roles.shared()
        parts = [*([mix] if mix else []), *(whole.parted() if apart else [whole])]
        totals: dict[str, Tensor] = {}
        for part in parts:
            with enough_memory("optim.micro_tokens", learner.micro_tokens):
                self._backward(learner, part, totals, exchange=part is parts[-1])
        numbers = self._sum(totals)
        limit = learner.clip or math.inf
        norm = float(cast(Tensor, self.accelerator.clip_grad_norm_(learner.module.parameters(), limit)))
        if not math.isfinite(numbers["loss"]) or not math.isfinite(norm):
            said = f"the loss is {numbers['loss']:.4g}, the norm of its gradient {norm:.4g}"
            raise NotFinite("update", said, "lower lr, or clip harder with optim.clip")
        skipped = learner.spikes.skips(numbers["loss"], norm)
        if not skipped:
            learner.optimizer.step()
        learner.optimizer.zero_grad(set_to_none=True)  # whatever comes before the next update has their memory
        return {**numbers, "grad_norm": norm, **({"skipped": float(skipped)} if learner.spikes.limit else {})}

    def _backward(self, learner: Learner, part: Part, totals: dict[str, Tensor], *, exchange: bool) -> None:
        """Add the gradient of this process's share of a part, and its numbers to `totals`.

        With `exchange` the gradients of all processes are added up in the last pass.
        """
        batch, objective, prefix = part.batch, part.objective, f"{part.name}/" if part.name else ""
        counts = {unit: max(count, 1) for unit, count in batch.counts().items()}  # nothing to train on: loss 0
        micros = batch.micro(learner.micro_tokens, processes.count(), packed=_packed(learner.roles))
        mine = _deal(micros, processes.count())[processes.index()]
        for i, (rows, weight) in enumerate(mine):
            last = exchange and i == len(mine) - 1
            with nullcontext() if last else self.accelerator.no_sync(learner.module):
                micro = batch.select(rows).to(self.device)
                out = Outputs(learner.module(micro, tuple(objective.outputs)))
                loss = objective(out, micro, **part.params)
                total = torch.stack([w * value / counts[unit] for value, unit, w in loss.terms.values()]).sum()
                _add(totals, "loss", total.detach() * (weight * part.weight))
                if part.name:
                    _add(totals, f"{prefix}loss", total.detach() * weight)
                for name, (value, unit) in loss.reported(part=part.of_more).items():
                    _add(totals, prefix + name, value.detach() * (weight / counts[unit]))
                for name, value in loss.extremes.items():
                    _stretch(totals, prefix + name, value)
                # Data-parallel wrappers average gradients over processes; the sum is wanted.
                self.accelerator.backward(total * (weight * part.weight * processes.count()))

    def _sum(self, totals: dict[str, Tensor]) -> dict[str, float]:
        """Numbers added up over the processes, fetched from the device in one go."""
        stacked = torch.stack([value.float() for value in totals.values()])
        if processes.count() == 1:
            return dict(zip(totals, stacked.tolist(), strict=True))
        every = cast(Tensor, self.accelerator.gather(stacked[None])).T.tolist()  # a row for each name
        return {name: reduction(name)(values) for name, values in zip(totals, every, strict=True)}

    # ------------------------------------------------------------------------------------------------------ inference

    def generate(
        self,
        sampler: Sampler,
        asks: Sequence[Ask],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        version: int = 0,
        decoding: Decoding = PLAIN,
    ) -> list[Rollout]:
        """One answer for each ask, in order; every process samples a share of them."""
        with self.autocast(), enough_memory("rollout.max_new_tokens", max_new_tokens):
            mine = sampler.generate(
                self._share(asks), max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, version=version,
                decoding=decoding,
            )  # fmt: skip
        shares = [iter(share) for share in processes.gather(mine)]
        return [next(shares[i % len(shares)]) for i in range(len(asks))]

    @torch.no_grad()
    def outputs(
        self, roles: Roles, batch: Batch, names: Sequence[Output], *, micro_tokens: int, precise: bool = False
    ) -> Outputs:
        """Outputs of the whole batch without gradients, each as `Outputs` has it, on the CPU; `precise` ones in float32."""

        def of(micro: Batch) -> dict[str, Tensor]:
            with nullcontext() if precise else self.autocast():
                return roles(micro, tuple(names))

        wide = score_head(roles.scorer).in_features if roles.scorer is not None and "feature" in names else 0
        widths = {"feature": wide, "reward": 1}
        return Outputs(self._map(batch, names, of, micro_tokens, packed=_packed(roles), widths=widths))

    @torch.no_grad()
    def kl(self, model: PreTrainedModel, reference: PreTrainedModel, batch: Batch, *, micro_tokens: int) -> Tensor:
        """Exact KL(model || reference) of each train token's distribution, [B, T] on the CPU, in nats."""

        def of(micro: Batch) -> dict[str, Tensor]:
            with self.autocast():
                return {"kl": token_kl(model, reference, micro)}

        packed = packs(model) and packs(reference)
        return self._map(batch, ["kl"], of, micro_tokens, packed=packed, widths={})["kl"]

    @torch.no_grad()
    def evaluate(
        self,
        roles: Roles,
        batches: Sequence[Batch],
        objective: Objective,
        params: dict[str, object],
        *,
        micro_tokens: int,
    ) -> dict[str, float]:
        """Loss and metrics over held-out batches, each averaged over all its units."""
        means: dict[str, float] = {}
        every = [batch.counts() for batch in batches]
        seen = {unit: sum(counts[unit] for counts in every) for unit in every[0]}
        for batch in batches:
            for rows in self._share(batch.micro(micro_tokens, processes.count(), packed=_packed(roles))):
                micro = batch.select(rows).to(self.device)
                with self.autocast():
                    loss = objective(Outputs(roles(micro, tuple(objective.outputs))), micro, **params)
                total = sum(weight * float(value) / seen[unit] for value, unit, weight in loss.terms.values())
                means["loss"] = means.get("loss", 0.0) + total
                for name, (value, unit) in loss.reported().items():
                    means[name] = means.get(name, 0.0) + float(value) / seen[unit]
        shares = processes.gather(means)
        return {name: sum(share.get(name, 0.0) for share in shares) for name in shares[0]}

    def _map(
        self, batch: Batch, names: Sequence[str], function: Callable[[Batch], dict[str, Tensor]], micro_tokens: int, *,
        packed: bool, widths: dict[str, int],
    ) -> dict[str, Tensor]:  # fmt: skip
        """Apply `function` to micro-batches and put the rows back in order, padded with 0 to the batch's width, or to that
        in `widths`."""
        whole = {name: torch.zeros(len(batch), widths.get(name, batch.tokens.shape[1])) for name in names}
        for rows in self._share(batch.micro(micro_tokens, processes.count(), packed=packed)):
            with enough_memory("micro_tokens", micro_tokens):
                found = function(batch.select(rows).to(self.device))
            for name, values in found.items():
                whole[name][rows, : values.shape[1]] = values.float().cpu()
        if processes.count() == 1:
            return whole
        # Each row is 0 everywhere but where it was computed.
        sums = {name: self.accelerator.reduce(values.to(self.device), "sum") for name, values in whole.items()}
        return {name: cast(Tensor, values).cpu() for name, values in sums.items()}

    def _share(self, items: Sequence[Item]) -> Sequence[Item]:
        """What this process does of work that needs no common backward pass."""
        return items[processes.index() :: processes.count()]

    def place(self, model: PreTrainedModel, *, inner: bool = False) -> PreTrainedModel:
        """A frozen model on the device; an `inner` one, which is read through `outputs` and `kl` alone, in less memory."""
        for weight in own_parameters(model):
            weight.requires_grad_(False)
        if inner and self.precision == "bfloat16" and packs(model):
            narrow(model, torch.bfloat16)
        return cast(PreTrainedModel, model.to(self.device))  # pyright: ignore[reportArgumentType]

    # ---------------------------------------------------------------------------------------------------------- state

    def save_state(self, learner: Learner, progress: Progress, folder: Path) -> None:
        """Weights (but those that stand still), optimizer, progress and random states, complete or not at all."""
        weights = learner.roles.state_dict()
        state = {
            "roles": {name: weights[name] for name in learner.trained()},
            "optimizer": learner.optimizer.state_dict(),
            "spikes": learner.spikes.seen,
            "progress": {"step": progress.step, "memory": progress.memory, "sizes": progress.sizes},
            "random": {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()},
        }
        write_folder(folder, lambda draft: torch.save(state, draft / "state.pt"), RuntimeError)

    def load_state(self, learner: Learner, folder: Path) -> Progress:
        """Go back to a saved state; a fresh Progress where there is none."""
        path = folder / "state.pt"
        if not path.exists():
            return Progress()
        try:
            # The file is this program's own; weights_only would refuse the random states in it.
            state = torch.load(path, map_location="cpu", weights_only=False)
        except (RuntimeError, EOFError, OSError, UnpicklingError) as error:
            raise EngineError(str(path), f"is damaged ({error})", f"remove {folder} to start the stage again") from None
        if missing := [name for name in learner.trained() if name not in state["roles"]]:
            said = f"lacks {len(missing)} of the weights that are trained, as {missing[0]}"
            raise EngineError(str(path), said, f"remove {folder} to start the stage again")
        learner.roles.load_state_dict(state["roles"], strict=False)  # those that stand still are not in it
        learner.optimizer.load_state_dict(state["optimizer"])
        learner.spikes.seen = state.get("spikes", [])
        torch.set_rng_state(state["random"]["torch"])
        np.random.set_state(state["random"]["numpy"])
        random.setstate(state["random"]["python"])
        return Progress(**state["progress"])


def seed_all(seed: int) -> None:
    """Seed every generator that libraries may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def schedule(optim: Optim, step: int, total: int) -> float:
    """The factor on the peak learning rate for the step after `step` steps: linear warm-up, then the chosen fall to 0."""
    warmup = optim.warmup if optim.warmup >= 1 else optim.warmup * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1.0, total - warmup)
    if optim.schedule == "linear":
        return 1 - done
    if optim.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0


def _add(totals: dict[str, Tensor], name: str, value: Tensor) -> None:
    totals[name] = totals[name] + value if name in totals else value


def _stretch(totals: dict[str, Tensor], name: str, value: Tensor) -> None:
    """Keep the larger, or the smaller, of two extremes."""
    further = torch.maximum if name.endswith("_max") else torch.minimum
    totals[name] = further(totals[name], value) if name in totals else value


def reduction(name: str) -> Callable[[list[float]], float]:
    """How shares of a number become one: extremes by their names, sums else."""
    return max if name.endswith("_max") else min if name.endswith("_min") else sum


def _deal(micros: list[Tensor], processes: int) -> list[list[tuple[Tensor, float]]]:
    """Micro-batches for each process, equally many: where they do not go round, a spare one counts with weight 0.

    Every process must run the same number of backward passes, or the others wait for it for ever.
    """
    shares = [[(rows, 1.0) for rows in micros[rank::processes]] for rank in range(processes)]
    most = len(shares[0])
    for share in shares:
        share += [(micros[-1], 0.0)] * (most - len(share))
    return shares


def _optimizer(groups: list[dict[str, object]], optim: Optim) -> torch.optim.Optimizer:
    if optim.name == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, weight_decay=optim.weight_decay)
    # Fused: one pass over the weights instead of several, three times as fast for a small model on a CPU.
    return torch.optim.AdamW(
        groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay, fused=True
    )


def _packed(roles: Roles) -> bool:
    """Whether all of them read tokens without padding."""
    return all(packs(cast(PreTrainedModel, model)) for model in roles.children())
