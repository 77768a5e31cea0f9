"""What a reader sees in a browser is what the pure function says: picture(moves) = Page(frame(settings)), in JupyterLab and in Voilà."""
import contextlib, hashlib, os, random, shutil, socket, subprocess, sys, time
from functools import lru_cache
from pathlib import Path
import pytest
from conftest import patience

NEEDED = os.environ.get('ULRS_NEED_BROWSER') == '1' # then a browser that is not there is a failure
CHROME = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'))), None)
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync']
IMAGE, HANDLE = 'img.widget-image', '.noUi-handle'

def lacking():
    "Why there can be no browser test here, or None"
    if CHROME is None: return "no Chromium or Chrome found; on Debian: apt-get install chromium"
    try: import axe_playwright_python.sync_playwright, playwright.sync_api # noqa: E401, F401
    except ImportError as e: return f"the package {e.name} is missing: pip install -c constraints.txt -e '.[app]'"

@pytest.fixture(scope='module')
def browser():
    if why := lacking(): (pytest.fail if NEEDED else pytest.skip)(why)
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        chrome = p.chromium.launch(executable_path=CHROME, args=FLAGS)
        yield chrome
        chrome.close()

@contextlib.contextmanager
def served(command, folder, home):
    "A server on loopback, stopped at the end; gives its address and process"
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    names = 'JUPYTER_CONFIG_DIR', 'JUPYTER_RUNTIME_DIR', 'IPYTHONDIR', 'JUPYTERLAB_SETTINGS_DIR', 'JUPYTERLAB_WORKSPACES_DIR'
    dirs = {k: str(home/k.lower()) for k in names}
    quiet = Path(dirs['JUPYTERLAB_SETTINGS_DIR'])/'@jupyterlab/apputils-extension'
    quiet.mkdir(parents=True)
    (quiet/'notification.jupyterlab-settings').write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with open(home/'log', 'w') as log:
        args = [sys.executable, '-m', *(a.format(port=port) for a in command)]
        server = subprocess.Popen(args, cwd=folder, env=os.environ | dirs | {'OMP_NUM_THREADS': '1'}, stdout=log, stderr=log)
        try:
            wait(lambda: socket.create_connection(('127.0.0.1', port), 2).close() or True, 60, lambda: (home/'log').read_text()[-2000:])
            yield f'http://127.0.0.1:{port}', server
        finally:
            server.terminate()
            try: server.wait(patience(15))
            except subprocess.TimeoutExpired: server.kill()

def wait(ready, seconds, why=lambda: ''):
    "Until `ready()` is true, `seconds` long on an idle machine; errors of the network count as not yet"
    start, found = time.monotonic(), None
    while time.monotonic() - start < patience(seconds):
        with contextlib.suppress(OSError, ValueError): # ValueError: the text on the page is one of our mistakes
            if found := ready(): return found
        time.sleep(.1)
    raise AssertionError(f"not within {patience(seconds):.0f} s: {why()}")

@contextlib.contextmanager
def opened(browser, url, name):
    "A page, and the list of what goes wrong in it; with $ULRS_SCREENSHOTS, its last look is kept"
    page, wrong = browser.new_page(viewport=dict(width=1280, height=1500)), []
    page.set_default_timeout(1000*patience(30))
    page.on('pageerror', lambda e: wrong.append(str(e)))
    # Voilà asks a CDN for fonts that we do not use
    ours = lambda m: m.type == 'error' and '//127.0.0.1' in m.location.get('url', '//127.0.0.1')
    page.on('console', lambda m: wrong.append(f"{m.text} {m.location.get('url')}") if ours(m) else None)
    try:
        page.goto(url)
        yield page, wrong
    finally:
        if where := os.environ.get('ULRS_SCREENSHOTS'): page.screenshot(path=f'{where}/{name}.png')
        page.close()

HASH = """async s => {
  const bytes = await (await fetch(document.querySelector(s).src)).arrayBuffer()
  return Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)), b => b.toString(16).padStart(2, '0')).join('')
}"""
def picture(page): return page.evaluate(HASH, IMAGE) # sha256 of the PNG that is on the page

def settings(page):
    from understanding_lrs.app.explore_settings import from_text
    return from_text(page.locator('textarea:visible').first.input_value())

