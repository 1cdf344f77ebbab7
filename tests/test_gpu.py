"""On a GPU: no step of a training waits for the host, convolutions see bfloat16 in its layout, and what that costs."""

import time

import pytest
import torch

from rtkit import compute, methods, models
from rtkit.adversaries import Adversary
from rtkit.data.augmentation import crop_and_flip
from rtkit.data.glyphs import Images
from rtkit.objectives import Term
from rtkit.threat import ThreatModel
from rtkit.training import Phase, train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
# torch says so once, whatever the mode, when the mode is first set.
pytestmark += [pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")]

ARCHITECTURE = "resnet18-cifar"
KINDS = [("standard", 0.0), ("noise", 8 / 255), ("robust", 8 / 255), ("pgd_l2", 0.5)]


def noise(n: int, classes: int = 100) -> Images:
    """Images of noise of 32 x 32 pixels, labelled in turn."""
    x = torch.randint(256, (n, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Images(x, torch.arange(n) % classes, tuple(map(str, range(classes))))


def phase(kind: str, eps: float, steps: int) -> Phase:
    """How a source network is trained, for so many steps."""
    (found,) = methods.source(kind, eps, steps, 0.1)
    return found


LINF = ThreatModel("linf", 8 / 255)
STUDENTS = {
    "TRADES": {"adversary": Adversary("divergence", LINF, steps=2), "terms": (Term("consistency", 6.0),)},
    "region": {"adversary": Adversary("region", LINF, steps=2, smoothing=0.3)},
    "kernel": {"adversary": Adversary("kernel", ThreatModel("l2", 1.0), steps=2)},
    "NFD": {"terms": (Term("stages", 1.0),), "dropout": 0.1},
}
PHASES = [lambda steps, one=one: phase(*one, steps) for one in KINDS]
PHASES += [lambda steps, one=one: Phase(steps=steps, lr=0.1, **one) for one in STUDENTS.values()]


@pytest.mark.parametrize("made", PHASES, ids=[*(kind for kind, _ in KINDS), *STUDENTS])
def test_no_step_waits_for_the_host(made):
    """From the second batch to the last one, all within an epoch, any wait for the device is an error."""
    steps, seen = 6, []
    reference = models.create(100, ARCHITECTURE, 1)

    def watched(x, generator):
        seen.append(x.is_cuda)
        if len(seen) == 2:
            torch.cuda.set_sync_debug_mode("error")
        if len(seen) == steps:
            torch.cuda.set_sync_debug_mode("default")
        return crop_and_flip(x, generator)

    before = torch.cuda.get_sync_debug_mode()
    try:
        net = models.create(100, ARCHITECTURE, 0)
        history = train(net, noise(1000), (made(steps),), 0, reference=reference, augment=watched)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert seen == [True] * steps
    assert len(history.loss) == steps


def test_such_a_wait_would_be_noticed():
    """The control of the test above: a step that asks for a number of the device."""

    def asks(x, generator):
        torch.cuda.set_sync_debug_mode("error")
        assert float(x.float().mean()) >= 0
        return x

    before = torch.cuda.get_sync_debug_mode()
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            train(models.create(100, ARCHITECTURE, 0), noise(256), (phase("standard", 0.0, 2),), 0, augment=asks)
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_convolutions_see_bfloat16_in_the_layout_that_a_gpu_likes():
    net, seen = models.create(100, ARCHITECTURE, 0), []

    def look(module, inputs, output):
        seen.append((output.dtype, output.is_contiguous(memory_format=torch.channels_last), output.device.type))

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(look)
    train(net, noise(256), (phase("robust", 8 / 255, 1),), 0, augment=crop_and_flip)
    assert set(seen) == {(torch.bfloat16 if compute.bf16() else torch.float32, True, "cuda")}
    for parameter in net.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.dim() < 4 or parameter.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("kind", "eps"), KINDS)
def test_seconds_an_epoch(kind, eps, capsys):
    """Printed, for the record: an epoch of the preset `cifar`, 20,000 images of 32 x 32 pixels."""
    net, images = models.create(100, ARCHITECTURE, 0), noise(20000)
    train(net, images, (phase(kind, eps, 10),), 0, augment=crop_and_flip)
    steps = 20000 // 128
    torch.cuda.synchronize()
    start = time.perf_counter()
    history = train(net, images, (phase(kind, eps, steps),), 0, augment=crop_and_flip)
    seconds = time.perf_counter() - start  # `train` has waited for the losses
    with capsys.disabled():
        print(f"\n{torch.cuda.get_device_name()}, {compute.kind()}: {kind}, {seconds:.2f} s an epoch of {ARCHITECTURE}")
    assert torch.tensor(history.loss).isfinite().all()
