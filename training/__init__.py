"""Fit, validate and export models. The only package that imports torch; the node runs without it."""
