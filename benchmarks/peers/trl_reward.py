"""TRL's RewardTrainer."""

from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from benchmarks.peers.given import rows, tokenizer
from benchmarks.peers.probe import Probe, Result, answer, told
from benchmarks.peers.trl_trainer import Inputs, configured, train
from benchmarks.works import Job


def see(probe: Probe, inputs: Inputs) -> None:
    probe.saw(inputs["input_ids"], inputs["attention_mask"])


def run(job: Job) -> Result:
    """Train a reward model on pairs."""
    trainer = RewardTrainer(
        str(job.model("reward")),
        args=configured(RewardConfig, job, train_sampling_strategy="sequential"),
        train_dataset=rows(job),
        processing_class=tokenizer(job, "reward"),
    )
    return train(job, trainer, see)


if __name__ == "__main__":
    answer(run(told()))
