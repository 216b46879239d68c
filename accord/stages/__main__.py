"""`python -m accord.stages RECIPE OUT [STAGE ...]`: a further process of a run that has been checked and begun."""

import os
import sys
import threading
import time
from pathlib import Path

from accord.processes import importing


def end_with(parent: int) -> None:
    """End this process when the one that started it is gone: it may be at work alone for hours."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    with importing():
        from accord.recipe_file import load
        from accord.stages import run

    recipe, out, *only = sys.argv[1:]
    run(load(Path(recipe)), Path(out), only=only, inspected=True)
