"""Dataset sources: resolve a name, path or URL to a local folder.

    download, archives, object_store  ->  builtin, torchvision, huggingface  ->  open

Torch, torchvision and `datasets` are imported lazily, when a dataset that needs them is written to the cache.
"""
