"""Resource groups, providers, storage accounts."""

from __future__ import annotations

import re

from tests.clouds.arm.service import Answer, Asked, Body, Manager, Refusal

SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
REGIONS = ("West Europe", "North Europe", "East US")
ROOT = f"/subscriptions/{SUBSCRIPTION}"
GROUP = r"/subscriptions/(?P<sub>[^/]+)/resourcegroups/(?P<group>[^/]+)"
STORAGE = r"/providers/microsoft\.storage"
ACCOUNT_TYPE = "Microsoft.Storage/storageAccounts"


def plain(region: object) -> str:
    """`West Europe` and `westeurope` are the same region."""
    return str(region).lower().replace(" ", "")


def check_region(region: object) -> str:
    """The region's name, where this subscription has it."""
    if plain(region) not in {plain(it) for it in REGIONS}:
        raise Refusal(
            400,
            "LocationNotAvailableForResourceType",
            f"The provided location '{region}' is not available.",
        )
    return plain(region)


class Groups:
    """Routes of Microsoft.Resources and Microsoft.Storage."""

    def __init__(self, manager: Manager, accounts: dict[str, str]) -> None:
        self.manager = manager
        self.accounts = accounts  # name -> URL of its blobs: all that Azurite serves
        self.taken = {"takenbyothers"}
        self.registered = {"Microsoft.Compute", "Microsoft.Storage"}
        manager.routes += [
            (r"/subscriptions/(?P<sub>[^/]+)", self.subscription),
            (r"/subscriptions/(?P<sub>[^/]+)/providers/(?P<name>Microsoft\.\w+)", self.provider),
            (GROUP, self.group),
            (GROUP + "/resources", self.resources),
            (
                GROUP + r"/providers/microsoft\.storage/storageaccounts/(?P<name>[^/]+)",
                self.account,
            ),
            (
                r"/subscriptions/(?P<sub>[^/]+)/providers/microsoft\.storage/checknameavailability",
                self.available,
            ),
        ]

    def _known(self, asked: Asked) -> None:
        if asked.parts["sub"].lower() != SUBSCRIPTION:
            raise Refusal(404, "SubscriptionNotFound", "The subscription could not be found.")

    def subscription(self, asked: Asked) -> Answer:
        self._known(asked)
        return Answer(status=200, body={"subscriptionId": SUBSCRIPTION, "displayName": "tests"})

    def provider(self, asked: Asked) -> Answer:
        self._known(asked)
        name = asked.parts["name"]
        types = ("images", "disks", "galleries", "galleries/images/versions", "storageAccounts")
        state = "Registered" if name in self.registered else "NotRegistered"
        kinds = [{"resourceType": it, "locations": list(REGIONS)} for it in types]
        return Answer(
            status=200,
            body={"namespace": name, "registrationState": state, "resourceTypes": kinds},
        )

    def group(self, asked: Asked) -> Answer:
        self._known(asked)
        key = asked.path.lower()
        if asked.method == "PUT":
            if not re.fullmatch(r"[\w().-]{0,89}[\w()-]", asked.parts["group"]):
                raise Refusal(400, "InvalidResourceGroup", "The name is not valid.")
            found = self.manager.resources.get(key)
            where = check_region(asked.body["location"])
            if found and found["location"] != where:
                raise Refusal(409, "InvalidResourceGroupLocation", "It is in another location.")
            self.manager.resources[key] = new_resource(
                asked, "Microsoft.Resources/resourceGroups", where
            )
            return Answer(status=200 if found else 201, body=self.manager.resources[key])
        resource = self.manager.get(asked.path)
        if asked.method == "DELETE":
            return Answer(
                status=202, operation=self.manager.begin(lambda: self._drop(key), location=True)
            )
        return Answer(status=200, body=resource)

    def _drop(self, key: str) -> None:
        for name in [it for it in self.manager.resources if it == key or it.startswith(key + "/")]:
            del self.manager.resources[name]

    def resources(self, asked: Asked) -> Answer:
        self._known(asked)
        group = asked.path.rpartition("/")[0]
        self.manager.get(group)
        return Answer(status=200, body={"value": self.manager.under(group)})

    def available(self, asked: Asked) -> Answer:
        name = str(asked.body["name"])
        is_valid = bool(re.fullmatch("[a-z0-9]{3,24}", name))
        ours = [it for it in self.manager.under(ROOT, ACCOUNT_TYPE) if it["name"] == name]
        free = is_valid and name not in self.taken and not ours
        reason = "AlreadyExists" if is_valid else "AccountNameInvalid"
        more = {} if free else {"reason": reason, "message": f"'{name}': {reason}"}
        return Answer(status=200, body={"nameAvailable": free, **more})

    def account(self, asked: Asked) -> Answer:
        self._known(asked)
        self.manager.get(asked.path.split("/providers/")[0])
        key, name = asked.path.lower(), asked.parts["name"]
        if asked.method == "PUT":
            return self._create(asked, key, name)
        resource = self.manager.get(asked.path)
        if asked.method == "DELETE":
            del self.manager.resources[key]
            return Answer(status=200)
        return Answer(status=200, body=resource)

    def _create(self, asked: Asked, key: str, name: str) -> Answer:
        if not re.fullmatch("[a-z0-9]{3,24}", name):
            raise Refusal(400, "AccountNameInvalid", f"{name} is not a valid account name.")
        if name in self.taken or name not in self.accounts:
            raise Refusal(409, "StorageAccountAlreadyTaken", f"{name} is already taken.")
        if "sku" not in asked.body or "kind" not in asked.body:
            raise Refusal(400, "InvalidRequestContent", "sku and kind are required")
        resource = new_resource(asked, ACCOUNT_TYPE, check_region(asked.body["location"]))
        resource |= {"sku": asked.body["sku"], "kind": asked.body["kind"]}
        resource["properties"] |= {
            "primaryEndpoints": {"blob": self.accounts[name]},
            "provisioningState": "Succeeded",
        }

        def finish() -> None:
            self.manager.resources[key] = resource

        operation = self.manager.begin(finish, type_=ACCOUNT_TYPE, location=True)
        self.manager.operations[operation].result = resource
        return Answer(status=202, operation=operation)


def new_resource(asked: Asked, type_: str, location: str) -> Body:
    """What a PUT makes; provisioningState comes with the operation's end."""
    return {
        "id": asked.path,
        "name": asked.path.rpartition("/")[2],
        "type": type_,
        "location": location,
        "tags": dict(asked.body.get("tags") or {}),
        "properties": dict(asked.body.get("properties") or {}),
    }
