"""TRL's DPOTrainer; the reference runs beside the policy, which was faster than computing it before (measured)."""

from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from benchmarks.peers.given import rows, tokenizer
from benchmarks.peers.probe import Probe, Result, answer, told
from benchmarks.peers.trl_trainer import Inputs, configured, train
from benchmarks.works import BETA, Job


def see(probe: Probe, inputs: Inputs) -> None:
    probe.saw(inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"])


def run(job: Job) -> Result:
    """Train on pairs."""
    trainer = DPOTrainer(
        str(job.model("policy")),
        args=configured(DPOConfig, job, beta=BETA, train_sampling_strategy="sequential"),
        train_dataset=rows(job),
        processing_class=tokenizer(job, "policy"),
    )
    return train(job, trainer, see)


if __name__ == "__main__":
    answer(run(told()))
