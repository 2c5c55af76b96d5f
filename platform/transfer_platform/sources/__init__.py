"""Dataset sources: from a name, path or URL to a local folder.

    download, archives, object_store  ->  embedded, torchvision, huggingface  ->  open

Importing these modules loads neither torch nor torchvision nor `datasets`; only writing a dataset of one of
these libraries into the cache does.
"""
