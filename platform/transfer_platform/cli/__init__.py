"""The command line: reads arguments, calls one function, prints what it gives. No logic lives here.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from transfer_model.errors import TransferError
from transfer_platform.cli.data import data
from transfer_platform.cli.models import models
from transfer_platform.cli.options import DEVICE, OVERRIDE, RECIPE
from transfer_platform.cli.output import show
from transfer_platform.errors import RecipeError

PORT = click.IntRange(0, 65535)
HOST = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")


class Commands(click.Group):
    """Prints errors that a user can mend as what they are; a traceback is for bugs only."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Runs a command; exit code 1 where a recipe, the data or a registry stands in its way."""
        _collect_less_garbage()
        # What docker, systemd and a batch queue send; as with Ctrl-C, nothing is lost.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        try:
            return super().invoke(ctx)
        except RecipeError as error:
            count = len(error.problems)
            click.echo(f"{error}\n{count} problem{'s' * (count != 1)} in the recipe", err=True)
        except TransferError as error:
            click.echo(f"error: {error}", err=True)
        except KeyboardInterrupt:
            goes_on = ctx.invoked_subcommand == "run"
            click.echo("stopped" + ("; the same command goes on from here" if goes_on else ""), err=True)
            sys.exit(130)
        except Exception as error:
            if (said := in_words(error)) is None:
                raise
            click.echo(f"error: {said}", err=True)
        sys.exit(1)


def _collect_less_garbage() -> None:
    """Spares a command seconds: what torch and MLflow make when they are imported lives until it ends.

    Python would go through all of it again and again while they are imported, and several times at the end.
    """
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)


def in_words(error: Exception) -> str | None:
    """What a file system, a database or MLflow refused, in a sentence; None for anything else, our bugs."""
    if isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    found = {name: sys.modules.get(name) for name in ("sqlalchemy.exc", "mlflow.exceptions", "safetensors")}
    if (module := found["sqlalchemy.exc"]) and isinstance(error, module.SQLAlchemyError):
        cause = getattr(error, "orig", None) or error
        return f"a database cannot be used: {str(cause).strip().splitlines()[0]}"
    if (module := found["mlflow.exceptions"]) and isinstance(error, module.MlflowException):
        return f"MLflow: {error.message.strip().splitlines()[0]}"
    if (module := found["safetensors"]) and isinstance(error, module.SafetensorError):
        return f"weights cannot be written or read: {error}"
    return None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="transfer-platform")
def main() -> None:
    """Transfer learning from a YAML recipe to a served model.

    \b
    platform init photos                      a first recipe for a folder
    platform data recipes/ants_bees.yaml      what is wrong with the images
    platform check recipes/ants_bees.yaml     what would run
    platform run recipes/ants_bees.yaml       search, evaluate, register, gate
    platform ui                               the runs, in MLflow
    platform models history ants-bees         what was decided about it, and why
    platform serve ants-bees                  the champion, over HTTP
    """  # noqa: D301 - click reads the backspace as "leave this paragraph as it is"


@main.command()
@click.argument("source", metavar="FOLDER")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The recipe's file; by default FOLDER.yaml here."
)
def init(source: str, out: Path | None) -> None:
    """Look at the images in FOLDER and write a first recipe for them, with the reasons as comments.

    FOLDER may also be an archive, a manifest (csv, tsv, parquet), a URL, or a name such as torchvision:MNIST.
    """
    from transfer_platform.commands import init
    from transfer_platform.progress import Screen

    with Screen() as screen:
        written = init.write_first_recipe(source, out, screen.step)
    click.echo(written)


@main.command()
@click.argument("recipe", type=RECIPE)
@OVERRIDE
@DEVICE
@click.option("--fresh", is_flag=True, help="Start over; to go on with the new study, run without it.")
def run(recipe: Path, overrides: Sequence[str], device: str, fresh: bool) -> None:
    """Fine-tune what RECIPE declares and offer the best checkpoint to the gate.

    RECIPE is a file, or the name of a shipped one (`platform recipe list`). The same command goes on with a
    study that was interrupted, wherever it was interrupted.
    """
    from transfer_platform.commands import run
    from transfer_platform.progress import Screen

    with Screen() as screen:
        outcome = run.run(
            recipe, overrides=overrides, fresh=fresh, device=device, progress=screen.step, say=screen.say
        )
    click.echo(outcome)


