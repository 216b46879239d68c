"""What can go wrong, by who can mend it. Every message reads `where: what is wrong; what is allowed; how to fix`."""


class AccordError(Exception):
    """An error that the command line prints as one message, without a traceback."""

    exit_code = 2

    def __init__(self, where: str, *said: str) -> None:
        super().__init__(where, *said)

    def __str__(self) -> str:
        where, *said = map(str, self.args)
        return f"{where}: {'; '.join(said)}" if said else where


class RecipeError(AccordError, ValueError):
    """The recipe asks for something that does not exist or does not fit together."""


class DataError(AccordError, ValueError):
    """A row, a file or a data function does not hold what a stage needs."""


class ModelError(AccordError, ValueError):
    """A model or tokenizer cannot be used for what the stage needs."""


class EngineError(AccordError, RuntimeError):
    """The machine gave out: disk, memory, device, network."""

    exit_code = 3


class CheckFailed(AccordError):
    """A check or a bar that the user set did not hold."""

    exit_code = 1


class Interrupted(AccordError):
    """Stopped by SIGINT or SIGTERM after saving the state."""

    exit_code = 130


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory gave out: PyTorch says so in words, and has a type for it on GPUs alone."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error))
