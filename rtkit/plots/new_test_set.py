"""The figure of notebook 06's section on new images."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rtkit.plots import COLOURS, MARKERS, axes, summary
from rtkit.studies.new_test_set import NETWORKS, NEW, OLD

# Those that are no plain source network: hollow, in the colour of their kind.
_HOLLOW = {
    "robust, twice the radius": "d",
    "standard, a third of the steps": "v",
    "standard, an eighth of the steps": "^",
}


def old_and_new(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Accuracy on all new images against that on all old ones, a mark per network: means with 95 % intervals.

    Dashed, where both are equal; solid, the least-squares line through the marks. The intervals are over replicates,
    which share the images. As figure 1 of Recht et al. 2019.
    """
    ax = axes(ax, (8, 5))
    table = summary(frame[frame.metric == "clean_accuracy"], ["network", "images"]).set_index(["images", "network"])
    old, new = table.loc[OLD], table.loc[NEW].reindex(table.loc[OLD].index)
    for name in [name for name in NETWORKS if name in old.index]:
        x, y, kind = old.loc[name], new.loc[name], NETWORKS[name][0]
        xerr, yerr = (np.nan_to_num([[at["mean"] - at["low"]], [at["high"] - at["mean"]]]) for at in (x, y))
        ax.errorbar(x["mean"], y["mean"], xerr=xerr, yerr=yerr, ls="none", capsize=3, lw=1.4, ms=8, label=name,
                    color=COLOURS[kind], marker=_HOLLOW.get(name, MARKERS[kind]),
                    mfc="white" if name in _HOLLOW else COLOURS[kind])  # fmt: skip
    ends = np.array([min(old["mean"].min(), new["mean"].min()) - 3, max(old["mean"].max(), new["mean"].max()) + 3])
    ax.plot(ends, ends, ls="--", color="#7F7F7F", lw=1, label="as on the old images")
    rise, height = np.polyfit(old["mean"], new["mean"], 1)
    reach = np.array([old["mean"].min() - 2, old["mean"].max() + 2])
    ax.plot(reach, rise * reach + height, color="black", lw=1, label="least squares")
    ax.set(xlabel="accuracy on the old test images (%)", ylabel="accuracy on the new ones (%)")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax
