"""rtkit: a study kit on robust transfer learning."""

__version__ = "0.1.0"
