"""goldimg: golden images from an installer ISO, a kickstart and playbooks."""

__version__ = "0.1.0"
