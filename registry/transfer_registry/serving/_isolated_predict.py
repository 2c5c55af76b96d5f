"""What `stranger` runs, by its path, in an interpreter of its own; never imported.

    python -I -B fresh_process.py REQUEST ANSWER      both JSON files

It knows MLflow and the model, nothing else: the project cannot be imported even where it is installed.
"""

import base64
import gc
import json
import sys
from pathlib import Path

_BATCH = 15
"""Images in a call; of the largest that a model reads, no more fit into one."""


def _main(request: Path, answer: Path) -> None:
    for package in ("transfer_platform", "transfer_registry", "transfer_model"):
        sys.modules[package] = None  # type: ignore[assignment]  # how Python spells "this import fails"
    import mlflow
    import pandas as pd

    asked = json.loads(request.read_text(encoding="utf-8"))
    model = mlflow.pyfunc.load_model(asked["model_uri"])
    classes = model.metadata.metadata["classes"]
    rows: list[list[float]] = []
    for start in range(0, len(asked["images"]), _BATCH):
        contents = [Path(image).read_bytes() for image in asked["images"][start : start + _BATCH]]
        table = pd.DataFrame({"image": [base64.b64encode(content).decode() for content in contents]})
        for prediction in model.predict(table, params={"top_k": len(classes)}):
            found = {guess["label"]: guess["probability"] for guess in prediction["top"]}
            rows.append([found[name] for name in classes])
    answer.write_text(json.dumps({"classes": classes, "probabilities": rows}), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
    gc.freeze()  # or Python goes through all that torch has made before it ends
