"""Vagrant catalogs: JSON files that tell Vagrant which versions of a box there are, and where.

Source of the format: Vagrant, "Box File Format", section "Box Metadata"; what Vagrant 2.3.4 makes
of it: its lib/vagrant/box_metadata.rb. `version` orders versions as Vagrant does, `boxes` finds
what was built, `merge` is pure and makes a catalog for any URL base, `check` finds faults, `local`
keeps the site's own catalogs in artifacts/, `add` hands one to Vagrant.
"""
