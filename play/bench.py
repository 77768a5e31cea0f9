"""How quick the page is, in headless Chromium on this machine: `python play/bench.py [--times 7]`.

Prints JSON: milliseconds, each the least and the median of all times. By the clock: from navigation to the first
picture; from a move of a control to the readings of 2,000 steps of all 23 rates; one redraw of all panels. By the
processor: the time of the busiest thread of the browser from a move to the same readings, which is what a machine
with idle cores needs; other programs do not count in it (Linux). `load` is the load average per core before it
began. Needs playwright and Chromium (the extra `app`).
"""
import argparse, contextlib, json, os, shutil, statistics, time
from pathlib import Path

PAGE = Path(__file__).resolve().parent/'index.html'
FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking']
DONE = "document.querySelector('.ulrs-play').dataset.done === 'true'"
READY = "document.querySelector('.ulrs-play')?.dataset.mark >= 2000"

def wait(page, ready, seconds=60):
    "Until JavaScript says yes; the page's security policy forbids waiting inside it"
    end = time.monotonic() + seconds
    while not page.evaluate(ready):
        if time.monotonic() > end: raise TimeoutError(ready)
        time.sleep(.01)

def number(page, name): return float(page.evaluate(f"document.querySelector('.ulrs-play').dataset.{name}"))

def processes(pid):
    "A process and all that it started"
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f'/proc/{pid}/task').iterdir():
            for child in (task/'children').read_text().split(): yield from processes(int(child))

def thread_times() -> dict: # thread -> milliseconds of processor time so far
    "Of all threads of all processes below this one"
    out = {}
    for pid in processes(os.getpid()):
        with contextlib.suppress(OSError):
            for task in Path(f'/proc/{pid}/task').iterdir():
                out[task] = int((task/'schedstat').read_text().split()[0])/1e6
    return out

def busiest(before:dict, after:dict) -> float:
    "Milliseconds of the thread that worked most, this program's own left out"
    own = Path(f'/proc/{os.getpid()}/task')
    worked = [ms - before.get(task, 0) for task,ms in after.items() if task.parent != own]
    return max(worked, default=float('nan'))

def visit(browser) -> dict: # measure -> list of milliseconds
    "One visit with three moves and some redraws"
    page = browser.new_page(viewport=dict(width=1280, height=900))
    page.goto(PAGE.as_uri())
    wait(page, READY)
    out = dict(picture=[number(page, 'shown')], move=[], frame=[], busiest=[])
    page.get_by_role('slider', name='steps').fill('2') # 2,000 steps and no more
    wait(page, DONE)
    for margin in ('0.05', '0.15', '0.12'):
        page.wait_for_timeout(300)
        before = thread_times()
        page.get_by_role('slider', name='margin').fill(margin)
        shown = f"document.querySelector('.origin').textContent.includes('margin {float(margin):g}')"
        wait(page, f'{shown} && {READY}')
        out['busiest'].append(busiest(before, thread_times()))
        out['move'].append(number(page, 'first'))
        wait(page, DONE)
    for key in ('ArrowLeft', 'ArrowRight')*3:
        page.get_by_role('slider', name='PLR').press(key)
        page.wait_for_timeout(80)
        out['frame'].append(number(page, 'frame'))
    page.close()
    return out

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--times', type=int, default=7)
    times, load = parser.parse_args().times, os.getloadavg()[0]/os.cpu_count()
    from playwright.sync_api import sync_playwright
    chrome = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if not chrome: raise SystemExit('no Chromium or Chrome found; on Debian: apt-get install chromium')
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chrome, args=FLAGS)
        visits = [visit(browser) for _ in range(times)]
        version = browser.version
        browser.close()
    measured = {name: [ms for v in visits for ms in v[name]] for name in visits[0]}
    def summed(ms): return dict(least=round(min(ms)), median=round(statistics.median(ms)))
    result = {name: summed(ms) for name,ms in measured.items()}
    print(json.dumps(dict(result, load=round(load, 2), cores=os.cpu_count(), chromium=version)))

if __name__ == '__main__': main()
