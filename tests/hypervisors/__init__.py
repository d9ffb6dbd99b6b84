"""Stand-ins for VirtualBox and VMware: what Packer 1.6.6 asks of them, and a guest that answers."""
