"""Fit, validate and export models. The only package that imports torch; the node runs without it."""

import os

# ONNX Runtime reads it when it is imported, and would tell its maker that it is used.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
