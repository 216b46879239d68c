"""PPO of TRL 1.12, the last that has it, from the folder that `--trl-ppo` names (it comes before any other TRL on the path)."""

import copy
import importlib

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from benchmarks.peers.given import encoded, rows, tokenizer
from benchmarks.peers.probe import Probe, Result, answer, told
from benchmarks.peers.trl_trainer import Marks, settings
from benchmarks.works import KL, Job


def prompts(job: Job) -> Dataset:
    """Prompts as token ids, which is how this trainer wants them."""
    reader = tokenizer(job, "actor")
    return Dataset.from_dict(
        {"input_ids": [encoded(reader, row["prompt"], answering=True) for row in rows(job).to_list()]}
    )


def run(job: Job) -> Result:
    """Sample and learn, with a critic that begins as the reward model does."""
    module = importlib.import_module("trl.experimental.ppo.ppo_trainer")
    work, probe, reader = job.of, Probe(job), tokenizer(job, "actor")
    reader.padding_side = "left"
    policy = AutoModelForCausalLM.from_pretrained(job.model("actor"), dtype=torch.float32)
    scorer = AutoModelForSequenceClassification.from_pretrained(job.model("reward"), dtype=torch.float32)
    given = {name: value for name, value in settings(job).items() if name != "max_steps"}
    args = module.PPOConfig(
        **given, num_mini_batches=2, num_ppo_epochs=4, total_episodes=work.batch * job.total, temperature=1.0,
        response_length=work.answer[1], kl_coef=KL, missing_eos_penalty=None, stop_token=None, num_sample_generations=0,
    )  # fmt: skip
    trainer = module.PPOTrainer(
        args, processing_class=reader, model=policy, ref_model=copy.deepcopy(policy), reward_model=scorer,
        value_model=copy.deepcopy(scorer), train_dataset=prompts(job), callbacks=[Marks(probe)],
    )  # fmt: skip
    forward = module.forward

    def seen(model: torch.nn.Module, tokens: Tensor, pad: int) -> object:
        if torch.is_grad_enabled():  # else it is a rollout
            answers = torch.arange(tokens.shape[1]) >= tokens.shape[1] - work.answer[1]
            probe.saw(tokens, tokens != pad, answers.expand_as(tokens))
        return forward(model, tokens, pad)

    setattr(module, "forward", seen)  # noqa: B010
    trainer.train()
    return probe.report(metrics=[name for entry in trainer.state.log_history for name in entry])


if __name__ == "__main__":
    answer(run(told()))
