"""Frequency bands sum to the picture and are those of a direct DFT; floats are evaluated as the bytes they come from."""
from dataclasses import replace
import pytest, torch
from understanding_lrs import native_conv
from understanding_lrs.images import channel_stats, load_pictures
from understanding_lrs.models import ConvSpec, default_radius
from understanding_lrs.pictures import evaluate_nets, make_nets, resident

CONVNET, RESNET = ConvSpec('convnet', 4, 10, 8), ConvSpec('resnet18', 2, 10, 8)
ENGINES = [pytest.param('native', marks=pytest.mark.skipif(native_conv.conv_kernel() is None, reason='no C compiler')), 'torch']

@pytest.fixture(scope='module')
def data():
    d = load_pictures('digits')
    return resident(replace(d, x_train=d.x_train[:140], y_train=d.y_train[:140]), *channel_stats(d.x_train))

@pytest.mark.parametrize('spec', [CONVNET, RESNET], ids=lambda s: s.arch)
@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('own', [True, False])
def test_floats_are_evaluated_as_their_bytes(data, spec, engine, own):
    if engine == 'native' and spec == RESNET: pytest.skip('the kernel has ConvNets only')
    nets = make_nets(spec, [1, 2], default_radius(spec))
    evaluate_nets(nets, data.x_train, data.y_train, data, 50, own=True, engine=engine)
    bytes_, floats = nets.copy(), nets.copy()
    a = evaluate_nets(bytes_, data.x_test, data.y_test, data, 100, own, engine)
    b = evaluate_nets(floats, data.floats(data.x_test), data.y_test, data, 100, own, engine)
    torch.testing.assert_close(a[0], b[0], rtol=1e-6, atol=1e-6); assert torch.equal(a[1], b[1])
    for k,v in bytes_.state.items(): torch.testing.assert_close(v, floats.state[k], rtol=1e-6, atol=1e-6)

@pytest.mark.parametrize('engine', ENGINES)
def test_other_pictures_are_refused(data, engine):
    nets = make_nets(CONVNET, [1], default_radius(CONVNET))
    for x in (data.x_test.double(), data.x_test.half(), data.x_test.int(), data.x_test[:, :, :4], data.x_test[:, :1], data.x_test[:-1]):
        with pytest.raises(ValueError, match="evaluated on \\(500, 3, 8, 8\\) pictures, uint8 or"): evaluate_nets(nets, x, data.y_test, data, engine=engine)
