"""OpenStack: a qcow2 into Glance, of any cloud that clouds.yaml or the environment names."""

from goldimg.publish.openstack.publisher import OpenstackPublisher as PUBLISHER

__all__ = ["PUBLISHER"]
