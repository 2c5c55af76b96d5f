"""Command-line interface: parses arguments and prints results.

Heavy modules are imported inside the commands so that `--help` responds immediately.
"""

import atexit
import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from transfer_model.errors import TransferError, cause
from transfer_platform.cli.data import data
from transfer_platform.cli.models import models
from transfer_platform.cli.options import DEVICE, OVERRIDE, RECIPE
from transfer_platform.cli.output import show
from transfer_platform.errors import RecipeError
from transfer_platform.plurals import counted
from transfer_platform.tensor_store.errors import DISK_FULL_ERRNOS

PORT = click.IntRange(0, 65535)
HOST = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")


class Commands(click.Group):
    """Command group that prints user-fixable errors without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Runs a command; exits with code 1 on error and 130 if interrupted."""
        _collect_less_garbage()
        # Docker, systemd and batch queues send SIGTERM, which is handled like Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        try:
            return super().invoke(ctx)
        except RecipeError as error:
            click.echo(f"{error}\n{counted(len(error.problems), 'problem')} in the recipe", err=True)
        except TransferError as error:
            click.echo(f"error: {error}", err=True)
        except KeyboardInterrupt:
            hint = "; run the same command to resume" if ctx.invoked_subcommand == "run" else ""
            click.echo(f"stopped{hint}", err=True)
            sys.exit(130)
        except Exception as error:
            if (message := describe_error(error)) is None:
                raise
            click.echo(f"error: {message}", err=True)
        sys.exit(1)


def _collect_less_garbage() -> None:
    """Runs the garbage collector less often, which saves several seconds per command.

    By default, Python repeatedly scans the objects that torch and MLflow create on import, which live until exit.
    """
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)


def describe_error(error: Exception) -> str | None:
    """Returns a message for an error from the file system, a database, MLflow or safetensors; None for other errors."""
    if isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, OSError):
        return _describe_os_error(error)
    modules = {name: sys.modules.get(name) for name in ("sqlalchemy.exc", "mlflow.exceptions", "safetensors")}
    if (module := modules["sqlalchemy.exc"]) and isinstance(error, module.SQLAlchemyError):
        return f"database error: {cause(getattr(error, 'orig', None) or error)}"
    if (module := modules["mlflow.exceptions"]) and isinstance(error, module.MlflowException):
        return f"MLflow: {cause(error)}"
    if (module := modules["safetensors"]) and isinstance(error, module.SafetensorError):
        return f"cannot read or write weights: {cause(error)}"
    return None


def _describe_os_error(error: OSError) -> str:
    if error.errno not in DISK_FULL_ERRNOS:
        return f"{error.filename}: {cause(error)}" if error.filename else cause(error)
    # if a file was copied, the second name is that of the copy; if writing failed, there is no name
    from tempfile import gettempdir

    place = error.filename2 or error.filename or f"the current folder or {gettempdir()}"
    return f"{place} cannot be written: {cause(error)}; free some space, or set TMPDIR to a folder on another disk"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="transfer-platform")
def main() -> None:
    """Transfer learning from a YAML recipe to a served model.

    \b
    platform init photos                      write a first recipe for a folder
    platform data recipes/ants_bees.yaml      inspect the images
    platform check recipes/ants_bees.yaml     print the plan
    platform run recipes/ants_bees.yaml       search, evaluate, register, promote
    platform ui                               browse the runs in MLflow
    platform models history ants-bees         list all decisions about a model
    platform serve ants-bees                  serve the champion over HTTP
    """  # noqa: D301 - click prints a paragraph that starts with a backspace unchanged


@main.command()
@click.argument("source", metavar="FOLDER")
@click.option("--out", type=click.Path(path_type=Path), help="Recipe file; defaults to FOLDER.yaml.")
@click.option("--train", metavar="NAME", help="Subfolder that contains the class folders; detected by default.")
def init(source: str, out: Path | None, train: str | None) -> None:
    """Inspect the images in FOLDER and write a commented first recipe.

    FOLDER may also be an archive, a manifest (CSV, TSV, JSONL, Parquet), a URL, or a name such as torchvision:MNIST.
    """
    from transfer_platform.commands import init
    from transfer_platform.progress import Screen

    with Screen() as screen:
        written = init.write_first_recipe(source, out, screen.step, train)
    click.echo(written)


@main.command()
@click.argument("recipe", type=RECIPE)
@OVERRIDE
@DEVICE
@click.option("--fresh", is_flag=True, help="Start a new study. To resume it later, omit this flag.")
def run(recipe: Path, overrides: Sequence[str], device: str, fresh: bool) -> None:
    """Run the study defined by RECIPE, evaluate the best trial and submit it to the gate.

    RECIPE is a file or the name of a shipped recipe (`platform recipe list`). Repeat the same command to resume
    an interrupted study.
    """
    from transfer_platform.commands import run
    from transfer_platform.progress import Screen

    with Screen() as screen:
        outcome = run.run(recipe, overrides=overrides, fresh=fresh, device=device, progress=screen.step, say=screen.say)
    click.echo(outcome)


