"""A row of sixteen numbers in one register gives the bits of a row in two: tables do not depend on the width of the processor."""
import pytest, torch
from understanding_lrs.training import native
from understanding_lrs.training import native_conv
from understanding_lrs.networks.convnet import ConvNetSpec
from understanding_lrs.networks.mlp import MLPSpec

def wide():
    "whether the compiler has sixteen-wide registers here"
    lib = native.load_kernel('#ifdef __AVX512F__\nint ulrs_wide = 1;\n#else\nint ulrs_wide = 0;\n#endif\n', 'wide')
    return lib is not None and native.ctypes.c_int.in_dll(lib, 'ulrs_wide').value == 1

pytestmark = pytest.mark.skipif(not wide(), reason='this processor has one width only, or there is no C compiler')
def narrow(source): return native.load_kernel('#undef __AVX512F__\n' + source, 'narrow')

@pytest.mark.parametrize('spec', [MLPSpec(), MLPSpec(width=13, depth=3), MLPSpec(in_dim=20, width=24, depth=1)], ids=str)
def test_of_the_mlp(spec, monkeypatch):
    rng = torch.Generator().manual_seed(0)
    x, y = native.pad(torch.randn(1, 90, spec.in_dim, generator=rng)), (torch.rand(1, 90, generator=rng) > .5).float()
    order, none = torch.randint(0, 90, (1, 300, 20), generator=rng).int(), torch.zeros(2, dtype=torch.int64)
    def trained():
        w, readout = torch.stack([spec.initial_weights(s) for s in (1, 2)]), torch.stack([spec.initial_readout(s) for s in (1, 2)])
        stack = native.Stack(spec, w, readout, none)
        native.train_native_(stack, native.Batches(x, y, order, none), torch.tensor([1e-3, 1e-1]))
        return w, *native.evaluate_native(stack, x, y)
    one = trained()
    monkeypatch.setattr(native, 'kernel', lambda: narrow(native.SOURCE))
    for a,b in zip(one, trained()): assert torch.equal(a, b)

@pytest.mark.parametrize('practical', [False, True], ids=['scale-invariant', 'practical'])
@pytest.mark.parametrize('size', [8, 16]) # the last layer's planes are 2 or 4 wide
def test_of_the_convnet(size, practical, monkeypatch):
    spec, rng = ConvNetSpec(4, 10, size, practical=practical), torch.Generator().manual_seed(0)
    x, y = torch.randint(0, 256, (90, 3, size, size), generator=rng, dtype=torch.uint8), torch.randint(0, 10, (90,), generator=rng)
    order, table, none = torch.randperm(90, generator=rng)[None].int(), native_conv.byte_table((.5,)*3, (.25,)*3), torch.zeros(2, dtype=torch.int64)
    weights = torch.randn(2, 9*(3*4 + 4*8 + 8*16 + 16*32) + 2*60 + 33*10, generator=rng)
    shifts = torch.randint(0, 5, (1, 90, 3), generator=rng).minimum(torch.tensor([4, 4, 1])).int()
    images, epoch = native_conv.ConvImages(x, table, y), native_conv.ConvEpoch(order, none, 24)
    update = native_conv.ConvUpdate(torch.tensor([.1, 10.]), rho=5.)
    if practical:
        epoch = native_conv.ConvEpoch(order, none, 24, shifts, pad=2)
        update = native_conv.ConvUpdate(torch.tensor([.01, .1]), rho=0., momentum=.9, decay=1e-3)
    def trained():
        stack = dict(w=weights.clone(), mean=torch.zeros(2, 60), var=torch.ones(2, 60)) | (dict(velocity=torch.zeros_like(weights)) if practical else {})
        for _ in range(5):
            native_conv.train_conv_(spec, stack, images, epoch, update)
        assert stack['w'].isfinite().all()
        return *stack.values(), *native_conv.evaluate_conv(spec, stack, images, own=True)
    one = trained()
    monkeypatch.setattr(native_conv, 'conv_kernel', lambda: narrow(native_conv.SOURCE_CONV))
    for a,b in zip(one, trained()): assert torch.equal(a, b)
