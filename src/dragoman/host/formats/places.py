"""Where a system keeps the settings of its programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["home", "settings_folder"]


def home(environ: Mapping[str, str], platform: str) -> Path:
    """The user's folder."""
    said = environ.get("USERPROFILE" if platform == "win32" else "HOME")
    return Path(said) if said else Path.home()


def settings_folder(environ: Mapping[str, str], platform: str) -> Path:
    """The folder in which each program has one of its own."""
    if platform == "win32":
        said = environ.get("APPDATA")
        return Path(said) if said else home(environ, platform) / "AppData" / "Roaming"
    if platform == "darwin":
        return home(environ, platform) / "Library" / "Application Support"
    said = environ.get("XDG_CONFIG_HOME")
    return Path(said) if said else home(environ, platform) / ".config"
