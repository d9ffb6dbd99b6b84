"""Installer ISOs: fetched from their servers, or assembled out of packages."""
