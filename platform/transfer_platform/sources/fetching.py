"""Files from the internet, fetched once: data sets and pretrained weights alike.

`PLATFORM_MIRROR` names folders and URLs that are asked first, so that a site without internet works too. For
`https://host/path/file.zip` a mirror is asked for `host/path/file.zip`, then for `file.zip`. A file in a
mirror folder is used where it lies; everything else comes into the cache.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from filelock import FileLock

from transfer_platform.errors import SourceError
from transfer_platform.paths import MIRROR_VARIABLE, cache_folder, mirrors
from transfer_platform.progress import Progress, silent
from transfer_platform.sources.checksums import Checksum
from transfer_platform.sources.download import DownloadError, download, redact_url

if TYPE_CHECKING:
    from collections.abc import Iterator


def fetch(
    url: str,
    sha256: str | None = None,
    *,
    hash_prefix: str | None = None,
    md5: str | None = None,
    known_as: str = "",
    progress: Progress = silent,
) -> Path:
    """Brings a file onto this machine, once; processes that want the same file wait for each other.

    Args:
        url: An http or https address.
        sha256: Its checksum, 64 hexadecimal digits.
        hash_prefix: The beginning of its checksum, as in `resnet18-f37072fd.pth`; `sha256` goes before it.
        md5: Its MD5 instead, 32 hexadecimal digits.
        known_as: A relative path by which mirrors are asked too, between the two above.
        progress: Is told how many bytes have come.

    Returns:
        The file, in the cache or in a mirror folder; nobody may write to it.

    Raises:
        SourceError: The URL is none, no place has the file, or what they have has another checksum. The
            message says what each place answered.
    """
    expected = Checksum(md5, "md5") if md5 else Checksum((sha256 or hash_prefix or "").lower())
    name = _path_on_host(url).name
    target = cache_folder() / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:16] / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.exists() and not expected.mismatch(target):
            return target
        answers = []
        for place in _places(url, known_as):
            try:
                return _take(place, target, expected, progress)
            except DownloadError as error:
                answers.append(f"  {redact_url(place)}: {error}")
    raise SourceError(
        f"{redact_url(url)} could not be fetched:\n" + "\n".join(answers) + "\n"
        f"check the address and the network, or put the file into a folder and set {MIRROR_VARIABLE} to it"
    )


def _places(url: str, known_as: str) -> Iterator[str]:
    """Every file and address where the file may be, nearest first."""
    host, path = urlsplit(url).hostname or "", _path_on_host(url)
    for mirror in mirrors():
        if _is_web(mirror):
            quoted = PurePosixPath(host, urlsplit(url).path.lstrip("/"))
            names = (str(quoted), quote(known_as), quoted.name)
            yield from (f"{mirror.rstrip('/')}/{name}" for name in names if name)
        else:
            names = (str(PurePosixPath(host, path)), known_as, path.name)
            yield from (str(Path(mirror).expanduser() / name) for name in names if name)
    yield url


def _take(place: str, target: Path, expected: Checksum, progress: Progress) -> Path:
    if _is_web(place):
        return download(place, target, expected, progress)
    file = Path(place)
    if not file.is_file():
        raise DownloadError("no such file")
    if refusal := expected.mismatch(file):
        raise DownloadError(refusal)
    return file.resolve()


def _path_on_host(url: str) -> PurePosixPath:
    """The path behind the host, unquoted; one that could leave a mirror folder is refused."""
    parts = urlsplit(url)
    if not _is_web(url) or not parts.hostname:
        raise SourceError(
            f"{redact_url(url)!r} is not an address that can be fetched; it must start with http(s)://"
        )
    path = PurePosixPath(unquote(parts.path).lstrip("/"))
    if not path.name or ".." in path.parts or re.search(r"[\x00-\x1f\\]", str(path)):
        raise SourceError(f"{redact_url(url)!r} does not end in the name of a file")
    return path


def _is_web(place: str) -> bool:
    return place.lower().startswith(("http://", "https://"))
