"""One file from one address: resumed where it broke off, checked, and in its place only when it is whole.

What has come so far lies beside the target, with what the server said about it. It is continued only if the
server's file is certainly the same (RFC 9110, 13.1.5 If-Range and 14 Range): never are two versions glued
together.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from transfer_platform.errors import SourceError
from transfer_platform.progress import Progress, Step

if TYPE_CHECKING:
    from requests import Response

    from transfer_platform.sources.checksums import Checksum

CONNECT_SECONDS, SILENCE_SECONDS = 10, 60
FAILURES_IN_A_ROW = 3
_PIECE = 1 << 18


class DownloadError(Exception):
    """One place does not have the file, or has another one; the next place may."""


class _BrokeOffError(Exception):
    """Worth another try."""


def download(url: str, target: Path, expected: Checksum, progress: Progress) -> Path:
    """Downloads a file; the caller holds the lock on `target`.

    Args:
        url: An http or https address.
        target: Where the file shall stand; its folder exists.
        expected: What its digest must be.
        progress: Is told how many bytes have come.

    Returns:
        `target`.

    Raises:
        DownloadError: The server cannot be reached, refuses, breaks off too often or has another file.
        SourceError: The file cannot be written.
    """
    part = _Part.beside(target, url)
    try:
        resumed = part.size > 0
        refusal = _whole(url, part, expected, progress)
        if resumed and refusal:
            part.discard()
            refusal = _whole(url, part, expected, progress)
        if refusal:
            part.discard()
            raise DownloadError(refusal)
        part.file.replace(target)
        part.discard()
    except OSError as error:
        raise SourceError(f"{target} could not be written: {error}; is the disk full?") from error
    return target


def redact_url(url: str) -> str:
    """An address without its user, password and query, which may be secrets; a path as it is."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass
class _Part:
    """What has come so far of one address.

    Attributes:
        file: The bytes.
        facts: Written before the first byte: whose bytes these are.
    """

    file: Path
    facts: Path

    @classmethod
    def beside(cls, target: Path, url: str) -> _Part:
        stem = f"{target.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}"
        return cls(target.with_name(f"{stem}.partial"), target.with_name(f"{stem}.json"))

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def known(self) -> tuple[str, int | None]:
        """The server's mark of the version (strong ETag or date; empty: none), and the size of the whole."""
        try:
            facts = json.loads(self.facts.read_bytes())
            return str(facts["version"]), facts["total"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return "", None

    def begin(self, version: str, total: int | None) -> None:
        self.file.write_bytes(b"")
        self.facts.write_text(json.dumps({"version": version, "total": total}), encoding="utf-8")

    def discard(self) -> None:
        self.file.unlink(missing_ok=True)
        self.facts.unlink(missing_ok=True)


def _whole(url: str, part: _Part, expected: Checksum, progress: Progress) -> str:
    """Continues until the whole file is there; gives up after a few tries that did not get any further.

    Returns:
        What is wrong with its digest, or nothing.
    """
    failures, furthest = 0, part.size
    while True:
        try:
            _continue(url, part, bool(expected.digits), progress)
            return expected.mismatch(part.file, settled=False)
        except _BrokeOffError as error:
            failures = 0 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if failures >= FAILURES_IN_A_ROW:
                raise DownloadError(str(error)) from error
            time.sleep(0.5 * 2**failures)


def _continue(url: str, part: _Part, checked: bool, progress: Progress) -> None:
    """Asks for what is missing and stores what comes.

    Args:
        url: The address.
        part: Grows.
        checked: Whether a checksum will tell if two versions were glued together.
        progress: Is told.
    """
    import requests
    import urllib3

    version, total = part.known()
    if total is not None and part.size == total:
        return
    headers = {"Accept-Encoding": "identity"}
    if part.size and (version or (checked and total is not None)):
        headers |= {"Range": f"bytes={part.size}-"} | ({"If-Range": version} if version else {})
    patience = (CONNECT_SECONDS, SILENCE_SECONDS)
    try:
        with requests.get(url, headers=headers, stream=True, timeout=patience) as response:
            _accept(response, part)
            _store(response, part, f"fetching {Path(urlsplit(url).path).name}", progress)
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _explained(error, part) from error


def _explained(error: Exception, part: _Part) -> DownloadError | _BrokeOffError:
    """In our words: those of the libraries repeat the whole address, secrets included."""
    from requests import exceptions

    if isinstance(error, ValueError):
        return DownloadError("is not a valid address, or leads to one that is not")
    if isinstance(error, exceptions.SSLError):
        return DownloadError("its certificate is not trusted")
    if isinstance(error, exceptions.Timeout):
        return _BrokeOffError(f"did not answer within {CONNECT_SECONDS} to {SILENCE_SECONDS} s")
    if isinstance(error, exceptions.ConnectionError):
        return _BrokeOffError("cannot be reached")
    return _BrokeOffError(f"broke off after {part.size:,} of {part.known()[1] or '?'} bytes")


def _accept(response: Response, part: _Part) -> None:
    """Decides whether the answer continues the part or starts it anew."""
    status = response.status_code
    if status == 206 and _continues(response, part):
        return
    if status == 200:
        length = response.headers.get("Content-Length", "")
        part.begin(_version(response), int(length) if length.isdigit() else None)
        return
    if status in (206, 416):
        part.discard()
        raise _BrokeOffError("its file changed while it was fetched")
    if status == 429 or status >= 500:
        raise _BrokeOffError(f"answered {status} {response.reason}")
    raise DownloadError(f"answered {status} {response.reason}")


def _continues(response: Response, part: _Part) -> bool:
    version, total = part.known()
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    same_version = _version(response) in ("", version)
    return span is not None and same_version and (int(span[1]), int(span[2])) == (part.size, total)


def _version(response: Response) -> str:
    """Weak ETags do not promise equal bytes, so they are none."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _store(response: Response, part: _Part, task: str, progress: Progress) -> None:
    done, total = part.size, part.known()[1]
    with part.file.open("ab") as file:
        # Undecoded: a server that marks `.tar.gz` as gzip-encoded sends the very file that is wanted.
        for piece in response.raw.stream(_PIECE, decode_content=False):
            file.write(piece)
            done += len(piece)
            progress(Step(task, done, total, "bytes"))
    if total is not None and done > total:
        part.discard()
    if total is not None and done != total:
        raise _BrokeOffError(f"sent {done:,} bytes instead of {total:,}")