@main.command()
@click.argument("recipe", type=RECIPE)
@OVERRIDE
@click.option("--time", "timed", is_flag=True, help="Time the frozen part now.")
def check(recipe: Path, overrides: Sequence[str], timed: bool) -> None:
    """Validate RECIPE and print what a run would do, without training."""
    from transfer_platform.commands import check
    from transfer_platform.progress import Screen

    with Screen() as screen:
        text = check.describe_plan(recipe, overrides, screen.step, timed=timed)
    show(text)


@main.command()
@click.argument("pattern", default="*")
@click.option("--stages", is_flag=True, help="Also list the stages that freeze_through may name.")
def backbones(pattern: str, stages: bool) -> None:
    """List the backbones whose name matches PATTERN, e.g. 'resnet*'."""
    from transfer_platform.commands import check

    show(check.list_backbones(pattern, stages=stages))


main.add_command(data)
main.add_command(models)


@main.group()
def recipe() -> None:
    """What may stand in a recipe."""


@recipe.command(name="list")
def list_recipes() -> None:
    """List the recipes that come with the install; run them by name, or copy their files."""
    from transfer_platform.recipe.shipped import shipped_recipes

    for name, path in shipped_recipes().items():
        click.echo(f"{name}  {path}")


@recipe.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from transfer_platform.recipe.reference import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@recipe.command()
def fields() -> None:
    """Print every field with its unit, bounds and default."""
    from transfer_platform.recipe import reference

    click.echo(reference.markdown_reference())


@main.group()
def cache() -> None:
    """What can be fetched or computed again, and where it is kept."""


@cache.command()
def info() -> None:
    """Show what the cache holds and how much room it takes."""
    from transfer_platform.commands import cache as contents

    show(contents.cache_info())


@cache.command()
@click.option("--all", "everything", is_flag=True, help="Downloads and unpacked archives too.")
def clear(everything: bool) -> None:
    """Delete stored features and decoded images."""
    from transfer_platform.commands import cache as contents

    click.echo(contents.clear_cache(everything=everything))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--model", required=True, help="A registered model: NAME, NAME@ALIAS, NAME/VERSION, or a model URI."
)
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
    """Measure MODEL on the class folders in FOLDER."""
    from transfer_platform.commands import predict
    from transfer_platform.progress import Screen

    with Screen() as screen:
        click.echo(predict.evaluate_folder(model, folder, screen.step))


@main.command()
@click.argument("photos", nargs=-1, required=True)
@click.option("--backbone", help="A network with its ImageNet classes, as it is.")
@click.option("--model", help="A registered model instead.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1), help="Classes to print.")
@click.option(
    "--annotate", type=click.Path(path_type=Path), help="Draw the answer on the photo, into this PNG."
)
def classify(
    photos: Sequence[str], backbone: str | None, model: str | None, top: int, annotate: Path | None
) -> None:
    """Say what is on PHOTOS: files or URLs."""
    if bool(backbone) == bool(model):
        raise click.UsageError("name one of --backbone and --model, e.g. --backbone efficientnet_lite0")
    if annotate and len(photos) != 1:
        raise click.UsageError("--annotate takes one photo")
    from transfer_platform.commands import classify

    for line in classify.classify(photos, backbone=backbone, model=model, top=top, annotate=annotate):
        click.echo(line)


@main.command()
@click.argument("model")
@HOST
@click.option("--port", default=5001, show_default=True, type=PORT)
def serve(model: str, host: str, port: int) -> None:
    """Serve MODEL over HTTP with MLflow's scoring application."""
    from transfer_registry.serving import server

    server.serve(model, host, port)


@main.command()
@click.argument("model")
@click.option("--to", "form", required=True, type=click.Choice(["onnx", "safetensors"]), help="Which form.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder, new or empty.")
def export(model: str, form: str, out: Path) -> None:
    """Write MODEL into a folder for programs that know nothing of this project.

    A README.md in the folder says how it is used.
    """
    from transfer_registry.serving import export as exporting

    click.echo(exporting.export(model, form, out))


@main.command()
@HOST
@click.option("--port", default=5000, show_default=True, type=PORT)
def ui(host: str, port: int) -> None:
    """Show the runs of this folder in MLflow's own pages."""
    from transfer_registry.serving import server

    server.ui(host, port)
