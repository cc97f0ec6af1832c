"""The core: networks, training and model files on NumPy and the native engine."""
