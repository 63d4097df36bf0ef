"""The contract of methods and backbones: promises, each with its check, on tiny networks with random weights."""
