"""What TRL's trainers have in common here: settings, and what is watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks.peers.probe import Probe, Result
from benchmarks.works import LR, SEED, Job

Inputs = dict[str, Tensor]
Config = TypeVar("Config")


class Trained(Protocol):
    """What is asked of a trainer."""

    state: TrainerState

    def train(self) -> object: ...
    def add_callback(self, callback: TrainerCallback) -> None: ...


class Marks(TrainerCallback):
    """Marks the end of each step."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.probe.mark()


def settings(job: Job) -> dict[str, object]:
    """Arguments of every trainer: TRL's best for a processor (autocast, no checkpointing), and what both sides are given."""
    return {
        "output_dir": job.out, "per_device_train_batch_size": job.of.batch, "gradient_accumulation_steps": 1,
        "max_steps": job.total, "learning_rate": LR[job.of.method], "lr_scheduler_type": "constant",
        "weight_decay": 0.0, "max_grad_norm": 1.0, "bf16": job.precision == "bfloat16",
        "gradient_checkpointing": False, "logging_steps": 1, "save_strategy": "no", "report_to": [],
        "disable_tqdm": True, "use_cpu": job.device == "cpu", "seed": SEED,
    }  # fmt: skip


def configured(kind: Callable[..., Config], job: Job, **more: object) -> Config:
    """A trainer's configuration: the common settings and its own."""
    return kind(**settings(job), **more)


def train(job: Job, trainer: Trained, see: Callable[[Probe, Inputs], None]) -> Result:
    """Train with a look at what each loss is computed from."""
    probe = Probe(job)
    trainer.add_callback(Marks(probe))
    compute_loss: Callable[..., object] = getattr(trainer, "compute_loss")  # noqa: B009  (a method of every trainer but PPO's)

    def seen(model: object, inputs: Inputs, *rest: object, **named: object) -> object:
        see(probe, inputs)
        return compute_loss(model, inputs, *rest, **named)

    setattr(trainer, "compute_loss", seen)  # noqa: B010
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    return probe.report(
        losses=[entry["loss"] for entry in logged], metrics=[name for entry in logged for name in entry]
    )
