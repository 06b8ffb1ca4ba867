"""The commands of `opentriage`, one module each."""
