"""Re-exported while methods name it here: their text is part of ids."""

from vpbench.api import FramePruner as FramePruner
