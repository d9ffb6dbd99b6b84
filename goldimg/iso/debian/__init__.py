"""Assembles an installer ISO out of Debian packages, which installs Debian by kickstart."""
