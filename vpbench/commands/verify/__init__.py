"""Run our methods on parity cases, and compare every tensor with what the published implementations computed."""
