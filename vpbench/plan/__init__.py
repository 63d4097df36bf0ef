"""What was asked for becomes a list of cells. Knows no torch, so that a mistake answers at once."""

from vpbench.plan.cell import PROFILES, Cell, Profile, Setting, Value
from vpbench.plan.expand import cells, groups, parameter_sets, parameters, setting
from vpbench.plan.identity import Digests
from vpbench.plan.request import Mode, Options, options, read_config

__all__ = [
    "PROFILES",
    "Cell",
    "Digests",
    "Mode",
    "Options",
    "Profile",
    "Setting",
    "Value",
    "cells",
    "groups",
    "options",
    "parameter_sets",
    "parameters",
    "read_config",
    "setting",
]
