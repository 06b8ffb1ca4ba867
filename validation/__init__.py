"""Evidence: what a model package is worth on labelled images, through the code path of the node. Imports no torch."""

import os

# ONNX Runtime reads it when it is imported, and would tell its maker that it is used.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
