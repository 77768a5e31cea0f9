"""Frequency bands sum to the picture and are those of a direct DFT; floats are evaluated as the bytes they come from."""
from dataclasses import replace
import json
import numpy as np, pytest, torch
from understanding_lrs.training import native_conv
from understanding_lrs.data.bands import INPUTS, BandSets, band_images, band_limits, band_mask, band_std, check_limits, spectrum, varied_limits
from understanding_lrs.probes.bands import band_accuracy
from understanding_lrs.probes.features import dominance, effective_number
from understanding_lrs.data.loading import load_images
from understanding_lrs.data.channels import channel_stats
from understanding_lrs.networks.convnet import ConvNetSpec
from understanding_lrs.networks.resnet import ResNet18Spec
from understanding_lrs.training.image_data import resident
from understanding_lrs.training.image_epochs import EvalConfig, evaluate_nets
from understanding_lrs.training.image_lanes import load_network
from understanding_lrs.training.networks import make_networks

CONVNET, RESNET = ConvNetSpec(4, 10, 8), ResNet18Spec(2, 10, 8)
ENGINES = [pytest.param('native', marks=pytest.mark.skipif(native_conv.conv_kernel() is None, reason='no C compiler')), 'torch']

@pytest.fixture(scope='module')
def data():
    d = load_images('digits')
    return resident(replace(d, x_train=d.x_train[:140], y_train=d.y_train[:140]), *channel_stats(d.x_train))

@pytest.mark.parametrize('spec', [CONVNET, RESNET], ids=lambda s: s.arch)
@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('own', [True, False])
def test_floats_are_evaluated_as_their_bytes(data, spec, engine, own):
    if engine == 'native' and spec == RESNET: pytest.skip('the kernel has ConvNets only')
    nets = make_networks(spec, [1, 2], spec.default_radius())
    evaluate_nets(nets, data.x_train, data.y_train, data, EvalConfig(50, own=True, engine=engine))
    bytes_, floats = nets.copy(), nets.copy()
    a = evaluate_nets(bytes_, data.x_test, data.y_test, data, EvalConfig(100, own, engine))
    b = evaluate_nets(floats, data.inputs(data.x_test), data.y_test, data, EvalConfig(100, own, engine))
    torch.testing.assert_close(a[0], b[0], rtol=1e-6, atol=1e-6); assert torch.equal(a[1], b[1])
    for k,v in bytes_.state.items(): torch.testing.assert_close(v, floats.state[k], rtol=1e-6, atol=1e-6)

@pytest.mark.parametrize('engine', ENGINES)
def test_other_pictures_are_refused(data, engine):
    nets = make_networks(CONVNET, [1], CONVNET.default_radius())
    x, refused = data.x_test, pytest.raises(ValueError, match="evaluated on \\(500, 3, 8, 8\\) pictures, uint8 or")
    for bad in (x.double(), x.half(), x.int(), x[:, :, :4], x[:, :1], x[:-1]):
        with refused: evaluate_nets(nets, bad, data.y_test, data, EvalConfig(engine=engine))

