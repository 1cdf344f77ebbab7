"""rtkit: a study kit on robust transfer learning."""

import os

__version__ = "0.2.0"

# Read when torch is loaded. Threads that wait by spinning take the processor from those that compute: with a third
# process on two cores, attacks on a small network took ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _shell() -> str:
    """The folder that relative paths start from: this process's or, for a kernel, that of what started it."""
    if os.environ.get("JPY_PARENT_PID") != str(os.getppid()):
        return os.getcwd()
    import psutil  # comes with kernels

    return psutil.Process(os.getppid()).cwd()


# One place, in whatever folder this process and those that it starts work.
for _name in ("RTKIT_RUNS", "RTKIT_DATA"):
    _path = os.path.expanduser(os.environ.get(_name, ""))
    if _path:
        os.environ[_name] = _path if os.path.isabs(_path) else os.path.join(_shell(), _path)

# The notebooks of the kit; copies beside them are none of them.
NOTEBOOKS = ("00_start_here", "01_robust_features_transfer", "02_shape_bias", "03_influence_functions")
NOTEBOOKS += ("04_attack_success", "05_keeping_robustness", "06_accuracy_robustness_tradeoff", "07_scorecard")

# The presets and what their verdicts speak of; None where they are too small to judge anything. Here, so that who only
# reads results knows them without the seconds that importing torch takes.
PRESETS = {"smoke": None, "glyphs": "mechanism", "glyphs-full": "mechanism"}
PRESETS |= dict.fromkeys(("photos", "tiny-imagenet", "cifar"), "small-scale") | {"imagenet": "published networks"}
PUBLISHED = "published"  # in place of a preset: what others published, which nothing here computes
SCOPES = PRESETS | {PUBLISHED: "published results"}
DRAWN, _REAL = ("smoke", "glyphs", "glyphs-full"), ("photos", "cifar")  # of the glyph world, of photographs

RENAMED = {"cifar-small": "'cifar-small' is now the preset 'photos'; its frames lie in results/explored/cifar-small"}

TUNING = range(100, 200)  # seeds that learning rates and worlds were chosen on; no verdict rests on them
CONFIRMATION = range(200, 300)  # seeds that are computed only for a registered protocol, ten for each version
# Each study with the notebook that it stands in and the presets that it runs at.
STUDIES = {
    "transfer": ("01", (*DRAWN, *_REAL, "tiny-imagenet", "imagenet")),
    "shape_bias": ("02", DRAWN),
    "cue_conflict": ("02", _REAL),
    "influence": ("03", (*DRAWN, "photos")),
    "attack_success": ("04", (*DRAWN, *_REAL)),
    "retention": ("05", (*DRAWN, "photos")),
    "tradeoff": ("06", DRAWN),
    "new_test_set": ("06", _REAL),
}
