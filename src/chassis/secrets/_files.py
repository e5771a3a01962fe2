from __future__ import annotations

import asyncio
from pathlib import Path

from chassis.core.options import Seconds, check_seconds
from chassis.core.secrets import Secret, SecretError, SecretVersion

_LARGEST = 1 << 20


class FileSecrets:
    """Secrets in files, one a file: mounted by Docker, Kubernetes or an agent.

    ``file:/run/secrets/db`` is read whole, without newlines at its end. An empty file is one that
    is just being written: the secret read before stays.

    :param directory: where relative paths begin; None for the working directory.
    :param poll: seconds between two reads of a file in use.
    """

    scheme = "file"
    remote = False

    def __init__(self, directory: str | Path | None = None, *, poll: Seconds = 1.0) -> None:
        check_seconds("poll", poll)
        self.poll = poll
        self._directory = Path(directory or ".")

    def __repr__(self) -> str:
        return f"FileSecrets({str(self._directory)!r})"

    async def read(self, path: str) -> SecretVersion:
        """The one secret in the file ``path``, under the field name "".

        :raises SecretError: there is no such file, or it holds no text.
        """
        # In a thread: a network file system that hangs must not stop the heartbeats.
        return await asyncio.to_thread(self._read, self._directory / path)

    async def aclose(self) -> None:
        """Nothing is held between two reads."""

    def _read(self, file: Path) -> SecretVersion:
        try:
            with file.open("rb") as opened:
                content = opened.read(_LARGEST + 1)
            version = str(file.stat().st_mtime_ns)
        except OSError as error:
            raise SecretError(
                f"the secret's file {str(file)!r} cannot be read: {error.strerror or error}; "
                "see that it is there and may be read by this user",
                permanent=True,
            ) from None
        if len(content) > _LARGEST:
            raise SecretError(f"the secret's file {str(file)!r} is larger than a secret", permanent=True)
        try:
            text = content.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise SecretError(f"the secret's file {str(file)!r} is not UTF-8 text", permanent=True) from None
        if not text:
            raise SecretError(f"the secret's file {str(file)!r} is empty", permanent=False)
        return SecretVersion(values={"": Secret(text)}, version=version)
