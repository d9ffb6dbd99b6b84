#!/bin/sh
# mmdebstrap's setup hook: what the packages' own installation must already find.
#   setup.sh ROOT DATA
set -eu
cp -R "$2/root/." "$1/"
chmod -R u=rwX,go=rX "$1/etc"
chmod 755 "$1"/etc/initramfs-tools/hooks/*
