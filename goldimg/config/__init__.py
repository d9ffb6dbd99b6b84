"""Configuration: what users write, validated once, every error at once."""

from goldimg.config.models import Installer, OsFile, Settings, SiteFile
from goldimg.config.settings import list_oses, load_settings

__all__ = ["Installer", "OsFile", "Settings", "SiteFile", "list_oses", "load_settings"]
