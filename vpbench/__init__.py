"""vpbench: the reference benchmark for video token pruning."""

from pathlib import Path

__version__ = "0.1.0"

#: the folder of the package, and the one above it: of a checkout, where `configs/` and `results/` lie beside it
PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent

# methods and datasets are links to the folders at the root; where links were not materialised, look at the root
if not (PACKAGE / "methods").is_dir():
    __path__.append(str(CHECKOUT))
