"""When an update must not be taken: numbers that are not finite, spikes, too little memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean, pstdev

from accord.errors import EngineError, out_of_memory

WINDOW, ENOUGH = 128, 32  # updates to compare with, and the fewest that say anything


class NotFinite(EngineError):
    """The loss or the gradient is NaN or infinite; no step was taken."""


@dataclass
class Spikes:
    """Which updates to leave out: those whose loss or gradient norm is `limit` standard deviations above recent ones.

    OLMo 2 (https://arxiv.org/abs/2501.00656), section 3.2, leaves them out too, with 6. What was left out counts among the
    recent ones, so that a level that has changed for good is soon taken for what it is.
    """

    limit: float  # 0 = never
    seen: list[tuple[float, float]] = field(default_factory=list)

    def skips(self, loss: float, norm: float) -> bool:
        """Whether to leave this update out; remembers it."""
        if not self.limit:
            return False
        before = list(zip(*self.seen, strict=True))
        self.seen = [*self.seen, (loss, norm)][-WINDOW:]
        if len(self.seen) <= ENOUGH:
            return False
        return any(
            value > fmean(past) + self.limit * pstdev(past) for value, past in zip((loss, norm), before, strict=True)
        )


@contextmanager
def enough_memory(setting: str, value: int) -> Iterator[None]:
    """Turn a lack of memory into an error that says which setting to halve."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        said = f" ({str(error).splitlines()[0][:200]})" if str(error) else ""
        raise EngineError(
            "memory",
            f"there is not enough for {setting} = {value:,}{said}",
            f"try {setting} = {max(1, value // 2)}{'; results do not change' if setting.endswith('micro_tokens') else ''}. "
            "Where that is too small already: a smaller max_tokens, lora, or a smaller model",
        ) from error
