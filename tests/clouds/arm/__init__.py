"""A small Azure Resource Manager: groups, storage accounts, disks, images, Compute Galleries.

It is written after Microsoft's REST reference and the models of azure-mgmt-compute, which also
check each body's keys, types and enumerations. It enforces what the documentation says of names,
of states, of what may be changed or deleted when, and of asynchronous operations (201 or 202,
Azure-AsyncOperation or Location, Retry-After). A VHD that an image is made of is really read, in
Azurite.

It does not prove: how Azure words its errors beyond their codes; how long anything takes; what
policies, locks, roles and quotas of a real subscription forbid; that an image boots. What the
documentation leaves open (whether a version that is being created can be deleted) is answered by
the stricter choice.
"""
