"""Look: instance -> pixels -> tensor -> ONNX -> findings -> priority. Never imports the network."""
