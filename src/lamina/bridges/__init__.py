"""Networks in and out of other libraries: ONNX, PyTorch, scikit-learn (each imported late)."""
