"""Exported models, used as their README.md describes, in processes that cannot import this project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from transfer_model.architecture import Architecture, Options
from transfer_model.classifier import Classifier, save
from transfer_model.intensity import Intensity
from transfer_model.model_json import ModelConfig, OodThreshold
from transfer_model.network import NetworkSpec, build_network
from transfer_model.ood import OodScorer
from transfer_model.preprocessing import Preprocessing
from transfer_platform.cli import main
from transfer_platform.solvers.neighbors import neighbor_classifier

with warnings.catch_warnings():
    # MLflow warns of one of its own type hints while it is imported.
    warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
    from transfer_registry.serving.export import OPSET, TOLERANCE, export
from transfer_registry.serving.export_readme import safetensors_readme

if TYPE_CHECKING:
    from conftest import Registered

pytestmark = [
    # pandas warns MLflow of how it counts the rows of an input example.
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated")
]

ALONE = """
import os, runpy, sys
for package in ("transfer_platform", "transfer_registry", "transfer_model", *BLOCKED):
    sys.modules[package] = None
sys.argv = sys.argv[1:]
"""
ASK = """
import json, sys, torch
with torch.inference_mode():
    print(json.dumps(network(load_file(sys.argv[1])["image"]).tolist()))
"""
REPOSITORY = Path(__file__).parents[4]
LABELS = ("ants", "bees")
FAMILIES = ("timm/test_resnet", "timm/test_vit", "timm/test_convnext")


@pytest.fixture(scope="module")
def exported(registered: Registered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registered model as ONNX, used by most of these tests."""
    out = tmp_path_factory.mktemp("exported") / "ants-bees"
    command = ["export", str(registered.location), "--to", "onnx", "--out", str(out)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert f"to {out} (largest difference from torch on random images: " in done.output
    return out


@pytest.fixture(scope="module")
def val(photographs: Path) -> list[Path]:
    found = sorted((photographs / "val").rglob("*.jpg"))
    assert len(found) == 153
    return found


def snippet(folder: Path) -> str:
    """Returns the only program in a README.md."""
    (program,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    return str(program)


def run_isolated(script: str, folder: Path, *arguments: object, blocked: tuple[str, ...] = ()) -> str:
    """Output of a program in a process that can import neither the project nor `blocked`."""
    command = [sys.executable, "-I", "-c", ALONE.replace("BLOCKED", repr(blocked)) + script]
    done = subprocess.run([*command, *map(str, arguments)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def refused(*arguments: object) -> str:
    """Error message of `platform export`, which must exit with code 1 and without a traceback."""
    done = CliRunner().invoke(main, ["export", *map(str, arguments)])
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    return " ".join(done.output.split())


def small(
    backbone: Architecture | str,
    registered: Registered,
    folder: Path,
    temperature: float = 0.7,
    intensity: Intensity | None = None,
    neighbors: int = 0,
) -> Path:
    """Copies the registered model and replaces the network by one with random weights, 64 x 64 pixels.

    The head is linear, or stores 100 images, of which the given number of neighbors votes.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(NetworkSpec(backbone, len(LABELS), 0.0, 64)).eval()
        features: list[torch.Tensor] = []
        with torch.inference_mode(), network.register_feature_hook(features.append):
            network(torch.rand(4, 3, 64, 64))
        if neighbors:
            rows, labels = features[0].mean(dim=0) + torch.randn(100, network.features), torch.arange(100) % 2
            network.set_classifier(neighbor_classifier(rows, labels, torch.rand(100) + 0.1, neighbors, len(LABELS)))
    spec = network.spec
    prepare = Preprocessing(64, 1.0, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), intensity=intensity)
    description = ModelConfig(spec, LABELS, prepare, "float32", temperature, OodThreshold(0.1, 0.05))
    shutil.copytree(registered.location, folder, ignore=shutil.ignore_patterns("SHA256SUMS"))
    save(folder / "artifacts" / "model", description, network, OodScorer(features[0]))
    return folder


def classified(folder: Path, photos: list[Path]) -> list[dict[str, object]]:
    """Output of the program in the folder, with only its own requirements importable."""
    assert (folder / "classify.py").read_text() == snippet(folder)
    others = ("torch", "torchvision", "timm", "mlflow", "safetensors", "onnx")
    script = "sys.path.insert(0, os.path.dirname(sys.argv[0])); runpy.run_path(sys.argv[0])"
    output = run_isolated(script, folder.parent, folder / "classify.py", *photos, blocked=others)
    return [json.loads(line) for line in output.splitlines()]


def test_the_readmes_program_agrees_with_the_pyfunc_on_every_test_image(
    exported: Path, here: Registered, val: list[Path]
) -> None:
    pyfunc = mlflow.pyfunc.load_model("models:/ants-bees@champion")
    own = pyfunc.predict(pd.DataFrame({"image": [photo.read_bytes() for photo in val]}))
    answers = classified(exported, val)
    assert [answer["file"] for answer in answers] == [str(photo) for photo in val]
    for name in ("label", "unknown"):
        assert [answer[name] for answer in answers] == [answer[name] for answer in own]
    probabilities = [[answer["probabilities"][label] for label in LABELS] for answer in answers]
    tops = [{guess["label"]: guess["probability"] for guess in answer["top"]} for answer in own]
    expected = [[top[label] for label in LABELS] for top in tops]
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=TOLERANCE)
    ood_scores = [answer["ood_score"] for answer in answers]
    np.testing.assert_allclose(ood_scores, [answer["ood_score"] for answer in own], rtol=0, atol=TOLERANCE)


def test_inputs_outputs_and_metadata_of_the_graph(exported: Path, registered: Registered) -> None:
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["N", 224, 224, 3])
    outputs = {output.name: output.shape for output in session.get_outputs()}
    assert outputs == {"probabilities": ["N", 2], "ood_score": ["N"]}
    facts = session.get_modelmeta().custom_metadata_map
    assert {name: json.loads(text) for name, text in facts.items()} == {
        "classes": list(LABELS),
        "preprocessing": {
            "image_size": 224,
            "crop": 0.875,
            "interpolation": "bicubic",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "intensity": None,
        },
        "threshold": 0.25,
        "temperature": 1.5,
    }
    assert {path.name for path in exported.iterdir()} == {
        *("model.onnx", "model.json", "README.md", "classify.py", "image_preprocessing")
    }
    assert (exported / "model.json").read_bytes() == (registered.model / "model.json").read_bytes()


def test_the_graph_is_valid_and_holds_no_path_of_this_machine(exported: Path) -> None:
    graph = onnx.load(exported / "model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    assert {operators.domain: operators.version for operators in graph.opset_import}[""] == OPSET
    content = (exported / "model.onnx").read_bytes()
    assert not [path for path in (b"site-packages", b"transfer_model", b".py") if path in content]


def test_the_readmes_program_is_short_and_prepares_images_as_the_model_does(
    exported: Path, registered: Registered, tmp_path: Path
) -> None:
    assert len(snippet(exported).splitlines()) <= 30
    turned, clear = tmp_path / "turned.jpg", tmp_path / "clear.png"
    gradient = Image.linear_gradient("L").convert("RGB").resize((300, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient.save(turned, exif=exif)
    gradient.putalpha(Image.linear_gradient("L").resize((300, 200)).rotate(180))
    gradient.save(clear)
    own = Classifier.load(registered.model).predict([turned, clear])
    answers = classified(exported, [turned, clear])
    probabilities = [[answer["probabilities"][label] for label in LABELS] for answer in answers]
    np.testing.assert_allclose(probabilities, own.probabilities, rtol=0, atol=1e-5)
    np.testing.assert_allclose([answer["ood_score"] for answer in answers], own.ood_scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("intensity", [None, Intensity(0, 4095), Intensity(-100, 300)])
def test_the_readmes_program_agrees_with_the_served_model_on_every_accepted_mode(
    intensity: Intensity | None, registered: Registered, accepted_images: dict[str, Path], tmp_path: Path
) -> None:
    model = small("timm/test_resnet", registered, tmp_path / "model", intensity=intensity)
    export(str(model), "onnx", tmp_path / "out")
    files = list(accepted_images.values())
    pyfunc = mlflow.pyfunc.load_model(str(model))
    own = pyfunc.predict(pd.DataFrame({"image": [file.read_bytes() for file in files]}))
    answers = classified(tmp_path / "out", files)
    assert len({str(answer["probabilities"]) for answer in answers}) > len(files) / 3, "the images are too similar"
    for answer, expected in zip(answers, own, strict=True):
        name = Path(str(answer["file"])).name
        tops = {guess["label"]: guess["probability"] for guess in expected["top"]}
        assert answer["probabilities"] == pytest.approx(tops, abs=1e-5), name
        assert answer["ood_score"] == pytest.approx(expected["ood_score"], abs=1e-5), name


def test_the_readmes_program_rejects_a_file_with_the_message_of_the_model(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("text")
    done = subprocess.run(
        [sys.executable, exported / "classify.py", tmp_path / "text.png"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path}/text.png is not an image in a supported format (JPEG, ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("backbone", FAMILIES)
def test_other_families_predict_the_same_alone_and_in_a_batch(
    backbone: str, registered: Registered, tmp_path: Path
) -> None:
    model = small(backbone, registered, tmp_path / "model")
    export(str(model), "onnx", tmp_path / "out")
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    for row in range(3):
        Image.fromarray(pixels[row]).save(tmp_path / f"{row}.png")
    classifier = Classifier.load(model / "artifacts" / "model")
    own = classifier.predict([tmp_path / f"{row}.png" for row in range(3)])
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    together = session.run(None, {"images": pixels})
    alone = [session.run(None, {"images": pixels[row : row + 1]}) for row in range(3)]
    for outputs in (together, [np.concatenate(parts) for parts in zip(*alone, strict=True)]):
        np.testing.assert_allclose(outputs[0], own.probabilities, rtol=0, atol=1e-5)
        np.testing.assert_allclose(outputs[1], own.ood_scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backbone", FAMILIES)
def test_a_nearest_neighbor_head_predicts_the_same(backbone: str, registered: Registered, tmp_path: Path) -> None:
    model = small(backbone, registered, tmp_path / "model", neighbors=5)
    for name in ("onnx", "safetensors"):
        export(str(model), name, tmp_path / name)
    pixels = np.random.default_rng(1).integers(0, 256, (70, 64, 64, 3), dtype=np.uint8)  # more than one part
    classifier = Classifier.load(model / "artifacts" / "model")
    images = torch.stack([classifier.config.preprocessing.normalize(Image.fromarray(each)) for each in pixels])
    with torch.inference_mode():
        logits = classifier.network(images)
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    probabilities, _ = session.run(None, {"images": pixels})
    np.testing.assert_allclose(probabilities, (logits / 0.7).softmax(dim=1), rtol=0, atol=1e-4)
    assert len(np.unique(probabilities.round(4), axis=0)) > 10
    program = tmp_path / "load.py"
    program.write_text(snippet(tmp_path / "safetensors") + ASK)
    save_file({"image": images}, tmp_path / "image.safetensors")
    arguments = (tmp_path / "safetensors", program, tmp_path / "image.safetensors")
    np.testing.assert_allclose(json.loads(run_isolated("runpy.run_path(sys.argv[0])", *arguments)), logits, atol=1e-4)


def test_safetensors_are_the_registered_ones_and_load_as_the_readme_describes(here: Registered, tmp_path: Path) -> None:
    out = tmp_path / "exports" / "ants-bees"
    summary = export("ants-bees/1", "safetensors", out)
    assert summary == f"Exported models:/ants-bees/1 to {out}; see {out}/README.md for usage instructions"
    names = {"model.json", "weights.safetensors", "reference.safetensors"}
    assert {path.name for path in out.iterdir()} == {*names, "README.md"}
    for name in names:
        assert (out / name).read_bytes() == (here.location / "artifacts" / "model" / name).read_bytes()
    program = tmp_path / "load.py"
    program.write_text(snippet(out) + ASK)
    image = torch.rand(1, 3, 224, 224)
    save_file({"image": image}, tmp_path / "image.safetensors")
    logits = json.loads(run_isolated("runpy.run_path(sys.argv[0])", out, program, tmp_path / "image.safetensors"))
    with torch.inference_mode():
        np.testing.assert_allclose(logits, Classifier.load(here.model).network(image), rtol=0, atol=1e-5)


def test_the_export_of_a_builtin_network_contains_its_code(registered: Registered, tmp_path: Path) -> None:
    options = Options({"layers": [1, 1, 1, 1], "shortcut": "A", "stem": "cifar"})
    model = small(Architecture("resnet", options), registered, tmp_path / "model")
    out = tmp_path / "out"
    export(str(model), "safetensors", out)
    program = tmp_path / "load.py"
    program.write_text(f"import os, sys\nsys.path.insert(0, os.getcwd())\n{snippet(out)}{ASK}")
    image = torch.rand(1, 3, 64, 64)
    save_file({"image": image}, tmp_path / "image.safetensors")
    logits = json.loads(run_isolated("runpy.run_path(sys.argv[0])", out, program, tmp_path / "image.safetensors"))
    with torch.inference_mode():
        expected = Classifier.load(model / "artifacts" / "model").network(image)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "call"),
    [
        ("torchvision/vit_b_16", 'torchvision.models.get_model("vit_b_16", num_classes=2, image_size=64)'),
        ("torchvision/resnet18", 'torchvision.models.get_model("resnet18", num_classes=2)'),
        ("alexnet_cifar", 'builtin_networks.NETWORKS["alexnet_cifar"]().build(2)'),
        (
            Architecture("resnet", Options({"depth": 18, "layers": [1, 1, 1, 1], "shortcut": "A"})),
            "builtin_networks.NETWORKS[\"resnet\"](depth=18, layers=(1, 1, 1, 1), shortcut='A').build(2)",
        ),
        ("timm/vit_tiny_patch16_224", 'timm.create_model("vit_tiny_patch16_224", num_classes=2, img_size=64)'),
    ],
)
def test_the_call_that_builds_the_librarys_network(backbone: Architecture | str, call: str) -> None:
    spec = NetworkSpec(backbone, 2, 0.0, 64)
    prepare = Preprocessing(64, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    readme = safetensors_readme(ModelConfig(spec, LABELS, prepare, "bfloat16", 1.0, OodThreshold(0.1, 0.05)))
    assert f"network = {call}\n" in readme
    assert "the registered model computes in bfloat16" in readme


@pytest.mark.parametrize("command", [["export", "--to", "safetensors"], ["predict", "images", "--model"]])
def test_a_model_given_as_a_folder_needs_no_database(
    command: list[str], registered: Registered, tmp_path: Path
) -> None:
    """MLflow would create one in the current folder; two processes that do so at the same time disturb each other."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64), "green").save(tmp_path / "images" / "a.png")
    arguments = [*command, str(registered.location), "--out", "out"]
    subprocess.run([sys.executable, "-m", "transfer_platform", *arguments], cwd=tmp_path, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "out"}


def test_a_missing_model_and_an_unknown_format(here: Registered, tmp_path: Path) -> None:
    out = tmp_path / "out"
    message = refused("ants-bee", "--to", "onnx", "--out", out)
    assert message == "error: no model 'ants-bee' is registered; registered models: ants-bees"
    done = CliRunner().invoke(main, ["export", "ants-bees", "--to", "tensorrt", "--out", str(out)])
    assert done.exit_code == 2
    assert "'tensorrt' is not one of 'onnx', 'safetensors'" in done.output
    assert not list(tmp_path.iterdir())


def test_a_folder_with_files_is_not_changed(here: Registered, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    message = refused("ants-bees", "--to", "safetensors", "--out", tmp_path)
    assert f"{tmp_path} already contains files; specify a new or empty folder" in message
    message = refused("ants-bees", "--to", "safetensors", "--out", tmp_path / "mine.txt")
    assert f"{tmp_path}/mine.txt is a file; specify a new" in message
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export("ants-bees", "safetensors", tmp_path / "empty")
    assert (tmp_path / "empty" / "weights.safetensors").is_file()


def test_without_the_extra_the_error_names_the_install_command(here: Registered, tmp_path: Path) -> None:
    script = "import sys; sys.modules['onnxscript'] = None; from transfer_platform.cli import main; main()"
    command = [sys.executable, "-c", script, "export", "ants-bees", "--to", "onnx", "--out", tmp_path / "out"]
    roots = os.pathsep.join(str(REPOSITORY / root) for root in ("platform", "registry"))
    environment = {**os.environ, "PYTHONPATH": roots}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ONNX export requires the onnxscript package")
    assert done.stderr.endswith(": pip install 'transfer-platform[onnx]'\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_graph_with_different_results_is_deleted(registered: Registered, tmp_path: Path) -> None:
    folder = small("timm/test_resnet", registered, tmp_path / "model", temperature=5e-324)  # 0 in float32
    message = refused(folder, "--to", "onnx", "--out", tmp_path / "out")
    assert "was not exported: the outputs of ONNX Runtime and torch differ by nan on random images" in message
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_with_another_format_cannot_be_exported(registered: Registered, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(registered.location, folder, ignore=shutil.ignore_patterns("SHA256SUMS"))
    replace(folder / "artifacts" / "model" / "model.json", '"format": 2', '"format": 1')
    message = refused(folder, "--to", "onnx", "--out", tmp_path / "out")
    assert "the config has format 1, but this version only reads format 2" in message
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def replace(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
