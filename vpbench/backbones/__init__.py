"""Networks, a folder or file per family, and their weights; what each family offers are its ENTRIES."""

from pathlib import Path

#: the weights that come with the package
WEIGHTS = Path(__file__).resolve().parent / "weights"
