"""Checks the consistency of the ledger, the MLflow registry and model files.

The checks use the ledger's hash chain, the hashes copied to version tags, the champion alias, and the checksums that
were recorded when a model was logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mlflow.artifacts import list_artifacts
from mlflow.tracking import MlflowClient

from transfer_model.errors import cause
from transfer_registry.alias import alias_discrepancy, is_applied, ledger_champion, matches_version
from transfer_registry.errors import RegistryError
from transfer_registry.ledger import MOVES
from transfer_registry.mlflow_registry import RUN_TAG, model_versions, registered_models
from transfer_registry.model_files import CHECKSUMS_FILE, CHECKSUMS_TAG, open_folder, recorded_checksums
from transfer_registry.version_page import HASH_TAG

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from transfer_registry.ledger import Ledger, LedgerEntry

_LOGGED_MODEL = "models:/m-"


def verify(ledger: Ledger) -> tuple[str, ...]:
    """Returns one sentence per inconsistency in the ledger or between the ledger and MLflow; changes nothing."""
    client = MlflowClient()
    entries = ledger.entries()
    errors = list(_check_chain(entries))
    for model in registered_models(client):
        moves = [entry for entry in entries if entry.model == model.name and entry.kind in MOVES]
        for version in model_versions(client, model.name):
            errors += _check_tags(version, entries)
            errors += _find_missing_tags(version, moves)
        errors += _check_alias(client, ledger, model.name)
    return tuple(errors)


@dataclass(frozen=True)
class FileAudit:
    """Result of checking the files of all registered versions.

    Attributes:
        damage: One sentence per version with missing, changed or unavailable files.
        checked: Number of versions whose files were compared with recorded checksums.
        unchecked: Versions without recorded checksums (for example, `ants-bees/1`), which were logged by another
            tool or by an earlier version of this platform.
    """

    damage: tuple[str, ...]
    checked: int
    unchecked: tuple[str, ...]


def verify_files() -> FileAudit:
    """Compares the files of every registered version with their checksums; files in remote stores are downloaded."""
    client = MlflowClient()
    versions = [version for model in registered_models(client) for version in model_versions(client, model.name)]
    found = {f"{each.name}/{each.version}": _check_version(each) for each in versions}
    checked = [damage for damage in found.values() if damage is not None]
    unchecked = [name for name, damage in found.items() if damage is None]
    return FileAudit(tuple(sentence for damage in checked for sentence in damage), len(checked), tuple(unchecked))


def _check_version(version: ModelVersion) -> list[str] | None:
    """Returns one sentence per problem, or None if the version has no checksums."""
    uri, damage = f"models:/{version.name}/{version.version}", []
    recorded = recorded_checksums(uri)
    try:
        if recorded is None and not _has_checksums(uri, version):
            return None
        if recorded is None and (version.source or "").startswith(_LOGGED_MODEL):
            damage.append(
                f"{uri} contains {CHECKSUMS_FILE}, but its logged model or the tag {CHECKSUMS_TAG} was deleted"
            )
        with TemporaryDirectory() as temporary:
            open_folder(uri, temporary)
    except RegistryError as error:
        damage.append(str(error))
    return damage


def _has_checksums(uri: str, version: ModelVersion) -> bool:
    """Returns True if a version has `SHA256SUMS`; False if another tool logged it and its files cannot be listed."""
    try:
        return any(file.path == CHECKSUMS_FILE for file in list_artifacts(artifact_uri=uri))
    except Exception as error:  # the clients of artifact stores raise exceptions of their own
        if RUN_TAG in version.tags:
            raise RegistryError(f"cannot list the files of {uri}: {cause(error)}") from error
        return False


def _check_chain(entries: Sequence[LedgerEntry]) -> Iterator[str]:
    previous: LedgerEntry | None = None
    for entry in entries:
        expected = previous.id + 1 if previous else 1
        if entry.id == expected + 1:
            yield f"entry {expected} is missing from the ledger"
        elif entry.id != expected:
            yield f"entries {expected} to {entry.id - 1} are missing from the ledger"
        if entry.hash != entry.digest(previous.hash if previous else None):
            yield (
                f"entry {entry.id} ({entry.kind}, {entry.model} version {entry.version}) or the previous "
                "entry was modified after it was written"
            )
        previous = entry


def _check_tags(version: ModelVersion, entries: Sequence[LedgerEntry]) -> Iterator[str]:
    hashes = {str(entry.id): entry.hash for entry in entries}
    for tag, value in sorted(version.tags.items()):
        if not tag.startswith(HASH_TAG):
            continue
        number = tag.removeprefix(HASH_TAG)
        if number not in hashes:
            yield (f"{version.name} version {version.version} has a tag for entry {number}, which is not in the ledger")
        elif hashes[number] != value:
            yield (
                f"{version.name} version {version.version} has a different hash for entry {number} than "
                "the ledger: the ledger was rewritten or replaced"
            )


def _find_missing_tags(version: ModelVersion, moves: Sequence[LedgerEntry]) -> Iterator[str]:
    """Yields one message per move whose tag is missing: the move was interrupted, or the tag was removed."""
    for move in moves:
        if not matches_version(move, version) or f"{HASH_TAG}{move.id}" in version.tags:
            continue
        interrupted = f"the {move.kind} was interrupted; the next run, promotion or rollback will complete it"
        yield (
            f"{version.name} version {version.version} has no tag for entry {move.id} ({move.kind}): "
            f"{interrupted if move is moves[-1] else 'the tag was removed'}"
        )


def _check_alias(client: MlflowClient, ledger: Ledger, model: str) -> Iterator[str]:
    champion, last = ledger_champion(client, ledger, model), ledger.last_move(model)
    interrupted = champion is not None and last is not None and not is_applied(last, champion)
    if not interrupted and (discrepancy := alias_discrepancy(client, ledger, model)):
        yield discrepancy
