"""Fixtures that several parts of the tests share."""

from tests.fixtures_libvirt import libvirtd

__all__ = ["libvirtd"]
