"""Watch what a pruner really does to the tokens of a clip, from outside: methods and backbones know nothing of it."""
