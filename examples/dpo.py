"""DPO on one page (Rafailov et al. 2023): the loop that a stage of kind `preference` runs, without the stage.

    python examples/dpo.py MODEL_FOLDER --data accord:demo/pairs --out runs/dpo

tests/test_examples.py holds the two equal, weight by weight.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from accord.data import prepare
from accord.data.batch import collate, order, step_count
from accord.data.tokenizer import load_tokenizer, pad_id
from accord.engine import Engine, schedule, seed_all
from accord.model import context_of, load_config, load_policy, save_model
from accord.objectives.preference import dpo
from accord.outputs import Roles
from accord.recipe import Compute, PreferenceOptim, Source


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    engine = Engine(Compute(device=args.device))
    optim = PreferenceOptim(lr=args.lr, batch_size=args.batch_size)
    seed_all(args.seed)

    # 1. Pairs become groups of two rows, chosen and rejected: the prompt, and the answer that the train mask covers.
    tokenizer = load_tokenizer(args.model, "model")
    loaded, _ = prepare.load([Source(source=args.data)], None, "data")
    limits = prepare.Limits(context_of(load_config(args.model, "model")))
    groups, _ = prepare.pairs(loaded, tokenizer, limits, "data")
    pad = pad_id(tokenizer)

    # 2. The reference is the model as it comes in. It stands still, so its log-probs are computed once and for all.
    reference = Roles(policy=engine.place(load_policy(args.model, tokenizer, "model")))
    logp = np.zeros(len(groups.tokens), np.float32)  # of each token of the answers, in nats; 0 elsewhere
    first_pass = islice(order(len(groups), optim.batch_size, seed=args.seed), math.ceil(len(groups) / optim.batch_size))
    for some in map(groups.select, first_pass):
        batch = collate(some, pad)
        out = engine.outputs(reference, batch, ["logp"], micro_tokens=optim.micro_tokens)
        logp[some.places()] = out.logp[batch.attend].numpy()
    groups = groups.with_tokens("ref_logp", logp)
    del reference

    # 3. The policy and its optimizer.
    policy = load_policy(args.model, tokenizer, "model")
    learner = engine.learner(Roles(policy=policy), optim)

    # 4. A batch of pairs, a step down the loss: -log sigmoid of beta times what the policy has learned to prefer.
    total = step_count(len(groups), optim.batch_size, epochs=args.epochs, steps=args.steps)
    batches = order(len(groups), optim.batch_size, seed=args.seed)
    for step, index in enumerate(islice(batches, total)):
        learner.set_lr(schedule(optim, step, total))
        batch = collate(groups.select(index), pad)
        numbers = engine.update(learner, batch, dpo, {"beta": args.beta})
        print(
            f"step {step + 1}/{total}  loss {numbers['loss']:.4f}  accuracy {numbers['accuracy']:.3f}  "
            f"margin {numbers['margin']:+.3f}  chosen {numbers['chosen_logp']:.1f}  rejected {numbers['rejected_logp']:.1f}"
        )

    # 5. A folder that plain transformers opens.
    save_model(policy, tokenizer, Path(args.out) / "model")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a chat model on preferences with DPO.")
    parser.add_argument("model", help="folder or hub id of the model to start from; also the reference")
    parser.add_argument("--data", default="accord:demo/pairs", help="pairs: hub id, file, file.py:fn (%(default)s)")
    parser.add_argument("--out", default="runs/dpo", help="the model goes to OUT/model (%(default)s)")
    parser.add_argument("--beta", type=float, default=0.1, help="how strongly the reference holds (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-6, help="peak learning rate (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="pairs per step (%(default)s)")
    parser.add_argument("--epochs", type=float, help="passes over the pairs (1)")
    parser.add_argument("--steps", type=int, help="steps, instead of epochs")
    parser.add_argument("--seed", type=int, default=0, help="decides the order of the pairs (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (%(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