def pictures(side, n=6, channels=3, seed=0):
    return torch.randint(0, 256, (n, channels, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)

SIDES = [4, 5, 8, 9, 16, 28, 32]

def test_masks_of_the_paper():
    assert band_limits(32) == dict(background=(0, 0), low=(1, 8), mid=(9, 24), high=(25, 32))
    assert [int(band_mask(32, *ends).sum()) for ends in band_limits(32).values()] == [1, 144, 766, 113]
    assert band_limits(16) == dict(background=(0, 0), low=(1, 4), mid=(5, 12), high=(13, 16))
    assert band_limits(8) == dict(background=(0, 0), low=(1, 2), mid=(3, 6), high=(7, 8))

@pytest.mark.parametrize('side', SIDES)
def test_bands_sum_to_the_picture(side):
    "so do their squares, and each coefficient is in one band; a picture is what was kept plus what was removed"
    x, limits = pictures(side), band_limits(side)
    assert sum(band_mask(side, *ends).int() for ends in limits.values()).eq(1).all()
    parts = [band_images(x, *ends) for ends in limits.values()]
    torch.testing.assert_close(sum(parts), x/255., rtol=0, atol=2e-6)
    torch.testing.assert_close(sum(p.double().square().sum() for p in parts), (x.double()/255).square().sum(), rtol=1e-5, atol=0)
    for part,ends in zip(parts, limits.values()): torch.testing.assert_close(part + band_images(x, *ends, remove=True), x/255., rtol=0, atol=2e-6)
    for a in range(4):
        for b in range(a): assert (parts[a]*parts[b]).sum().abs() < 1e-2

@pytest.mark.parametrize('side', [4, 5, 8])
def test_a_band_is_that_of_a_direct_sum(side):
    "coefficient by coefficient, in numpy, by the definition"
    x = pictures(side, n=2)
    lo, hi = band_limits(side)['mid']
    fs = range(-(side//2), (side + 1)//2)
    out, at = np.zeros(x.shape, complex), np.arange(side)
    for fy in fs:
        for fx in fs:
            if lo <= abs(fy) + abs(fx) <= hi:
                wave = np.exp(2j*np.pi*(fy*at[:, None] + fx*at)/side)
                out += ((x.numpy()/255*wave.conj()).sum((2, 3))/side**2)[..., None, None]*wave
    assert abs(out.imag).max() < 1e-12
    assert abs(band_images(x, lo, hi).numpy() - out.real).max() < 1e-6

def test_waves_are_in_their_bands():
    "a wave of 5 and 3 periods is low at 32x32, and nothing of it is left where low is removed; a flat picture is background"
    at = torch.arange(32.)
    wave = (127.5 + 100*torch.cos(2*torch.pi*(5*at[:, None] + 3*at)/32)).round().to(torch.uint8).expand(1, 3, 32, 32)
    assert band_images(wave, 1, 8).std() > .25 and band_images(wave, 1, 8, remove=True).std() < .01
    flat = torch.full((1, 3, 32, 32), 51, dtype=torch.uint8)
    torch.testing.assert_close(band_images(flat, 0, 0), flat/255.)
    assert band_images(flat, 1, 32).abs().max() < 1e-6

@pytest.mark.parametrize('limits, message', [
    (dict(low=(1, 8), mid=(8, 24)), "bands 'low' and 'mid' overlap at distance 8"), (dict(all=(0, 32), mid=(9, 9)), "'all' and 'mid' overlap"),
    (dict(low=(1, 8), again=(1, 8)), "overlap"), (dict(low=(8, 1)), "'low' are reversed: 8-1"), (dict(low=(-3, 8)), "'low' must not be negative"),
    (dict(far=(33, 40)), "'far' \\(33-40\\) selects no coefficient of 32x32"), (dict(low=(1, 8.5)), "'low' must be whole numbers")])
def test_bad_limits(limits, message):
    for door in (lambda: check_limits(limits, 32), lambda: BandSets((.5,)*3, (.2,)*3, inputs=('raw',), limits=limits).of(pictures(32))):
        with pytest.raises(ValueError, match=message): door()

def test_limits_of_another_side():
    with pytest.raises(ValueError, match="'high' \\(25-32\\) selects no coefficient of 16x16"): check_limits(band_limits(32), 16)
    with pytest.raises(ValueError, match="less than 4x4"): band_limits(3)
    for side in SIDES: check_limits(band_limits(side), side)

@pytest.mark.parametrize('x', [pictures(8)/255., pictures(8)[0], pictures(8)[..., :6]], ids=['floats', 'one', 'oblong'])
def test_bad_pictures(x):
    with pytest.raises(ValueError, match="uint8 images, got"): band_images(x, 1, 2)

def test_varied_limits():
    assert [list(b) for b in varied_limits(32)] == [['low=1-4', 'mid=5-24'], ['low=1-12', 'mid=13-24'], ['low=1-16', 'mid=17-24']]
    assert varied_limits(16)[0] == {'low=1-2': (1, 2), 'mid=3-12': (3, 12)}
    for side in SIDES:
        for bands in varied_limits(side): check_limits(bands, side)

@pytest.mark.parametrize('how', INPUTS)
def test_inputs(data, how):
    "background as in training; the other bands raw, over the usual std, over their own"
    x, train = data.x_test[:50], data.x_train
    sets = {(b, m): p for b,m,p in BandSets(data.mean, data.std, train, (how,), varied=True).of(x)}
    assert list(sets)[:8] == [(b, m) for b in band_limits(8) for m in (f'band_acc_{how}', 'without_acc')]
    assert [m for b,m in sets if '=' in b] == ['band_acc_raw']*6 and all(p.dtype == torch.float32 and p.shape == x.shape for p in sets.values())
    c = lambda v: torch.as_tensor(v, dtype=torch.float32).view(3, 1, 1)
    near = lambda a, b: torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    near(sets['background', f'band_acc_{how}'], (band_images(x, 0, 0) - c(data.mean))/c(data.std))
    own = dict(raw=torch.ones(3), std=data.std, band=band_images(train, 3, 6).double().std((0, 2, 3), correction=0).float())[how]
    near(sets['mid', f'band_acc_{how}'], band_images(x, 3, 6)/c(own))
    near(sets['mid', 'without_acc'], (band_images(x, 3, 6, remove=True) - c(data.mean))/c(data.std))
    near(sets['mid=2-6', 'band_acc_raw'], band_images(x, 2, 6))

def test_bad_sets(data):
    x, usual = data.x_test, (data.mean, data.std)
    with pytest.raises(ValueError, match="needs the training images: give x_train"): BandSets(*usual, inputs=('band',)).of(x)
    with pytest.raises(ValueError, match="inputs are raw, std, band, got 'own'"): BandSets(*usual, inputs=('own',)).of(x)
    with pytest.raises(ValueError, match="must have one shape"): BandSets(*usual, pictures(16)).of(x)
    with pytest.raises(ValueError, match="one number a channel"): list(BandSets((.5,), (.5,), inputs=('raw',)).of(x))
    assert [m for _,m,_ in BandSets(*usual, remove=False).of(x[:2])] == ['band_acc_raw', 'band_acc_std']*4, 'without training images'

def test_a_band_that_holds_nothing_stays_empty():
    flat = pictures(1, n=9).expand(9, 3, 8, 8)
    for _,_,p in BandSets((.5,)*3, (.25,)*3, flat, varied=True).of(flat): assert p.isfinite().all() and p.abs().max() <= 2.1

def test_stds_of_many_pictures_are_those_of_a_sample():
    x = pictures(8, n=3000)
    torch.testing.assert_close(band_std(x, 3, 6, most=500), band_std(x, 3, 6), rtol=.03, atol=0)

def test_a_classifier_of_one_band_is_seen_as_one():
    "the class is the direction of a wave in the mid band: mid is sufficient and needed, other bands are at chance"
    at, rng, y = torch.arange(16.), torch.Generator().manual_seed(0), torch.arange(200) % 2
    waves = torch.stack([torch.cos(2*torch.pi*3*at/16*2)[:, None].expand(16, 16), torch.cos(2*torch.pi*3*at/16*2).expand(16, 16)])
    x = (100 + 50*torch.rand(200, 1, 1, 1, generator=rng) + 40*waves[y][:, None]).clamp(0, 255).round().to(torch.uint8).expand(200, 3, 16, 16)
    score = lambda b: torch.stack([(b.mean(1)*w).mean((1, 2)).abs().gt(.05).float() for w in waves], dim=1)
    acc = {(r['band'], r['metric']): r['accuracy'] for r in band_accuracy(score, x, y, BandSets((.5,)*3, (.25,)*3, x))}
    for how in INPUTS:
        assert acc['mid', f'band_acc_{how}'] == 100
        assert acc['background', f'band_acc_{how}'] == acc['high', f'band_acc_{how}'] == 50
    assert acc['mid', 'without_acc'] == 50 and acc['low', 'without_acc'] == acc['background', 'without_acc'] == 100
    raw = torch.tensor([acc[b, 'band_acc_raw'] for b in band_limits(16)])
    assert dominance(raw) == 50 and effective_number(raw, 50.) == pytest.approx(1)

@pytest.mark.parametrize('engine', ENGINES)
def test_a_classifier_is_a_network(data, engine):
    "one function for networks of one's own, one for stacks: equal numbers, statistics not touched"
    nets = make_networks(CONVNET, [1, 2], CONVNET.default_radius())
    evaluate_nets(nets, data.x_train, data.y_train, data, EvalConfig(own=True))
    test, sets = (data.x_test, data.y_test), BandSets(data.mean, data.std, data.x_train, varied=True)
    stacked = [(b, m, evaluate_nets(nets, p, data.y_test, data, EvalConfig(engine=engine))[1]) for b,m,p in sets.of(data.x_test)]
    for k in range(2):
        rows = band_accuracy(load_network(nets, k).train(), *test, sets)
        assert [(r['band'], r['metric']) for r in rows] == [s[:2] for s in stacked]
        for r,(_,_,acc) in zip(rows, stacked): assert r['accuracy'] == pytest.approx(acc[k].item(), abs=.41)
    assert {r['metric'] for r in band_accuracy(load_network(nets, 0), *test, BandSets(data.mean, data.std, remove=False))} == {'band_acc_raw', 'band_acc_std'}

def test_bad_classifiers(data):
    sets = BandSets(data.mean, data.std)
    args = data.x_test, data.y_test, sets
    assert all(np.isnan(r['accuracy']) for r in band_accuracy(lambda b: torch.full((len(b), 10), torch.nan), *args))
    with pytest.raises(ValueError, match="classify must give \\(500, classes\\) logits"): band_accuracy(lambda b: b.mean((1, 2, 3)), *args)
    with pytest.raises(ValueError, match="one label per image"): band_accuracy(lambda b: b, data.x_test, data.y_test[:3], sets)

def test_spectrum():
    "Parseval; a wave is two points; pictures of a band have nothing outside it"
    x = pictures(16)
    torch.testing.assert_close((10**spectrum(x)).sum(), (x/255.).square().sum((2, 3)).mean(), rtol=1e-4, atol=0)
    inside = torch.fft.fftshift(band_mask(16, 5, 12))
    s = spectrum(band_images(x, 5, 12))
    torch.testing.assert_close(s[inside], spectrum(x)[inside], rtol=1e-3, atol=1e-3)
    assert s[~inside].max() < -8

def test_the_figure_of_bands_draws(root, tmp_path):
    "the page as it stands, with its own pictures"
    path, space = root/'nbs/figures/fig06_frequency_bands.ipynb', {}
    for cell in json.loads(path.read_text())['cells']:
        if cell['cell_type'] != 'code': continue
        exec(compile(''.join(cell['source']), path.name, 'exec'), space)
        if 'parameters' in cell['metadata'].get('tags', ()): space.update(out=str(tmp_path), rows=2)
    assert [p.name for p in tmp_path.iterdir() if p.name != '.ulrs'] == ['digits_bands.svg'] and len(space['fig'].axes) == 3*9 + 1
