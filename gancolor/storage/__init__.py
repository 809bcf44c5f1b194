"""Models as files: checkpoints of a training, safetensors and ONNX."""
