"""Re-exported while methods name it here: their text is part of ids."""

from vpbench.backbones.vitdet.head import Detections as Detections
