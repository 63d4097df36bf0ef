"""Protocols: how videos are evaluated, to the exact frame and pixel of the published code.

A protocol is a temporal rule (`temporal`) and a spatial rule (`spatial`), each a small object that can be used alone.
Listing and finding protocols imports no torch; resizing frames does.
"""

from vpbench.data.protocols.catalog import default, find, names, summaries
from vpbench.data.protocols.protocol import Plan, Protocol
from vpbench.data.protocols.shape import Shape

__all__ = ["Plan", "Protocol", "Shape", "default", "find", "names", "summaries"]
