"""How quick the page is, in headless Chromium on this machine: `python play/bench.py [--times 7]` prints one line of JSON.

Milliseconds, each the least and the median of all times: from navigation to the first picture, from a move of a control to
the picture of 2,000 steps of all 23 rates, and one redraw of all panels. `load` is the load average per core before it began: on a
busy machine the least is nearest to what an idle one would show. Needs playwright and Chromium (the extra `app`).
"""
import argparse, json, os, shutil, statistics, time
from pathlib import Path

PAGE = Path(__file__).resolve().parent/'index.html'
FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update']

def wait(page, ready, seconds=60):
    "Until JavaScript says yes; the policy of the page forbids to wait inside of it"
    end = time.monotonic() + seconds
    while not page.evaluate(ready):
        if time.monotonic() > end: raise TimeoutError(ready)
        time.sleep(.02)

def number(page, name): return float(page.evaluate(f"document.querySelector('.ulrs-play').dataset.{name}"))

READY = "document.querySelector('.ulrs-play')?.dataset.mark >= 2000"

def visit(browser) -> dict: # measure -> list of milliseconds
    "One visit with three moves and some redraws"
    page = browser.new_page(viewport=dict(width=1280, height=900))
    page.goto(PAGE.as_uri())
    wait(page, READY)
    out = dict(picture=[number(page, 'shown')], move=[], frame=[])
    for margin in ('0.05', '0.15', '0.12'):
        page.get_by_role('slider', name='margin').fill(margin)
        page.wait_for_timeout(200)
        wait(page, READY)
        out['move'].append(number(page, 'first'))
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
    chrome = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))))
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chrome, args=FLAGS)
        visits = [visit(browser) for _ in range(times)]
        version = browser.version
        browser.close()
    measured = {name: [ms for v in visits for ms in v[name]] for name in visits[0]}
    result = {name: dict(least=min(ms), median=statistics.median(ms)) for name,ms in measured.items()}
    print(json.dumps(dict(result, load=round(load, 2), cores=os.cpu_count(), chromium=version)))

if __name__ == '__main__': main()
