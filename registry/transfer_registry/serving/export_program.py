"""Writes the program that classifies images with an exported ONNX model.

classify.py             classifies image files
image_preprocessing/    the modules of the registered model that decode, crop and resize images; they need only NumPy
                        and Pillow

The program uses the registered model's own preprocessing code, so the ONNX model receives the same pixels.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

from transfer_model.model_json import ModelConfig
from transfer_registry.errors import RegistryError

PROGRAM_FILE = "classify.py"
PACKAGE = "image_preprocessing"

_ENTRIES = ("decode", "preprocessing")

_PROGRAM = """\
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from {package}.decode import decode
from {package}.errors import UnreadableImageError
{imports}from {package}.preprocessing import Preprocessing

preprocessing = {preprocessing}
session = onnxruntime.InferenceSession(Path(__file__).with_name("model.onnx"))
metadata = {{name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}}
for path in sys.argv[1:]:
    try:
        square = preprocessing.crop_and_resize(decode(Path(path){arguments}))
    except UnreadableImageError as error:
        sys.exit(str(error))
    probabilities, ood_scores = session.run(None, {{"images": np.asarray(square)[np.newaxis]}})
    by_class = dict(zip(metadata["classes"], probabilities[0].tolist()))
    label, unknown = max(by_class, key=by_class.get), float(ood_scores[0]) > metadata["threshold"]
    print(json.dumps({{"file": path, "label": label, "probabilities": by_class,
                      "ood_score": float(ood_scores[0]), "unknown": unknown}}))
"""


def program(config: ModelConfig) -> str:
    """Returns the source of `classify.py`."""
    intensity = config.preprocessing.intensity
    # Versions that were registered before `intensity` existed contain code without it.
    return _PROGRAM.format(
        package=PACKAGE,
        imports=f"from {PACKAGE}.intensity import Intensity\n" if intensity else "",
        preprocessing=repr(config.preprocessing).replace(", intensity=None", ""),
        arguments=", intensity=preprocessing.intensity" if intensity else "",
    )


def write_program(config: ModelConfig, model: Path, folder: Path) -> None:
    """Writes the program and the modules that it imports to an existing folder.

    Args:
        config: Configuration of the model.
        model: Folder of the registered MLflow model.
        folder: Folder of the export.

    Raises:
        RegistryError: The registered model contains no code.
    """
    code = next(model.glob("code/transfer_model_*/decode.py"), None)
    if code is None:
        raise RegistryError(f"{model} contains no code (code/transfer_model_*); register the model again")
    package = folder / PACKAGE
    package.mkdir()
    (package / "__init__.py").write_text('"""Decodes and resizes images as the registered model does."""\n', "utf-8")
    for module in sorted(_modules(code.parent)):
        shutil.copyfile(module, package / module.name)
    (folder / PROGRAM_FILE).write_text(program(config), encoding="utf-8")


def pinned(model: Path, *packages: str) -> str:
    """Returns the model's pinned requirements for the given packages, as arguments for `pip install`."""
    lines = (model / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return " ".join(line for line in lines if line.partition("==")[0] in packages)


def _modules(code: Path) -> set[Path]:
    """Returns the modules that read images, and all modules of the package that they import directly or indirectly."""
    found, pending = set[Path](), [code / f"{name}.py" for name in _ENTRIES]
    while pending:
        module = pending.pop()
        if module not in found:
            found.add(module)
            pending += [code / f"{name}.py" for name in _imported(module)]
    return found


def _imported(module: Path) -> Iterator[str]:
    """Yields the names of modules that a module imports from its own package, including imports inside functions."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from [node.module] if node.module else [alias.name for alias in node.names]
