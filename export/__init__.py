"""The compiler: adapter and weights in, one folded ONNX bundle out. numpy and onnx, no torch."""
