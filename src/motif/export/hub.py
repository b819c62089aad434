"""Putting exports on the Hugging Face hub, through huggingface_hub."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from motif.errors import RecipeError

TOKEN = "log in with hf auth login, or set HF_TOKEN to a token that may write"


def check_login(repository: str) -> None:
    """Refuse, before work is spent, what could not be uploaded.

    Raises:
        RecipeError: not a repository's name, no token, a wrong one, or no connection.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError
    from huggingface_hub.utils import get_token

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise RecipeError(f"--push takes OWNER/NAME, got {repository!r}")
    if get_token() is None:
        raise RecipeError(f"--push needs a token of the hub: {TOKEN}")
    try:
        HfApi().whoami()
    except LocalTokenNotFoundError:
        raise RecipeError(f"--push needs a token of the hub: {TOKEN}") from None
    except Exception as error:
        raise RecipeError(
            f"--push: the hub does not know this token, or cannot be reached ({_first(error)}): {TOKEN}"
        ) from None


def push(folder: Path, repository: str, private: bool, say: Callable[[str], Any]) -> None:
    """Create the repository if need be and upload the files of `folder`, and no others, naming them first.

    Raises:
        RecipeError: the hub refused; the export stays, and the message says how to upload it later.
    """
    from huggingface_hub import HfApi

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    say(f"uploading to {repository} (if it is new: {'private' if private else 'public'}):")
    for file in files:
        say(f"  {file.relative_to(folder)}  {file.stat().st_size:,} bytes")
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        found = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Export by motif",
            allow_patterns=[str(file.relative_to(folder)) for file in files],
        )
    except Exception as error:
        raise RecipeError(
            f"the upload to {repository} failed ({_first(error)}). The export is in {folder}; to upload it later: "
            f"hf upload {repository} {folder}"
        ) from None
    say(f"uploaded: {getattr(found, 'commit_url', repository)}")


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
