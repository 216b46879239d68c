"""`python -m accord.stages RECIPE OUT [STAGE ...]`: a further process of a run that has been checked and begun.

Without arguments it waits for them, with all that it needs imported (`processes.ahead`).
"""

import os
import sys
import threading
import time
from pathlib import Path

from accord.processes import told
from accord.recipe_file import load
from accord.stages import run


def end_with(parent: int) -> None:
    """End this process when the one that started it is gone: it may be at work alone for hours."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    recipe, out, *only = sys.argv[1:] or told()
    run(load(Path(recipe)), Path(out), only=only, inspected=True)
