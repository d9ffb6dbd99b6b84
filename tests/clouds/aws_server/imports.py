"""VM Import/Export: an object of S3 becomes a snapshot or an image.

What lies in S3 is read by qemu-img, so that an import proves the file and not only its upload.
https://docs.aws.amazon.com/vm-import/latest/userguide/vmimport-import-snapshot.html
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moto.iam.models import iam_backends
from moto.s3.models import s3_backends

from tests.clouds.aws_server.protocol import Refusal
from tests.clouds.aws_server.state import (
    ACCOUNT,
    BLOCK,
    Image,
    Region,
    Task,
    World,
    new_id,
    tags_of,
)

Answer = dict[str, Any]
FORMATS = {"VMDK": "vmdk", "RAW": "raw", "VHD": "vpc", "VHDX": "vhdx"}
NO_ROLE = "The service role {} provided does not exist or does not have sufficient permissions"


class Imports:
    """The actions on import tasks of one region."""

    world: World
    region: Region

    def import_snapshot(self, given: Answer) -> Answer:
        container = given.get("DiskContainer", {})
        if container.get("Format", "").upper() not in FORMATS:
            raise Refusal("InvalidParameter", f"The format {container.get('Format')} is not known")
        task = self._begin("import-snap", given, container.get("UserBucket", {}))
        return {"ImportTaskId": task.id, "SnapshotTaskDetail": self._snapshot_detail(task)}

    def import_image(self, given: Answer) -> Answer:
        containers = given.get("DiskContainers", [])
        if len(containers) != 1 or containers[0].get("Format", "").lower() != "ova":
            raise Refusal("InvalidParameter", "an OVA is the only container of an import")
        if given.get("BootMode") in ("uefi", "uefi-preferred") and given.get("Platform") == "Linux":
            raise Refusal("InvalidParameter", "Linux images with UEFI cannot be imported")
        task = self._begin("import-ami", given, containers[0].get("UserBucket", {}))
        return {"ImportTaskId": task.id, "Status": "active", "StatusMessage": "pending"}

    def _begin(self, kind: str, given: Answer, place: dict[str, str]) -> Task:
        token = given.get("ClientToken", "")
        if token in self.region.tokens:
            before, id_ = self.region.tokens[token]
            if before != given:
                raise Refusal("IdempotentParameterMismatch", "the token was used otherwise")
            return self.region.tasks[id_]
        role = given.get("RoleName", "vmimport")
        roles = iam_backends[ACCOUNT]["aws"].roles.values()
        if role not in [it.name for it in roles]:
            raise Refusal("InvalidParameter", NO_ROLE.format(role))
        self._object(place)
        tag_kind = "import-snapshot-task" if kind == "import-snap" else "import-image-task"
        steps = [("active", "pending"), ("active", "downloading/converting")] * self.world.polls
        end = self.world.end_as.get(kind)
        steps += [("deleting", end[1]), end] if end else [("completed", "")]
        task = Task(
            id=f"{kind}-{new_id('x')[2:]}",
            kind=kind,
            given={**given, "place": place},
            steps=steps,
            tags=tags_of(given, tag_kind),
        )
        self.region.tasks[task.id] = task
        if token:
            self.region.tokens[token] = (given, task.id)
        return task

    def _object(self, place: dict[str, str]) -> Any:
        buckets = s3_backends[ACCOUNT]["aws"].buckets
        bucket = buckets.get(place.get("S3Bucket", ""))
        key = bucket.keys.get(place.get("S3Key", "")) if bucket else None
        if key is None:
            raise Refusal("InvalidParameter", "Image file not found")
        if bucket.region_name != self.region.name:
            raise Refusal("InvalidParameter", "The bucket is in another region")
        return key

    def _step(self, task: Task) -> None:
        if len(task.steps) > 1:
            task.steps.pop(0)
        if task.steps[0][0] == "completed" and not task.snapshot:
            self._convert(task)

    def _convert(self, task: Task) -> None:
        file = self.world.directory / f"{task.id}.import"
        try:
            with file.open("wb") as stream:
                stream.write(self._object(task.given["place"]).value)
            if task.kind == "import-ami":
                file = _disk_of(file)
            name = task.given.get("DiskContainer", {}).get("Format", "VMDK").upper()
            raw = file.with_suffix(".raw")
            command: list[str | Path] = [
                "qemu-img",
                "convert",
                "-f",
                FORMATS[name],
                "-O",
                "raw",
                file,
                raw,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                message = f"ClientError: Disk validation failed [{done.stderr.strip()}]"
                task.steps = [("deleting", message), ("deleted", message)]
                return
            self._adopt(task, raw)
        finally:
            file.unlink(missing_ok=True)

    def _adopt(self, task: Task, raw: Path) -> None:
        size = -(-raw.stat().st_size // (1 << 30))
        snapshot = self.world.new_snapshot(
            self.region,
            size,
            state="completed",
            is_sealed=True,
            description=f"Created by AWS-VMImport service for {task.id}",
            encrypted=task.given.get("Encrypted", False),
            kms_key=task.given.get("KmsKeyId", ""),
        )
        shutil.move(raw, snapshot.path)
        with snapshot.path.open("r+b") as stream:
            stream.truncate(size << 30)
        for index in _filled(snapshot.path):
            snapshot.digests[index] = b"?"  # VM Import tells none
        task.snapshot = snapshot.id
        if task.kind == "import-ami":
            root = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot.id}}
            image = Image(
                id=new_id("ami"),
                name=task.id,
                snapshot=snapshot.id,
                given={"RootDeviceName": "/dev/sda1", "BlockDeviceMappings": [root]},
            )
            self.region.images[image.id] = image
            task.image = image.id

    def describe_import_snapshot_tasks(self, given: Answer) -> Answer:
        found = []
        for task in self._tasks(given, "import-snap"):
            self._step(task)
            found.append(
                {"ImportTaskId": task.id, "SnapshotTaskDetail": self._snapshot_detail(task)}
            )
        return {"ImportSnapshotTasks": found}

    def _snapshot_detail(self, task: Task) -> Answer:
        status, message = task.steps[0]
        place = task.given["place"]
        return {
            "Status": status,
            "StatusMessage": message or None,
            "Progress": "19" if status == "active" else None,
            "SnapshotId": task.snapshot,  # "" until there is one, as AWS answers
            "UserBucket": {"S3Bucket": place["S3Bucket"], "S3Key": place["S3Key"]},
        }

    def describe_import_image_tasks(self, given: Answer) -> Answer:
        found = []
        for task in self._tasks(given, "import-ami"):
            self._step(task)
            status, message = task.steps[0]
            disk = {"SnapshotId": task.snapshot, "DeviceName": "/dev/sda1", "Status": status}
            found.append(
                {
                    "ImportTaskId": task.id,
                    "Status": status,
                    "StatusMessage": message or None,
                    "ImageId": task.image or None,
                    "SnapshotDetails": [disk] if task.snapshot else [],
                }
            )
        return {"ImportImageTasks": found}

    def _tasks(self, given: Answer, kind: str) -> list[Task]:
        asked = given.get("ImportTaskIds", [])
        for id_ in asked:
            if id_ not in self.region.tasks:
                raise Refusal("InvalidConversionTaskId.Malformed", f"no import task {id_}")
        tasks = [it for it in self.region.tasks.values() if it.kind == kind]
        return [it for it in tasks if not asked or it.id in asked]

    def cancel_import_task(self, given: Answer) -> Answer:
        id_ = given.get("ImportTaskId", "")
        if id_ not in self.region.tasks:
            raise Refusal("InvalidConversionTaskId.Malformed", f"no import task {id_}")
        task = self.region.tasks[id_]
        if task.steps[0][0] != "active":
            raise Refusal("IncorrectState", f"{id_} is {task.steps[0][0]}")
        task.steps = [("deleting", "cancelled by the user"), ("deleted", "cancelled by the user")]
        return {"ImportTaskId": id_, "PreviousState": "active", "State": "deleting"}


def _filled(raw: Path) -> Iterator[int]:
    """The blocks of a sparse file that hold a byte other than zero."""
    zero = bytes(BLOCK)
    with raw.open("rb") as stream:
        for start in range(0, raw.stat().st_size, BLOCK):
            with contextlib.suppress(OSError):  # only a hole is left
                if os.lseek(stream.fileno(), start, os.SEEK_DATA) < start + BLOCK:
                    stream.seek(start)
                    if stream.read(BLOCK).ljust(BLOCK, b"\0") != zero:
                        yield start // BLOCK


def _disk_of(ova: Path) -> Path:
    """The disk in an archive, beside it."""
    target = ova.with_suffix(".vmdk")
    with tarfile.open(ova) as archive:
        name = next(it for it in archive.getnames() if it.endswith(".vmdk"))
        member = archive.extractfile(name)
        assert member is not None
        with target.open("wb") as stream:
            shutil.copyfileobj(member, stream)
    ova.unlink()
    return target
