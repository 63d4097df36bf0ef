"""Protocols: how videos are evaluated, to the exact frame and pixel of the published code.

A protocol is a temporal rule (`temporal`) and a spatial rule (`spatial`), each a small object that can be used alone.
Listing and finding protocols imports no torch; resizing frames does.
"""

from vpbench.data.protocols.catalog import find, summaries

__all__ = ["find", "summaries"]
