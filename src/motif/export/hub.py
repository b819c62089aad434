"""Uploading exports to the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from motif.errors import ServiceError, UsageError, first_line

TOKEN = "log in with hf auth login, or set HF_TOKEN to a token with write access"


def check_login(repository: str) -> None:
    """Check, before any work is done, that an upload can succeed.

    Raises:
        UsageError: `repository` is not the name of one.
        ServiceError: there is no token, the hub rejects it, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError
    from huggingface_hub.utils import get_token

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"--push takes OWNER/NAME, got {repository!r}")
    if get_token() is None:
        raise ServiceError(f"--push needs a token for the hub: {TOKEN}")
    try:
        HfApi().whoami()
    except LocalTokenNotFoundError:
        raise ServiceError(f"--push needs a token for the hub: {TOKEN}") from None
    except Exception as error:
        raise ServiceError(
            f"--push: the hub rejects this token, or cannot be reached ({first_line(error)}): {TOKEN}"
        ) from None


def push(folder: Path, repository: str, private: bool, say: Callable[[str], Any]) -> None:
    """List the files of `folder` and upload them, and no others; create the repository if it does not exist.

    Raises:
        ServiceError: the upload failed; the export stays, and the message says how to upload it later.
    """
    from huggingface_hub import HfApi

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    say(f"uploading to {repository} (if it is new: {'private' if private else 'public'}):")
    for file in files:
        say(f"  {file.relative_to(folder)}  {file.stat().st_size:,} bytes")
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Export by motif",
            allow_patterns=[str(file.relative_to(folder)) for file in files],
        )
    except Exception as error:
        raise ServiceError(
            f"the upload to {repository} failed ({first_line(error)}). The export is in {folder}; to upload it later: "
            f"hf upload {repository} {folder}"
        ) from None
    say(f"uploaded: {getattr(commit, 'commit_url', repository)}")
