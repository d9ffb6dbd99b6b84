"""Publishes to Azure: check, find, send, import, record. The parts are in this package."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from goldimg.config.publish.azure import AzurePublish
from goldimg.errors import ConfigError, GoldimgError
from goldimg.publish.azure import blob, disk, faults, gallery, image, places
from goldimg.publish.azure.arm import Body, is_ours, properties, state_of
from goldimg.publish.azure.checking import Checker
from goldimg.publish.azure.clients import Clients
from goldimg.publish.azure.names import Names, names_of, regions_of
from goldimg.publish.azure.promoting import Promoter
from goldimg.publish.azure.sweeping import find_orphans
from goldimg.publish.job import Job, Session
from goldimg.publish.journal import Resource
from goldimg.publish.promotion import Promoting, Promotion, Use
from goldimg.publish.publisher import Orphan, Preview, Publication, Publisher

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

VERIFIED = "verified"  # in the journal: how what was sent was proven


class AzurePublisher(Publisher[AzurePublish]):
    """One subscription and resource group; images, or versions in a gallery."""

    name = "azure"
    artifact = "vhd"
    digests = ("md5",)

    def __init__(self, options: AzurePublish, session: Session) -> None:
        super().__init__(options, session)
        self.subscription = options.subscription or os.environ.get("AZURE_SUBSCRIPTION_ID", "")
        self.clients = Clients(options.cloud, self.subscription, workers=options.workers)
        self.places = places.Places(session, self.clients, options)

    @property
    def target(self) -> str:
        options = self.options
        way = "disk" if options.via == "disk" else f"{options.storage_account}/{options.container}"
        kind = f"gallery {options.gallery.name}" if options.gallery else "image"
        cloud = "" if options.cloud == "public" else f"{options.cloud} "
        return f"{cloud}{self.subscription or 'no subscription'}/{options.group} {kind} by {way}"

    def check(self, job: Job) -> Preview:
        self._check_settings()
        return Checker(self.places, self.clients, self.options, self._gallery(job)).check(job)

    def _check_settings(self) -> None:
        options, missing = self.options, []
        if not self.subscription:
            missing.append("subscription (or AZURE_SUBSCRIPTION_ID)")
        missing += [key for key in ("group", "regions") if not getattr(options, key)]
        if options.via == "blob" and not options.storage_account:
            missing.append("storage_account (or via: disk)")
        if missing:
            raise ConfigError(
                "azure: publish.azure lacks " + ", ".join(missing),
                hint="see docs/upload-azure.md, or --var publish.azure.<key>=<value>",
            )

    def _names(self, job: Job) -> Names:
        return names_of(job.image, self.options)

    def _gallery(self, job: Job) -> gallery.Gallery | None:
        if self.options.gallery is None:
            return None
        names = self._names(job)
        return gallery.Gallery(job, self.clients, self.options, self.places.group, names)

    def _image(self, job: Job) -> image.ManagedImage:
        names = self._names(job)
        return image.ManagedImage(job, self.clients, self.options, self.places.group, names)

    def _blob(self, job: Job) -> BlobClient:
        name = self._names(job).blob
        return self.places.service().get_blob_client(self.options.container, name)

    def find(self, job: Job) -> Publication | None:
        shelf = self._gallery(job)
        if shelf is None:
            return self._find_image(job)
        number, there = shelf.version_of(job)
        if there is None or not is_ours(job, there):
            self._check_blob_free(job)
            return None
        if state_of(there) != "Succeeded" or not shelf.is_as_wanted(there):
            return None
        resource = Resource(kind=gallery.VERSION, id=shelf.version_id(number))
        return self._published(job, resource, there, shelf)

    def _find_image(self, job: Job) -> Publication | None:
        managed = self._image(job)
        there = managed.look()
        managed.check_free(job, there)
        if there is None or not is_ours(job, there):
            self._check_blob_free(job)
            return None
        if state_of(there) != "Succeeded":
            return None
        return self._published(job, Resource(kind=image.KIND, id=managed.id), there, None)

    def _check_blob_free(self, job: Job) -> None:
        if self.options.via == "blob" and (account := self.places.find_account()):
            service = self.places.service(account)
            client = service.get_blob_client(self.options.container, self._names(job).blob)
            blob.check_free(job, blob.look(job, client), client.url.split("?")[0])

    def publish(self, job: Job) -> Publication:
        shelf = self._gallery(job)
        if shelf is not None and (found := self._there_already(job, shelf)):
            return found
        self._make_places(job)
        sent = self._send(job)
        job.note(VERIFIED, sent.verified)
        if shelf is None:
            resource = self._image(job).make(job, sent)
            there = image.look(job, self.clients, resource.id)
        else:
            if shelf.look() is None:
                shelf.make(job)
            if shelf.look_definition() is None:
                shelf.make_definition(job)
            resource = shelf.make_version(job, sent)
            there = gallery.look(job, self.clients, resource.id)
        return self._published(job, resource, there or {}, shelf, sent)

    def _there_already(self, job: Job, shelf: gallery.Gallery) -> Publication | None:
        """A version of ours that is there already: waited for, and brought up to date."""
        number, there = shelf.version_of(job)
        if there is None or not is_ours(job, there):
            return None
        job.phase("importing")
        there = shelf.settle(job, number)
        if there is None:
            return None
        resource = Resource(kind=gallery.VERSION, id=shelf.version_id(number))
        if not shelf.is_as_wanted(there):
            resource = shelf.update(job, there)
            there = gallery.look(job, self.clients, resource.id) or there
        return self._published(job, resource, there, shelf)

    def _make_places(self, job: Job) -> None:
        if not self.options.create:
            return
        job.phase("preparing")
        if self.places.find_group(self.places.group) is None:
            self.places.make_group(job)
        if self.options.via != "blob":
            return
        if self.places.find_account() is None:
            self.places.make_account(job)
        service = self.places.service()
        if not self.places.has_container(service):
            self.places.make_container(job, service)

    def _send(self, job: Job) -> blob.Sent:
        options = self.options
        if options.via == "disk":
            names = self._names(job)
            return disk.upload(job, self.clients, options, names, self.places.group)
        sent = blob.upload(
            job,
            self._blob(job),
            workers=options.workers,
            verify=options.verify,
            is_temporary=not options.keep_blob,
        )
        sent.source["account"] = self.places.account_id
        return sent

    def _published(
        self,
        job: Job,
        resource: Resource,
        there: Body,
        shelf: gallery.Gallery | None,
        sent: blob.Sent | None = None,
    ) -> Publication:
        kept = self._kept_blob(job)
        regions = [self.places.region]
        extra: dict[str, Any] = {"generation": self._names(job).generation}
        if shelf is not None:
            wanted = regions_of(self.options, shelf.settings)
            regions = [it.name for it in wanted]
            profile = properties(there).get("publishingProfile") or {}
            extra |= {
                "gallery": shelf.id,
                "definition": shelf.names.definition,
                "version": resource.id.rpartition("/")[2],
                "replicas": {it.name: it.replicas for it in wanted},
                "exclude_from_latest": bool(profile.get("excludeFromLatest")),
                "end_of_life": profile.get("endOfLifeDate"),
            }
        before = job.journal.get(VERIFIED) or "by the run that sent it"
        return Publication(
            name=resource.id.split("/providers/")[-1],
            ids=dict.fromkeys(regions, resource.id),
            resources=(resource, *([kept] if kept else [])),
            urls=(kept.id,) if kept else (),
            hashes=sent.hashes if sent else {"sha256": job.journal.image},
            verified=sent.verified if sent else str(before),
            extra=extra,
        )

    def _kept_blob(self, job: Job) -> Resource | None:
        """The VHD's blob, where it stays."""
        if self.options.via != "blob" or not self.options.keep_blob:
            return None
        if self.places.find_account() is None:
            return None
        client = self._blob(job)
        found = blob.look(job, client)
        if found is None or not blob.is_ours(job, found):
            return None
        return Resource(kind=blob.KIND, id=blob.plain_url(client))

    def delete(self, resource: Resource) -> None:
        session, clients, timeout = self.session, self.clients, float(self.options.timeout)
        if resource.kind == blob.KIND:
            self._delete_blob(resource.id)
        elif resource.kind == places.CONTAINER:
            self._delete_container(resource.id)
        elif resource.kind == places.ACCOUNT:
            self.places.delete_account(resource.id)
        elif resource.kind == places.GROUP:
            self.places.delete_group(resource.id)
        elif resource.kind == disk.KIND:
            disk.delete(session, clients, resource.id, timeout)
        elif resource.kind == image.KIND:
            image.delete(session, clients, resource.id, timeout)
        else:
            gallery.delete(session, clients, resource.id, timeout)

    @property
    def _promoter(self) -> Promoter:
        return Promoter(self.session, self.clients, float(self.options.timeout))

    def promoting(self, promotion: Promotion) -> Promoting:
        return self._promoter.promoting(promotion)

    def use(self, publication: Publication) -> Use:
        return self._promoter.use(publication)

    def _within(self, url: str) -> tuple[Any, str]:
        """The account's service and what follows its URL; the account of the settings only."""
        service = self.places.service()
        root = service.url.split("?")[0].rstrip("/") + "/"
        if not url.startswith(root):
            raise GoldimgError(f"azure: {url} is not in the storage account {self.places.account}")
        return service, url.removeprefix(root)

    def _delete_blob(self, url: str) -> None:
        if self.places.find_account() is None:
            return
        service, rest = self._within(url)
        container, _, name = rest.partition("/")
        blob.delete(self.session, service.get_blob_client(container, name))

    def _delete_container(self, url: str) -> None:
        if self.places.find_account() is None:
            return
        service, name = self._within(url)
        self.places.delete_container(service, name)

    def orphans(self) -> list[Orphan]:
        self._check_settings()
        return find_orphans(self.session, self.clients, self.options, self.places)

    def is_transient(self, error: BaseException) -> bool:
        return faults.is_transient(error)

    def explain(self, error: BaseException) -> GoldimgError:
        return faults.explained(error)
