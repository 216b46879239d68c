"""The models that a stage names, by their shapes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from transformers import PretrainedConfig

from accord import lora
from accord.data.tokenizer import load_tokenizer
from accord.functions import is_reference
from accord.model import load_config
from accord.plan.reading import start_of
from accord.plan.shapes import Shape
from accord.recipe import Lora, Policy, Reward, Rewards
from accord.stages.check_models import model_path
from accord.stages.fit import Context


@dataclass(frozen=True)
class Models:
    """The models that one stage names, by their shapes."""

    context: Context

    def shape(
        self, reference: str | None, *, scorer: bool = False, train: Lora | None = None, learning: int | None = None
    ) -> Shape:
        """That of a model, without a name of the one that the stage starts from."""
        stage = self.context.run.recipe.stage[self.context.name]
        path = self.context.path(reference) if reference else start_of(self.context, stage)
        config = config_of(path, self.context.where)
        return Shape(config, scorer, train, learning if learning and learning < config.num_hidden_layers else None)

    def trunk(self, reference: str) -> str:
        """The weights that a model's adapter stands on; the model itself where it has none."""
        stages = self.context.run.recipe.stage
        while reference.startswith("@") and getattr(stage := stages[reference[1:]], "lora", None):
            reference = str(getattr(stage, "model", ""))
        if reference.startswith("@"):
            return reference
        adapter = lora.find(model_path(reference), self.context.where)
        return adapter.base if adapter else str(model_path(reference))

    def shares(self, stage: Policy, reference: str) -> bool:
        """Whether a model beside the policy is a view of its weights."""
        return stage.lora is not None and self.trunk(reference) == self.trunk(stage.model)

    def scorers(self, rewards: Rewards) -> list[tuple[str, Shape]]:
        """Every member of the reward models among rewards, with the reference of its model."""
        found: list[tuple[str, Shape]] = []
        for name in [name for name in rewards if not is_reference(name)]:
            stage = self.context.run.recipe.stage[name[1:]] if name.startswith("@") else None
            count = stage.ensemble if isinstance(stage, Reward) else len(self.context.members(name))
            found += [(name, self.shape(name, scorer=True))] * count
        return found


@cache
def config_of(path: str, where: str) -> PretrainedConfig:
    """A model's configuration, with a row of embeddings for every token."""
    config = load_config(path, where)
    config.vocab_size = max(config.vocab_size, len(load_tokenizer(path, where)))
    return config
