"""rtkit: a study kit on robust transfer learning."""

import os

__version__ = "0.1.0"

# Read when torch is loaded. Threads that wait by spinning take the processor from those that compute: with a third
# process on two cores, attacks on a small network took ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The presets and what their verdicts speak of; None where they are too small to judge anything. Without the rest of
# `presets`, so that the command line knows them without the seconds that importing torch takes.
PRESETS = {"smoke": None, "glyphs": "mechanism", "glyphs-full": "mechanism"}
PRESETS |= {"cifar-small": "small-scale", "cifar": "small-scale", "imagenet": "published networks"}