@main.command()
@click.argument("recipe", type=RECIPE)
@OVERRIDE
@click.option("--time", "timed", is_flag=True, help="Measure the cost of the frozen layers on this machine.")
def check(recipe: Path, overrides: Sequence[str], timed: bool) -> None:
    """Validate RECIPE and print what a run would do, without training."""
    from transfer_platform.commands import check
    from transfer_platform.progress import Screen

    with Screen() as screen:
        text = check.describe_plan(recipe, overrides, screen.step, timed=timed)
    show(text)


@main.command()
@click.argument("pattern", default="*")
@click.option("--stages", is_flag=True, help="Also list the names of the stages, for use in freeze_through.")
def backbones(pattern: str, stages: bool) -> None:
    """List the backbones whose names match PATTERN, such as 'resnet*'."""
    from transfer_platform.commands import check

    show(check.list_backbones(pattern, stages=stages))


main.add_command(data)
main.add_command(models)


@main.group()
def recipe() -> None:
    """List the shipped recipes and describe the recipe format."""


@recipe.command(name="list")
def list_recipes() -> None:
    """List the shipped recipes, which can be run by name or copied."""
    from transfer_platform.recipe.shipped import shipped_recipes

    for name, path in shipped_recipes().items():
        click.echo(f"{name}  {path}")


@recipe.command()
def schema() -> None:
    """Print the JSON Schema for recipes, for use in editors."""
    import json

    from transfer_platform.recipe.reference import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@recipe.command()
def fields() -> None:
    """Print all recipe fields with their units, bounds and defaults."""
    from transfer_platform.recipe import reference

    click.echo(reference.markdown_reference())


@main.group()
def cache() -> None:
    """Manage downloads, extracted features and other data that can be rebuilt."""


@cache.command()
def info() -> None:
    """Show the contents and size of the cache."""
    from transfer_platform.commands import cache

    show(cache.cache_info())


@cache.command()
@click.option("--all", "everything", is_flag=True, help="Also delete downloads and unpacked archives.")
def clear(everything: bool) -> None:
    """Delete extracted features and decoded images."""
    from transfer_platform.commands import cache

    click.echo(cache.clear_cache(everything=everything))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="Registered model: NAME, NAME@ALIAS, NAME/VERSION, or a model URI.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("predictions.csv"), show_default=True)
def predict(folder: Path, model: str, out: Path) -> None:
    """Classify every image under FOLDER and write a CSV file."""
    from transfer_platform.commands import predict
    from transfer_platform.progress import Screen

    with Screen() as screen:
        click.echo(predict.predict_folder(folder, model, out, screen.step))


@main.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path))
def evaluate(model: str, folder: Path) -> None:
    """Evaluate MODEL on FOLDER, which must have one subfolder per class."""
    from transfer_platform.commands import predict
    from transfer_platform.progress import Screen

    with Screen() as screen:
        click.echo(predict.evaluate_folder(model, folder, screen.step))


@main.command()
@click.argument("photos", nargs=-1, required=True)
@click.option("--backbone", help="Pretrained backbone, which predicts ImageNet classes.")
@click.option("--model", help="Registered model.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1), help="Number of classes to print.")
@click.option("--annotate", type=click.Path(path_type=Path), help="Save an annotated copy of the photo to a PNG file.")
def classify(photos: Sequence[str], backbone: str | None, model: str | None, top: int, annotate: Path | None) -> None:
    """Classify PHOTOS, which can be files or URLs."""
    if bool(backbone) == bool(model):
        raise click.UsageError("pass either --backbone or --model, for example --backbone efficientnet_lite0")
    if annotate and len(photos) != 1:
        raise click.UsageError("--annotate requires exactly one photo")
    from transfer_platform.commands import classify

    for line in classify.classify(photos, backbone=backbone, model=model, top=top, annotate=annotate):
        click.echo(line)


@main.command()
@click.argument("model")
@HOST
@click.option("--port", default=5001, show_default=True, type=PORT)
def serve(model: str, host: str, port: int) -> None:
    """Serve MODEL over HTTP with MLflow's scoring server."""
    from transfer_registry.serving import server

    server.serve(model, host, port)


@main.command()
@click.argument("model")
@click.option("--to", "form", required=True, type=click.Choice(["onnx", "safetensors"]), help="Export format.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New or empty folder.")
def export(model: str, form: str, out: Path) -> None:
    """Export MODEL for use without this project. The exported README.md contains usage instructions."""
    from transfer_registry.serving import export

    click.echo(export.export(model, form, out))


@main.command()
@HOST
@click.option("--port", default=5000, show_default=True, type=PORT)
def ui(host: str, port: int) -> None:
    """Show the runs of the current folder in the MLflow UI."""
    from transfer_registry.serving import server

    server.ui(host, port)
