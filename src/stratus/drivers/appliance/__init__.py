"""How does the cloud have something to start before anybody has imported an image?

It builds the 'tiny' appliance: a small bootable disk made of the distribution's own packages.
"""

from stratus.drivers.appliance.failure import ApplianceFailed
from stratus.drivers.appliance.tiny import PACKAGES, ApplianceBuilt, tiny_build

__all__ = ["PACKAGES", "ApplianceBuilt", "ApplianceFailed", "tiny_build"]
