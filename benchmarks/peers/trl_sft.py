"""TRL's SFTTrainer."""

from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from benchmarks.peers.given import rows, tokenizer
from benchmarks.peers.probe import Probe, Result, answer, told
from benchmarks.peers.trl_trainer import Inputs, configured, train
from benchmarks.works import Job


def see(probe: Probe, inputs: Inputs) -> None:
    probe.saw(inputs["input_ids"], inputs["attention_mask"], inputs["labels"] != -100)


def run(job: Job) -> Result:
    """Train on the completions."""
    trainer = SFTTrainer(
        str(job.model("policy")),
        args=configured(SFTConfig, job, train_sampling_strategy="sequential"),
        train_dataset=rows(job),
        processing_class=tokenizer(job, "policy"),
    )
    return train(job, trainer, see)


if __name__ == "__main__":
    answer(run(told()))
