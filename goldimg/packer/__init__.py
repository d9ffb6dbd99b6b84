"""Packer boots and provisions, and nothing else: templates in, a disk out, events on the way."""
