"""Code of a registered model: preprocessing, networks, classifier, pyfunc.

Training uses this package, and every registered model contains a copy of it. It therefore imports only torch,
torchvision, timm, Pillow, safetensors, NumPy, pandas and MLflow, and its own modules by relative imports.
"""
