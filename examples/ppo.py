"""PPO for language models on one page (Ziegler et al. 2019): the loop that a stage of kind `policy` runs, without the stage.

    python examples/ppo.py MODEL_FOLDER --reward REWARD_FOLDER --data accord:demo/prompts --out runs/ppo

The reward model reads the policy's tokens, as one made from it does. tests/test_examples.py holds this file and the stage
equal, weight by weight and word by word.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from accord.data import prepare
from accord.data.batch import minibatches, order, step_count
from accord.data.tokenizer import load_tokenizer, pad_id, stop_ids
from accord.engine import Engine, seed_all
from accord.model import context_of, load_config, load_policy, load_scorer, save_model
from accord.objectives.advantage import explained_variance, gae, token_rewards, whiten
from accord.objectives.policy import ppo
from accord.outputs import Roles
from accord.recipe import Compute, PolicyOptim, RewardTerm, Source
from accord.run import append
from accord.sampler import Ask, as_batch
from accord.sampler.local import LocalSampler
from accord.score.model import as_critic, open_reward


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    engine = Engine(Compute(device=args.device))
    optim = PolicyOptim(lr=args.lr, batch_size=args.batch_size)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    seed_all(args.seed)

    # 1. Four models: the policy that learns; the reference, which is the policy as it comes in and holds it back; the
    #    reward model; and the critic, which starts from the reward model on the scale of the normalised rewards.
    tokenizer = load_tokenizer(args.model, "model")
    policy = load_policy(args.model, tokenizer, "model")
    reference = Roles(policy=engine.place(load_policy(args.model, tokenizer, "model")))
    reward_model = open_reward(
        [args.reward], RewardTerm(), engine, micro_tokens=optim.micro_tokens, where="reward", tokenizer=tokenizer
    )
    critic = load_scorer(args.reward, tokenizer, "reward", seed=None)
    as_critic(critic)

    # 2. Policy and critic share one optimizer, each at a rate of its own.
    peaks = {"policy": optim.lr, "scorer": args.critic_lr or optim.lr}
    learner = engine.learner(Roles(policy=policy, scorer=critic), optim, peaks=peaks)
    sampler = LocalSampler(policy, tokenizer, stop_ids(tokenizer, args.model))

    # 3. Prompts that leave room for an answer.
    loaded, _ = prepare.load([Source(source=args.data)], None, "data")
    room = context_of(load_config(args.model, "model")) - args.max_new_tokens
    prompts = prepare.prompts(loaded, tokenizer, room=room, where="data")

    total = step_count(len(prompts), args.rollouts, epochs=args.epochs, steps=args.steps)
    for step, index in enumerate(islice(order(len(prompts), args.rollouts, seed=args.seed), total)):
        # 4. Sample. An answer's number, with the seed, decides its noise.
        asks = [
            Ask(prompt=prompts[j].prompt, tokens=prompts[j].tokens, number=step * args.rollouts + i, group=i)
            for i, j in enumerate(index)
        ]
        with engine.autocast():
            rollouts = sampler.generate(
                asks, max_new_tokens=args.max_new_tokens, temperature=args.temperature, seed=args.seed
            )

        # 5. Score. An answer that was cut off costs extra: with no price on it, not ending can pay.
        score = torch.tensor([judged.value for judged in reward_model(rollouts)])  # [B]
        cut = torch.tensor([rollout.finish == "length" for rollout in rollouts])
        shaped = score - args.missing_eos * cut

        # 6. What policy, critic and reference think of the answers. The old log-probs are the trainer's own and not the
        #    sampler's: the ratio must be exactly 1 before the first update.
        batch = as_batch(rollouts, pad_id(tokenizer), args.temperature)
        old = engine.outputs(learner.roles, batch, ["logp", "value"], micro_tokens=optim.micro_tokens)
        ref = engine.outputs(reference, batch, ["logp"], micro_tokens=optim.micro_tokens)

        # 7. Credit. Every token pays for its distance from the reference, the last one earns the score; GAE spreads it.
        reward = token_rewards(shaped, old.logp, ref.logp, batch.train, kl=args.kl)
        advantage = gae(reward, old.value, batch.train, gamma=args.gamma, lam=args.lam)
        returns = advantage + old.value
        batch.extra |= {
            "old_logp": old.logp,
            "ref_logp": ref.logp,
            "old_value": old.value,
            "return": returns,
            "advantage": whiten(advantage, batch.train),  # over the whole rollout batch, before it is split
        }

        # 8. A few passes over the answers in minibatches, each a step on the clipped losses of policy and critic.
        params = {"clip": args.clip, "value_coef": args.value_coef, "value_clip": args.value_clip}
        parts = minibatches(batch, args.batch_size, args.passes, seed=args.seed, step=step)
        updates = [engine.update(learner, part, ppo, params) for part in parts]

        # 9. Look at the numbers, and at what it says. KL is in nats per answer.
        kl = (old.logp - ref.logp).sum(1).mean()
        rows = [{"step": step + 1, "prompt": r.prompt, "response": r.text, "score": s}
                for r, s in zip(rollouts, score.tolist(), strict=True)]  # fmt: skip
        append(out / "samples.jsonl", rows)
        print(
            f"step {step + 1}/{total}  reward {score.mean():+.3f}  kl {kl:.3f}  "
            f"length {batch.train.sum() / len(batch):.1f}  finished {1 - cut.float().mean():.2f}  "
            f"explained {explained_variance(old.value[batch.train], returns[batch.train]):+.2f}  "
            f"clipped {np.mean([numbers['policy/clip_fraction'] for numbers in updates]):.3f}"
        )

    # 10. Folders that plain transformers opens.
    save_model(policy, tokenizer, out / "model")
    save_model(critic, tokenizer, out / "critic")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a chat model with PPO against a reward model.")
    parser.add_argument("model", help="folder or hub id of the model to start from; also the reference")
    parser.add_argument("--reward", required=True, help="folder of a reward model that reads the same tokens")
    parser.add_argument("--data", default="accord:demo/prompts", help="prompts: hub id, file, file.py:fn (%(default)s)")
    parser.add_argument("--out", default="runs/ppo", help="OUT/model, OUT/critic, OUT/samples.jsonl (%(default)s)")
    parser.add_argument("--rollouts", type=int, default=64, help="answers sampled per step (%(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="longest answer (%(default)s)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of sampling and log-probs (%(default)s)")
    parser.add_argument("--passes", type=int, default=2, help="over each batch of rollouts (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="rollouts per optimizer step (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-6, help="learning rate of the policy (%(default)s)")
    parser.add_argument("--critic-lr", type=float, help="learning rate of the critic (the policy's)")
    parser.add_argument("--kl", type=float, default=0.05, help="price of a nat from the reference (%(default)s)")
    parser.add_argument("--clip", type=float, default=0.2, help="range of the probability ratio (%(default)s)")
    parser.add_argument("--value-coef", type=float, default=0.1, help="weight of the value loss (%(default)s)")
    parser.add_argument("--value-clip", type=float, default=0.2, help="range around the old value (%(default)s)")
    parser.add_argument("--gamma", type=float, default=1.0, help="discount per token (%(default)s)")
    parser.add_argument("--lam", type=float, default=0.95, help="lambda of GAE (%(default)s)")
    parser.add_argument("--missing-eos", type=float, default=1.0, help="price of not ending (%(default)s)")
    parser.add_argument("--epochs", type=float, help="passes over the prompts (1)")
    parser.add_argument("--steps", type=int, help="rollout batches, instead of epochs")
    parser.add_argument("--seed", type=int, default=0, help="decides orders and noise (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (%(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
