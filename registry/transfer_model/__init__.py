"""The thing that is registered: preprocessing, networks, the served classifier and its pyfunc.

Training builds on this package, and a copy of it travels inside every registered model. So it is
self-contained: it imports torch, torchvision, timm, Pillow, safetensors, numpy and mlflow, itself only by
relative imports, and nothing of the platform. Importing the package itself loads nothing.
"""
