"""Backbones: networks with named sites where tokens can be reduced."""
