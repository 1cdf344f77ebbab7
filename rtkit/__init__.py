"""rtkit: a study kit on robust transfer learning."""

__version__ = "0.1.0"

# By name only: the command line must know them without the seconds that importing torch takes.
PRESETS = ("smoke", "glyphs", "glyphs-full")
