"""Kickstarts: options from files, text from templates, checks before use, a server for a build."""
