"""What undoes a publication, and finds what unfinished runs left."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from goldimg.config.publish.aws import AwsPublish
from goldimg.publish.aws.clients import COPY, STATE, Clients, from_tags
from goldimg.publish.aws.errors import DENIED, GONE, NotYet, code_of
from goldimg.publish.job import Session
from goldimg.publish.journal import Resource
from goldimg.publish.publisher import UNFINISHED, Orphan

UNFINISHED_FILTER = [{"Name": f"tag:{STATE}", "Values": [UNFINISHED[STATE]]}]
OVER = frozenset({"IncorrectState", "InvalidConversionTaskId", "InvalidConversionTaskId.Malformed"})


class Remover:
    """Removes and finds resources of any kind that publishing to EC2 makes."""

    def __init__(self, session: Session, clients: Clients) -> None:
        self._session, self._clients = session, clients

    def call(self, service: str, operation: str, region: str, **given: Any) -> Any:
        """What an operation returns, retried by the one policy."""
        function: Callable[..., Any] = getattr(self._clients.get(service, region), operation)
        return self._session.call(lambda: function(**given), what=operation)

    def delete(self, resource: Resource) -> None:
        """Removes a resource; one that is gone already is no error."""
        ways: dict[str, Callable[[Resource], None]] = {
            "image": self._image,
            "snapshot": self._snapshot,
            "snapshot request": self._request,
            "upload": self._upload,
            "object": self._object,
            "import task": self._task,
            "parameter": self._parameter,
        }
        try:
            ways[resource.kind](resource)
        except ClientError as error:
            if code_of(error) not in GONE:
                raise

    def _image(self, resource: Resource) -> None:
        """An image, and the snapshots of a copy: EC2 makes those beside it and tells no id."""
        region = resource.where
        found = self.call("ec2", "describe_images", region, ImageIds=[resource.id])["Images"]
        self.call("ec2", "deregister_image", region, ImageId=resource.id)
        for image in found:
            if COPY not in from_tags(image):
                continue
            for device in image.get("BlockDeviceMappings", ()):
                if id_ := device.get("Ebs", {}).get("SnapshotId"):
                    self.delete(Resource(kind="snapshot", id=str(id_), where=region))

    def _snapshot(self, resource: Resource) -> None:
        client = self._clients.get("ec2", resource.where)

        def delete() -> None:
            try:
                client.delete_snapshot(SnapshotId=resource.id)
            except ClientError as error:
                if code_of(error) == "InvalidSnapshot.InUse":  # for a moment after its image went
                    raise NotYet(str(error)) from error
                raise

        self._session.call(delete, what="delete_snapshot")

    def _request(self, resource: Resource) -> None:
        """The snapshot that a lost answer told of, if there is one."""
        filters = [{"Name": "tag:goldimg-token", "Values": [resource.id]}]
        given = {"OwnerIds": ["self"], "Filters": filters}
        for found in self.call("ec2", "describe_snapshots", resource.where, **given)["Snapshots"]:
            id_ = str(found["SnapshotId"])
            self._snapshot(Resource(kind="snapshot", id=id_, where=resource.where))

    def _upload(self, resource: Resource) -> None:
        place, _, upload = resource.id.rpartition("#")
        bucket, _, key = place.partition("/")
        given = {"Bucket": bucket, "Key": key, "UploadId": upload}
        self.call("s3", "abort_multipart_upload", resource.where, **given)

    def _object(self, resource: Resource) -> None:
        bucket, _, key = resource.id.partition("/")
        self.call("s3", "delete_object", resource.where, Bucket=bucket, Key=key)

    def _task(self, resource: Resource) -> None:
        """Cancels an import; what one that is over has made is removed."""
        region = resource.where
        try:
            self.call("ec2", "cancel_import_task", region, ImportTaskId=resource.id)
            return
        except ClientError as error:
            if code_of(error) not in OVER:
                raise
        for kind, id_ in self._made(resource):
            self.delete(Resource(kind=kind, id=id_, where=region))

    def _made(self, task: Resource) -> list[tuple[str, str]]:
        given = {"ImportTaskIds": [task.id]}
        try:
            if task.id.startswith("import-snap"):
                operation = "describe_import_snapshot_tasks"
                answer = self.call("ec2", operation, task.where, **given)
                details = [it["SnapshotTaskDetail"] for it in answer["ImportSnapshotTasks"]]
                return [("snapshot", it["SnapshotId"]) for it in details if it.get("SnapshotId")]
            answer = self.call("ec2", "describe_import_image_tasks", task.where, **given)
        except ClientError as error:
            if code_of(error) in OVER:
                return []
            raise
        found = []
        for it in answer["ImportImageTasks"]:
            found += [("image", it["ImageId"])] if it.get("ImageId") else []
            disks = it.get("SnapshotDetails", ())
            found += [("snapshot", disk["SnapshotId"]) for disk in disks if disk.get("SnapshotId")]
        return found

    def _parameter(self, resource: Resource) -> None:
        """A parameter that names another image by now stays."""
        name, _, image = resource.id.rpartition("=")
        found = self.call("ssm", "get_parameter", resource.where, Name=name)
        if found["Parameter"]["Value"] == image:
            self.call("ssm", "delete_parameter", resource.where, Name=name)

    def orphans(self, options: AwsPublish, regions: list[str]) -> list[Orphan]:
        """Everything that is marked unfinished, images before their snapshots."""
        found: list[Orphan] = []
        for region in regions:
            given = {"Owners": ["self"], "Filters": UNFINISHED_FILTER}
            for it in self.call("ec2", "describe_images", region, **given)["Images"]:
                at = datetime.fromisoformat(str(it["CreationDate"]))
                found.append(_orphan("image", str(it["ImageId"]), region, from_tags(it), at))
            given = {"OwnerIds": ["self"], "Filters": UNFINISHED_FILTER}
            for it in self.call("ec2", "describe_snapshots", region, **given)["Snapshots"]:
                tags = from_tags(it)
                id_ = str(it["SnapshotId"])
                found.append(_orphan("snapshot", id_, region, tags, it["StartTime"]))
        if options.bucket:
            found += self._in_bucket(options, options.bucket, regions[0])
        return found

    def _in_bucket(self, options: AwsPublish, bucket: str, region: str) -> list[Orphan]:
        found = []
        given = {"Bucket": bucket, "Prefix": options.prefix}
        for it in self.call("s3", "list_multipart_uploads", region, **given).get("Uploads", ()):
            id_ = f"{bucket}/{it['Key']}#{it['UploadId']}"
            found.append(_orphan("upload", id_, region, {}, it.get("Initiated")))
        for it in self.call("s3", "list_objects_v2", region, **given).get("Contents", ()):
            tags = self._object_tags(bucket, str(it["Key"]), region)
            if tags.get(STATE) == UNFINISHED[STATE]:
                id_ = f"{bucket}/{it['Key']}"
                found.append(_orphan("object", id_, region, tags, it.get("LastModified")))
        return found

    def _object_tags(self, bucket: str, key: str, region: str) -> dict[str, str]:
        try:
            found = self.call("s3", "get_object_tagging", region, Bucket=bucket, Key=key)
        except ClientError as error:
            if code_of(error) in GONE | DENIED:
                return {}
            raise
        return {tag["Key"]: tag["Value"] for tag in found["TagSet"]}


def _orphan(kind: str, id_: str, region: str, tags: dict[str, str], at: datetime | None) -> Orphan:
    age = (datetime.now(UTC) - at).total_seconds() if at else None
    resource = Resource(kind=kind, id=id_, where=region)
    return Orphan(resource=resource, run_id=tags.get("goldimg-run", ""), age=age)
