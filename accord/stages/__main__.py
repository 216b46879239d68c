"""`python -m accord.stages RECIPE OUT [STAGE ...]`: a further process of a run that has been checked and begun."""

import sys
from pathlib import Path

from accord.recipe_file import load
from accord.stages import run

if __name__ == "__main__":
    recipe, out, *only = sys.argv[1:]
    run(load(Path(recipe)), Path(out), only=only, inspected=True)
