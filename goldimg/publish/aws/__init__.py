"""Publishing to Amazon EC2: a snapshot out of the OVA's disk, an image of it, copies, sharing.

publisher.py  the Publisher: check, find, publish, delete, orphans
preflight.py  what can be told before the first byte
planned.py    the calls that will be made
blocks.py     the disk straight into a snapshot, by the EBS direct API
bucket.py     a file into S3, in parts
imports.py    VM Import: an object of S3 into a snapshot
images.py     images and their copies: found, registered, replaced
sharing.py    what they get once all are there: users, a date, a parameter
removal.py    what undoes all that, and finds what was left
errors.py     which errors pass, and what the others mean
"""

from goldimg.publish.aws.publisher import PUBLISHER

__all__ = ["PUBLISHER"]
