"""Re-exported while methods name it here: their text is part of ids."""

from vpbench.backbones.vitdet import ViTDetConfig as ViTDetConfig
