"""Resolves dataset names, paths and URLs to local folders.

Main modules, from low to high level: download, archives, object_store; builtin, torchvision, huggingface; open.

PyTorch, torchvision and `datasets` are imported only when a dataset that needs them is written to the cache.
"""
