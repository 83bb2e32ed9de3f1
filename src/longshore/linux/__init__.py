"""Thin typed calls into the kernel: mount, namespaces, netlink, nftables, cgroups, xattrs.

No policy: a function here does what the kernel interface of that name does, and raises OSError.
"""
