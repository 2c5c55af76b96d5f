"""Resolves dataset names, paths and URLs to local folders.

    download, archives, object_store  ->  builtin, torchvision, huggingface  ->  open

PyTorch, torchvision and `datasets` are imported only when a dataset that needs them is written to the cache.
"""
