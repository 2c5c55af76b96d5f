from __future__ import annotations

import importlib
import warnings

with warnings.catch_warnings():
    # MLflow warns of one of its own type hints while it is imported.
    warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
    importlib.import_module("mlflow.pyfunc")
