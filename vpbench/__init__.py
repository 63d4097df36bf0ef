"""vpbench: the reference benchmark for video token pruning."""

from pathlib import Path

__version__ = "0.1.0"

# `methods` and `datasets` are committed links. A checkout whose links were not
# materialised (Windows without the symlink privilege) still finds both folders here.
_here = Path(__file__).resolve().parent
if not (_here / "methods").is_dir():
    __path__.append(str(_here.parent))
