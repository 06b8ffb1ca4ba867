"""Look: instance -> pixels -> tensor -> ONNX -> findings -> priority. Never imports the network."""

import os

# ONNX Runtime reads it when it is imported, and would tell its maker that it is used.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
