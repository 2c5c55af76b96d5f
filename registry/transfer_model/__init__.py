"""Code shipped with every model: preprocessing, networks, classifier and pyfunc.

Training uses this package, and every registered model contains a copy of it. The package therefore depends only on
torch, torchvision, timm, Pillow, safetensors, NumPy, pandas and MLflow, and uses relative imports for its own modules.
"""
