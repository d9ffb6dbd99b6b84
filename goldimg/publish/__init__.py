"""Publishing: artifacts into the places where they run; found, sent, verified, imported, recorded.

`goldimg.publish.<provider>` holds each provider's Publisher under the name PUBLISHER; upload.py
drives any of them through the same steps:

    check     read-only: settings, names, credentials, permissions, the artifact's format
    find      is this very image there already?
    publish   send, verify, import, wait, tag, share
    record    a Publication in manifest.json

What a run creates is written to its journal first. A failed or interrupted run undoes what cannot
be gone on with, and says what it keeps; the same command goes on from there.
"""
