"""EC2 instances and launch templates, as far as they tell which image they use.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeLaunchTemplateVersions.html
"""

from __future__ import annotations

from typing import Any

from tests.clouds.aws_server.protocol import Refusal
from tests.clouds.aws_server.state import Region, new_id

Answer = dict[str, Any]


class Instances:
    """The actions on instances and templates of one region."""

    region: Region

    def run_instances(self, given: Answer) -> Answer:
        if given["ImageId"] not in self.region.images:
            text = f"The image id '[{given['ImageId']}]' does not exist"
            raise Refusal("InvalidAMIID.NotFound", text)
        id_ = new_id("i")
        made = {"InstanceId": id_, "ImageId": given["ImageId"], "State": {"Name": "running"}}
        self.region.instances[id_] = made
        return {"Instances": [made]}

    def terminate_instances(self, given: Answer) -> None:
        for id_ in given["InstanceIds"]:
            self.region.instances[id_]["State"] = {"Name": "terminated"}

    def describe_instances(self, given: Answer) -> Answer:
        """One instance a page, as the API may choose to."""
        from tests.clouds.aws_server.ec2 import selected

        found = [
            it
            for it in self.region.instances.values()
            if selected({}, given.get("Filters", []), image_id=it["ImageId"],
                        instance_state_name=it["State"]["Name"])
        ]  # fmt: skip
        at = int(given.get("NextToken") or 0)
        page = {"Reservations": [{"Instances": [it]} for it in found[at : at + 1]]}
        return {**page, "NextToken": str(at + 1)} if at + 1 < len(found) else page

    def create_launch_template(self, given: Answer) -> None:
        image = given["LaunchTemplateData"]["ImageId"]
        self.region.templates[given["LaunchTemplateName"]] = image

    def describe_launch_template_versions(self, given: Answer) -> Answer:
        from tests.clouds.aws_server.ec2 import selected

        if not set(given.get("Versions", ())) <= {"$Latest", "$Default"}:
            raise Refusal("MissingParameter", "a template must be named")
        return {
            "LaunchTemplateVersions": [
                {"LaunchTemplateName": name, "LaunchTemplateData": {"ImageId": image}}
                for name, image in self.region.templates.items()
                if selected({}, given.get("Filters", []), image_id=image)
            ]
        }
