"""Published checkpoints become packages, without running anything that they contain."""