TAUGHT, PAGES = {}, []
@lru_cache(maxsize=None)
def expected(s): # sha256 of the picture that belongs to settings whose only mark is their end
    from understanding_lrs.app.explore_frames import look
    from understanding_lrs.app.explore_lessons import Lesson
    from understanding_lrs.app.explore_panels import Page
    if (s.taught, s.flr) not in TAUGHT: *_, TAUGHT[s.taught, s.flr] = Lesson(s).follow(s.flr)
    if not PAGES: PAGES.append(Page())
    return hashlib.sha256(PAGES[0].show(look(TAUGHT[s.taught, s.flr], s)).png()).hexdigest()

PALE = '.ulrs-pale'

def agrees(page, seconds=20):
    "The picture becomes the one of the settings that the page shows, and is then no longer pale"
    def right(): return picture(page) == expected(settings(page)) and not page.locator(PALE).count()
    wait(right, seconds, lambda: page.locator('textarea:visible').first.input_value())

ROW = '.widget-inline-hbox:has(> .widget-label:text-is("{}"))'
def slider(page, label): return page.locator(f'{ROW.format(label)} {HANDLE}') # the handle of the slider with this label

def paste(page, text):
    page.locator('textarea:visible').first.fill(text)
    page.get_by_role('button', name='Use these settings').click()

TINY = dict(steps=500, n_train=64, width=8, n_features=4, utility=1.)

NAMES = "q => [...document.querySelectorAll(q)].map(e => [e.getAttribute('aria-label'), e.getAttribute('aria-valuetext')])"

def named(page, label, setting):
    "A screen reader is told what a slider is and what it shows, before and after a move; no slider of ours is without a name"
    from understanding_lrs.app.explore_controls import reading
    handle = page.get_by_role('slider', name=label, exact=True)
    def says(): return handle.get_attribute('aria-valuetext') == reading(setting, getattr(settings(page), setting))
    wait(says, 10)
    before = getattr(settings(page), setting)
    handle.press('ArrowRight')
    wait(lambda: getattr(settings(page), setting) > before and says(), 10)
    said = page.evaluate(NAMES, f'.ulrs {HANDLE}')
    assert len(said) > 10 and all(name and value for name,value in said), said
    alt = page.locator(IMAGE).get_attribute('alt')
    assert alt.startswith('Picture of six panels'), alt

def serious(page, part=None):
    "What axe finds on a page, or in a part of it, that keeps readers out: (rule, impact, the beginning of the first element)"
    from axe_playwright_python.sync_playwright import Axe
    found = Axe().run(page, part).response['violations']
    return [(f['id'], f['impact'], f['nodes'][0]['html'][:200]) for f in found if f['impact'] in ('serious', 'critical')]

def play(page):
    "Paste, keyboard, mouse, mistakes: after each the picture is the one of the settings"
    from understanding_lrs.app.explore_settings import Settings, to_text
    page.get_by_text('Settings as text').click()
    paste(page, to_text(Settings(**TINY)))
    wait(lambda: settings(page) == Settings(**TINY), 10)
    agrees(page)
    seen = picture(page)
    slider(page, 'LR').press('ArrowRight')
    wait(lambda: settings(page).lr > Settings(**TINY).lr, 10)
    agrees(page)
    assert picture(page) != seen
    for label,name in (('LR', 'lr'), ('margin', 'margin')): # the second trains again
        before, box = getattr(settings(page), name), slider(page, label).bounding_box()
        page.mouse.move(box['x'] + box['width']/2, box['y'] + box['height']/2)
        page.mouse.down()
        page.mouse.move(box['x'] + box['width']/2 + 30, box['y'] + box['height']/2, steps=5)
        page.mouse.up()
        wait(lambda: getattr(settings(page), name) != before, 10)
        agrees(page)
    named(page, 'margin', 'margin')
    agrees(page)
    seen = picture(page)
    for text,word in (('{"marginn": 0.1}', 'margin'), ('{"margin": 9}', '0.3'), ('{"n_features": 4, "utility": [1]}', 'utility')):
        paste(page, text)
        page.locator('[role=alert]', has_text=word).wait_for()
        assert picture(page) == seen
    state(page)
    page.get_by_role('button', name='Reset').click()
    wait(lambda: settings(page) == Settings(), 10)
    paste(page, to_text(Settings(**TINY)))
    agrees(page)

def state(page):
    "What is out of range is said and changes nothing; a picture that is not what was asked for says so, and so does the tour"
    seed, text = page.locator('input[type=number]:visible').first, lambda: page.locator('textarea:visible').first.input_value()
    seen, before = picture(page), text()
    seed.fill('99999')
    seed.press('Tab')
    page.locator('[role=alert]', has_text='from 0 to 999, got 99999').wait_for()
    wait(lambda: seed.input_value() == '15', 10)
    assert picture(page) == seen and text() == before and not page.locator(PALE).count()
    page.get_by_role('button', name='Was it luck').click()
    note = page.locator('.ulrs-note [role=status]')
    note.wait_for()
    asked, shown = note.inner_text().split('still shows')
    assert 'seed 1,' in asked and 'seed 15,' in shown
    assert page.get_by_text('The answer comes with the picture').count() and not page.locator('summary:text-is("Answer")').count()
    page.locator('summary:text-is("Answer")').wait_for()
    wait(lambda: not page.locator(PALE).count(), 20)
    slider(page, 'LR').press('ArrowRight')
    page.get_by_text('You have moved on').wait_for()
    page.get_by_role('button', name='Reset').click()
    wait(lambda: 'Was it luck?' not in page.locator('.ulrs').inner_text().replace('5 Was it luck?', ''), 10)

BOXES = "q => [...document.querySelectorAll(q)].filter(e => e.offsetParent).map(e => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom].map(Math.round) })"
CONTRAST = """q => {
  const rgb = s => s.match(/[\\d.]+/g).map(Number)
  const light = c => c.slice(0, 3).map(v => v/255).map(v => v <= .03928 ? v/12.92 : ((v + .055)/1.055)**2.4).reduce((s, v, i) => s + v*[.2126, .7152, .0722][i], 0)
  return [...document.querySelectorAll(q)].filter(e => e.offsetParent && e.innerText).map(e => {
    let below = e
    while (below.parentElement && (rgb(getComputedStyle(below).backgroundColor)[3] ?? 1) == 0) below = below.parentElement
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(rgb(getComputedStyle(below).backgroundColor))].sort((x, y) => y - x)
    return (a + .05)/(b + .05)
  })
}"""

def laid_out(page):
    "Controls in columns, utilities unclipped, the picture as wide as the window, everything readable, at three widths"
    page.get_by_text('Utility of each feature').click()
    for width in (360, 1000, 1600):
        page.set_viewport_size(dict(width=width, height=900))
        time.sleep(.5)
        boxes = page.evaluate(BOXES, '.ulrs-controls > *')
        lefts, tops = sorted({b[0] for b in boxes}), sorted({b[1] for b in boxes})
        assert len(boxes) == 11 and len({b[2] - b[0] for b in boxes}) == 1 and len({b[3] - b[1] for b in boxes}) == 1
        assert len(tops) == -(-11//len(lefts)) and boxes[0][2] <= (lefts[1] if lefts[1:] else width)
        labels, rails = (page.evaluate(BOXES, f'.ulrs-utility {q}') for q in ('.widget-label', '.noUi-target'))
        assert len(labels) == len(rails) > 3
        for label,rail in zip(labels, rails): assert label[3] <= rail[1] and label[3] - label[1] >= 16 and rail[3] - rail[1] > 60
        if width > 700:
            left, _, right, _ = page.evaluate(BOXES, IMAGE)[0]
            assert right - left > .94*width
        assert page.evaluate('document.documentElement.scrollWidth') <= width
        assert min(page.evaluate(CONTRAST, '.ulrs-status, .ulrs-step, .ulrs .widget-readout, .ulrs-controls .widget-label')) > 4.5

def presented(page):
    "One screen: the picture first, one rate and the tour; everything else is folded"
    page.set_viewport_size(dict(width=1600, height=900))
    page.get_by_role('button', name='Presentation').click()
    wait(lambda: page.locator('.ulrs-present').count(), 10)
    wait(lambda: len(page.evaluate(BOXES, HANDLE)) == 1, 10)
    (_, top, _, bottom), handle = page.evaluate(BOXES, IMAGE)[0], page.evaluate(BOXES, HANDLE)[0]
    tour = page.get_by_role('button', name='Was it luck').bounding_box()
    assert 0 <= top < 20 and bottom - top >= 450 and bottom <= handle[1] < tour['y'] < 900
    page.get_by_role('button', name='Presentation').click()
    wait(lambda: len(page.evaluate(BOXES, HANDLE)) > 9, 10)

def rss(server): # MiB of all processes below the server
    def below(pid):
        with contextlib.suppress(OSError):
            yield int(Path(f'/proc/{pid}/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/2**20
            for t in Path(f'/proc/{pid}/task').iterdir():
                for child in (t/'children').read_text().split(): yield from below(child)
    return sum(below(server.pid))

def shake(page, server, moves=200):
    "Random moves of random sliders leave the page quick and the kernel's memory bounded"
    from understanding_lrs.app.explore_settings import Settings, to_text
    from understanding_lrs.figures.drawing import rate
    from understanding_lrs.studies.synthetic import GRID
    rng, labels = random.Random(0), ['LR', 'feature', 'features', 'margin', 'label noise', 'samples', 'depth', 'fine-tuning LR']
    handles = {k: slider(page, k) for k in labels}
    before = rss(server)
    for _ in range(moves): handles[rng.choice(labels)].press(rng.choice(['ArrowLeft', 'ArrowRight']))
    def arrived(): # the kernel has what the sliders show
        s = settings(page)
        wanted = {'LR': rate(s.lr), 'features': str(s.n_features), 'margin': f'{s.margin:.2f}', 'label noise': f'{s.noise:.2f}',
                  'samples': f'{s.n_train:,}', 'depth': str(s.depth), 'fine-tuning LR': rate(s.flr), 'feature': str(s.feature or 'best')}
        return all(page.locator(ROW.format(k)).locator('.widget-readout').inner_text() == v for k,v in wanted.items())
    wait(arrived, 20, lambda: page.locator('textarea:visible').first.input_value())
    agrees(page)
    paste(page, to_text(Settings(**TINY, seed=77, lr=GRID[3])))
    wait(lambda: settings(page) == Settings(**TINY, seed=77, lr=GRID[3]), 10)
    agrees(page)
    start = time.monotonic()
    slider(page, 'LR').press('ArrowRight')
    wait(lambda: settings(page).lr == GRID[4], 10)
    agrees(page)
    assert time.monotonic() - start < patience(5)
    if Path('/proc/self/statm').exists(): assert rss(server) - before < 300, f"{before:.0f} to {rss(server):.0f} MiB"

def alone(root, name, tmp_path):
    "A tutorial alone in a folder"
    folder = tmp_path/'pages'
    folder.mkdir()
    return Path(shutil.copy(root/'nbs'/'tutorials'/f'{name}.ipynb', folder))

@pytest.fixture
def notebook(root, tmp_path): return alone(root, 'explore_synthetic', tmp_path)

def run_all(page, shows=IMAGE, tries=4):
    "As a reader would: JupyterLab loses what is run while it still shakes hands with the kernel, so look, and run again"
    from playwright.sync_api import TimeoutError
    soon = 1000*patience(5)
    for left in reversed(range(tries)):
        try:
            for accept in page.locator('.jp-Dialog .jp-mod-accept').all(): accept.click(timeout=soon) # its kernel is not ready yet, or which one?
            page.get_by_role('menuitem', name='Run', exact=True).click(timeout=soon)
            page.get_by_text('Run All Cells', exact=True).click(timeout=soon)
            return page.locator(shows).wait_for(timeout=1000*patience(25))
        except TimeoutError:
            if not left: raise
            page.keyboard.press('Escape') # a menu that stands open

def appear(page, wrong, tries=3):
    "As a reader would: Voilà waits four seconds for a kernel, whatever the machine has to do, then says so; load the page again"
    lost = page.get_by_text('Error displaying widget')
    for left in reversed(range(tries)):
        page.locator(IMAGE).or_(lost).first.wait_for(timeout=1000*patience(60))
        if not lost.count(): return
        assert left, 'the page lost its widgets in every try'
        page.reload()
        wrong.clear()

ERRORS = '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'

@contextlib.contextmanager
def lab(browser, notebook, home, name):
    "JupyterLab with all cells of a notebook run, as (page, mistakes, server); no cell and no log may hold an error at the end"
    command = ['jupyterlab', '--no-browser', '--allow-root', '--ServerApp.ip=127.0.0.1', '--ServerApp.port={port}',
               '--IdentityProvider.token=', '--LabApp.expose_app_in_browser=True']
    with served(command, notebook.parent, home) as (url, server), opened(browser, f'{url}/doc/tree/{notebook.name}', name) as (page, wrong):
        page.locator('.jp-OutputArea-output img').first.wait_for() # the static picture, before any cell has run
        page.locator('.jp-Notebook-ExecutionIndicator[data-status=idle]').wait_for(state='attached')
        run_all(page)
        yield page, wrong, server
        assert page.locator(ERRORS).count() == 0
        assert not wrong, '\n'.join(wrong)

def test_jupyterlab(browser, notebook, tmp_path):
    with lab(browser, notebook, tmp_path, 'lab') as (page, wrong, server):
        play(page)
        shake(page, server)
        assert serious(page, '.ulrs') == []

def test_jupyterlab_of_finished_runs(browser, root, tmp_path):
    "The page of runs opens published tables; keyboard and mouse move PLR and FLR, another source has pictures of its own"
    from understanding_lrs.app.run_frames import open_source, run_frame, sources
    from understanding_lrs.app.run_pages import RunPage, say_run
    from understanding_lrs.figures.drawing import rate
    seen, found, views = [], sources(), {}
    with lab(browser, alone(root, 'explore_runs', tmp_path), tmp_path, 'runs') as (page, wrong, _):
        def new(): # the picture, if it is one not seen before, and it and the words are those of the source and the two rates on the page
            name = source.evaluate('s => s.options[s.selectedIndex].text').replace('\xa0', ' ')
            view = views[name] = views.get(name) or open_source(found[name])
            text = {k: page.locator(f'{ROW.format(k)} .widget-readout').inner_text() for k in ('PLR', 'FLR')}
            plr, flr = (next((v for v in known if rate(v) == text[k]), None) for k,known in (('PLR', view.found), ('FLR', view.flrs)))
            f, now = run_frame(view, plr, flr), picture(page)
            right = now == hashlib.sha256(RunPage(view).show(f, None).png()).hexdigest()
            return right and now not in seen and page.get_by_text(say_run(f)).count() and now
        def agrees(): seen.append(wait(new, 30, lambda: source.evaluate('s => s.parentElement.parentElement.innerText')))
        source = page.get_by_label('open', exact=True)
        agrees()
        slider(page, 'PLR').press('ArrowRight')
        agrees()
        box = slider(page, 'FLR').bounding_box()
        page.mouse.move(box['x'] + box['width']/2, box['y'] + box['height']/2)
        page.mouse.down()
        page.mouse.move(box['x'] - 300, box['y'] + box['height']/2, steps=5)
        page.mouse.up()
        agrees()
        assert serious(page, '.ulrs') == []
        for i in 1, 5, 7: # pictures; fewer rates, and some runs left out; more
            source.select_option(index=i)
            agrees()
        assert page.locator('[role=alert]').count() == 0
        shown, before = source.evaluate('s => s.selectedIndex'), picture(page)
        folder = page.get_by_label('search', exact=True)
        folder.fill(str(tmp_path/'nowhere'))
        folder.press('Enter')
        page.locator('[role=alert]', has_text='no such folder').wait_for()
        assert picture(page) == before and source.evaluate('s => s.selectedIndex') == shown
        folder.fill(str(root/'figures/data/synthetic'))
        folder.press('Enter')
        wait(lambda: source.evaluate('s => s.options.length') == 5 and not page.locator(PALE).count(), 30)

def test_voila(browser, notebook, tmp_path):
    pytest.importorskip('voila') if not NEEDED else __import__('voila')
    voila = ['voila', notebook.name, '--no-browser', '--Voila.ip=127.0.0.1', '--port={port}',
             "--VoilaConfiguration.extension_denylist=['jupyterlab-jupytext']", '--theme=dark']
    with served(voila, notebook.parent, tmp_path) as (url, server), opened(browser, url, 'voila') as (page, wrong):
        appear(page, wrong)
        assert 'all cells' not in page.locator('body').inner_text() # they have been run
        play(page)
        shake(page, server)
        laid_out(page)
        assert serious(page, '.ulrs') == []
        presented(page)
        assert page.locator(ERRORS).count() == 0
        assert not wrong, '\n'.join(wrong)

def test_a_missing_browser_is_said(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], 'CHROME', None)
    assert 'apt-get install chromium' in lacking()
