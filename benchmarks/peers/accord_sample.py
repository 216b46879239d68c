"""accord's sampler, run by the engine as the policy stage runs it."""

from accord.data.tokenizer import load_tokenizer, stop_ids
from accord.engine import Engine
from accord.model import load_policy
from accord.recipe import Compute
from accord.sampler import Ask
from accord.sampler.local import LocalSampler
from benchmarks.peers.probe import Probe, Result, answer, told
from benchmarks.peers.sampling import count, name, prompts
from benchmarks.works import SEED, Job


def run(job: Job) -> Result:
    """Answer all prompts in one batch, again and again."""
    probe, path, asked = Probe(job), str(job.model(name(job))), prompts(job)
    engine = Engine(Compute(device=job.device, precision=job.precision, threads=job.threads or None))
    tokenizer = load_tokenizer(path, "model")
    model = engine.place(load_policy(path, tokenizer, "model"))
    sampler = LocalSampler(model, tokenizer, stop_ids(tokenizer, path))
    for step in range(job.total):
        asks = [Ask(prompt=[], tokens=ask.tokens, number=step * len(asked) + i) for i, ask in enumerate(asked)]
        rollouts = engine.generate(sampler, asks, max_new_tokens=job.of.answer[1], temperature=1.0, seed=SEED)
        count(probe, asked, [rollout.tokens for rollout in rollouts])
    return probe.report()


if __name__ == "__main__":
    answer(run(told()))
