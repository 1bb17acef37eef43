"""Stock restic, the judge that is not ours, over a vault in an S3 store."""

from __future__ import annotations

import os
import subprocess
from urllib.parse import urlsplit

from tests.tools.restic import needed


def restic(vault_url: str, password_file: str, *words: str) -> str:
    """Run it on the vault; it must succeed; its output."""
    parts = urlsplit(vault_url)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "https://s3.amazonaws.com"
    repository = f"s3:{endpoint}/{parts.netloc}{parts.path}"
    done = subprocess.run(
        [needed(), "-r", repository, "-o", "s3.bucket-lookup=path", "--password-file", password_file, "--no-cache",
         *words],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"restic {' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout
