"""From a recipe's source to train, validation and test: fetch, unpack, catalogue, split, load.

    fetching, archives  ->  embedded, torchvision_sets, huggingface_sets  ->  sources
    sources  ->  catalog  ->  splits  ->  dataset

Everything up to `splits` imports neither torch nor torchvision, so that checking a recipe stays quick;
only writing a data set of torchvision into the cache does, the first time.
"""
