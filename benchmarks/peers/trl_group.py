"""TRL's GRPOTrainer and RLOOTrainer: several answers to a prompt, compared with each other."""

import torch
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from benchmarks.peers import letters
from benchmarks.peers.given import rows, tokenizer
from benchmarks.peers.probe import Probe, Result, answer, told
from benchmarks.peers.trl_trainer import Inputs, configured, train
from benchmarks.works import GROUP, KL, Job


def see(probe: Probe, inputs: Inputs) -> None:
    asked, said = inputs["prompt_mask"], inputs["completion_mask"]
    probe.saw(
        torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
        torch.cat([asked, said], 1),
        torch.cat([torch.zeros_like(asked), said], 1),
    )


def letter(completions: list[list[dict[str, str]]], **_: object) -> list[float]:
    """The function that rewards."""
    return [letters.share(turns[0]["content"]) for turns in completions]


def run(job: Job) -> Result:
    """Sample and learn; accord's defaults for the loss (the papers'), said in TRL's words."""
    common = {
        "beta": KL, "num_generations": GROUP, "max_completion_length": job.of.answer[1], "temperature": 1.0, "epsilon": 0.2,
        "shuffle_dataset": False,
    }  # fmt: skip
    judged = job.of.judge == "model"
    given = {
        "reward_funcs": str(job.model("reward")) if judged else letter,
        "reward_processing_classes": tokenizer(job, "reward") if judged else None,
        "train_dataset": rows(job),
        "processing_class": tokenizer(job, "actor"),
    }
    model = str(job.model("actor"))
    if job.of.method == "rloo":
        return train(job, RLOOTrainer(model, args=configured(RLOOConfig, job, **common), **given), see)
    args = configured(GRPOConfig, job, **common, loss_type="grpo", use_bias_correction_kl=False)
    return train(job, GRPOTrainer(model, args=args, **given), see)


if __name__ == "__main__":
    answer(run(told()))
