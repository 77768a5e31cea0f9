"""How good is find_regimes? Full sweeps, regrets and coverage, row by row; what is there is not done again.

    python tools/regimes.py --show                       # the tables so far
    python tools/regimes.py --seeds 1..3                 # go on with the development tasks
    python tools/regimes.py --held-out --seeds 1..5      # only when the policy is frozen
    python tools/regimes.py --minutes 20 --part choices  # for a while, only one kind of row
    python tools/regimes.py --part references            # Prodigy and schedule-free, of the extra `bench`
    python tools/regimes.py --part branches              # the record on which policies are played (development only)

Some tasks read Parquet files from the folder that ULRS_REGIME_DATA names; without it they are left out, and said so.
"""
import argparse, os, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pandas as pd, torch
from understanding_lrs.app.bench_regime_tasks import DEVELOPMENT, HELD_OUT, TASKS
from understanding_lrs.app.bench_replay import record
from understanding_lrs.app.bench_regimes import Extent, coverage, measure, regrets, summary
from understanding_lrs.core.checks import int_list, pick
from understanding_lrs.core.errors import InputError

def usable(tasks:list) -> list:
    "Tasks whose data are there"
    found = []
    for task in tasks:
        try: task.sets(1)
        except InputError as e: print(f'{task.name} is left out: {e}', file=sys.stderr)
        else: found.append(task)
    return found

def show(folder:Path, tasks:list):
    "Regret and coverage so far; they are written beside the tables"
    found = regrets(folder, tasks)
    if not len(found): return print('nothing has been measured yet')
    table, held = summary(found), coverage(folder, tasks)
    with pd.option_context('display.width', 200, 'display.max_rows', None):
        print(table.round(2).to_string())
        print(found.groupby(['method', 'task']).regret.mean().unstack().loc[table.index].round(2).to_string())
        print(held.groupby('method')[['in_lr', 'in_window', 'octaves']].mean().round(3).to_string())
        print(held.groupby(['method', 'task'])[['octaves', 'in_lr', 'in_window', 'noise', 'seed_std']].mean().round(2).to_string())
    table.round(4).to_csv(folder/'summary.csv')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--held-out', action='store_true')
    p.add_argument('--tasks', help='names, with commas between them')
    p.add_argument('--seeds', default='1..3')
    p.add_argument('--minutes', type=float, default=1e6)
    p.add_argument('--part', action='append', choices=['choices', 'truth', 'references', 'branches'])
    p.add_argument('--methods', default='', help='only these: a regular expression for the begin of their names')
    p.add_argument('--show', action='store_true')
    p.add_argument('--out', type=Path)
    a = p.parse_args()
    torch.set_num_threads(1)
    tasks = HELD_OUT if a.held_out else DEVELOPMENT
    if a.tasks: tasks = [TASKS[pick(name, TASKS, 'task')] for name in a.tasks.split(',')]
    folder = a.out or ROOT/'figures/data/finder'/('held_out' if a.held_out else 'development')
    tasks = usable(tasks)
    extent = Extent(tuple(a.part or ('choices', 'truth')), a.methods, time.monotonic() + 60*a.minutes)
    if not a.show: measure(folder, tasks, int_list(a.seeds), extent)
    if 'branches' in extent.parts: record(folder, tasks, int_list(a.seeds))
    show(folder, tasks)

if __name__ == '__main__':
    try: main()
    except InputError as e: sys.exit(f'regimes: {e}')
    except KeyboardInterrupt: sys.exit('regimes: stopped; call it again to go on')
