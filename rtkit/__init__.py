"""rtkit: a study kit on robust transfer learning."""

import os

__version__ = "0.2.0"

# Read when torch is loaded. Threads that wait by spinning take the processor from those that compute: with a third
# process on two cores, attacks on a small network took ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The presets and what their verdicts speak of; None where they are too small to judge anything. Here, so that who only
# reads results knows them without the seconds that importing torch takes.
PRESETS = {"smoke": None, "glyphs": "mechanism", "glyphs-full": "mechanism"}
PRESETS |= {"cifar-small": "small-scale", "cifar": "small-scale", "imagenet": "published networks"}

DRAWN, _REAL = (
    ("smoke", "glyphs", "glyphs-full"),
    ("cifar-small", "cifar"),
)  # presets of the glyph world, of photographs
# Each study with the notebook that it stands in and the presets that it runs at.
STUDIES = {
    "transfer": ("01", (*DRAWN, *_REAL, "imagenet")),
    "shape_bias": ("02", DRAWN),
    "cue_conflict": ("02", _REAL),
    "influence": ("03", (*DRAWN, "cifar-small")),
    "attack_success": ("04", (*DRAWN, *_REAL)),
    "retention": ("05", DRAWN),
    "tradeoff": ("06", DRAWN),
    "new_test_set": ("06", _REAL),
}
