"""Fixtures that several parts of the tests share."""

from tests.fixtures_appliance import appliance_cache, tiny
from tests.fixtures_libvirt import libvirtd

__all__ = ["appliance_cache", "libvirtd", "tiny"]
