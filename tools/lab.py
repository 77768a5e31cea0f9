"""The laboratory: work through the list of missing runs, the most telling first, whenever the machine has time.

    python tools/lab.py --show          # what is left and how long it takes; runs nothing
    python tools/lab.py                 # go on with lab/queue.csv at the lowest priority; Ctrl-C saves and stops
    python tools/lab.py --data FOLDER   # with your own copy of CIFAR-10; --data cifar100=FOLDER for another set, as often as needed

Exit codes: 0 nothing is left, 1 runs failed or wait for their images, 2 wrong input, 3 another one is at work, 130 Ctrl-C.
"""
import argparse, contextlib, csv, os, shutil, signal, statistics, subprocess, sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault('OMP_NUM_THREADS', '1')

from understanding_lrs.core.system import lock_file
from understanding_lrs.core.checks import int_list, pick
from understanding_lrs.core.errors import InputError
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.ledger import cover
from understanding_lrs.runs.protocol import missing, networks
from understanding_lrs.runs.published import publish, published_protocols, put_in_place, read_published
from understanding_lrs.studies.registry import protocols, resolved, study_of
from understanding_lrs.sweep.progress import duration

COLUMNS = 'study', 'preset', 'seeds', 'decides'

@dataclass(frozen=True)
class Entry:
    "One line of the list"
    study:str   # id
    preset:str  # its name
    seeds:str   # such as 1..10: data seeds; where a study has none, train seeds
    decides:str # the claims that wait for it, in words

@dataclass(frozen=True)
class Folders:
    "Where things lie"
    runs:Path   # folder of all runs
    tables:Path # published tables, figures/data
    drafts:Path # tables of entries that are not complete

@dataclass(frozen=True)
class Progress:
    "How far an entry is"
    entry:Entry
    wanted:list # protocols
    left:list   # protocols of the networks that are missing
    seconds:float # that these take, by what was measured, else by the preset's own estimate

def read_queue(path:Path) -> list[Entry]:
    "The list, checked before any work is done"
    try:
        with open(path, newline='', encoding='utf-8') as file:
            reader = csv.DictReader(file)
            rows, head = list(reader), tuple(reader.fieldnames or ())
    except (UnicodeDecodeError, csv.Error) as e: raise InputError(f"{path} is not a CSV file: {e}") from None
    wanted = ', '.join(COLUMNS)
    if head != COLUMNS: raise InputError(f"{path}: expected the columns {wanted}, got {', '.join(head) or 'an empty file'}")
    entries = []
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise InputError(f"{path}, line {number}: expected the columns {wanted}, got {row}")
        try:
            pick(row['preset'], study_of(row['study']).presets, 'preset')
            int_list(row['seeds'])
        except InputError as e: raise InputError(f"{path}, line {number}: {e}") from None
        entries.append(Entry(**row))
    names = [(e.study, e.preset) for e in entries]
    twice = {name for name in names if names.count(name) > 1}
    if twice: raise InputError(f"{path}: {' and '.join(map('/'.join, sorted(twice)))} stand there twice; one line holds all seeds")
    return entries

def sets_of(entry:Entry) -> dict: # setting -> name of the set: what its networks learn, and what is foreign to them
    settings = study_of(entry.study).settings
    return {role: settings[role] for role in ('data', 'outside') if settings.get(role)}

def copies_of(entry:Entry, copies:dict) -> dict: # copies: name of a set -> folder; setting -> folder
    return {role: copies[name] for role, name in sets_of(entry).items() if name in copies}

def read_copies(
    texts:list,   # 'FOLDER', of CIFAR-10, or 'cifar100=FOLDER'
    entries:list,
) -> dict:        # name of a set -> folder
    "The user's copies of images; `InputError` for a set that no entry asks for, and for a folder that is not there"
    asked, copies = {name for entry in entries for name in sets_of(entry).values()}, {}
    for text in texts:
        name, mark, folder = text.partition('=')
        if not mark or '/' in name: name, folder = 'cifar10', text # a folder, whatever is in its name
        if not Path(folder).is_dir(): raise InputError(f"--data {text}: there is no folder {folder}")
        copies[pick(name, asked, 'set of images')] = folder
    return copies

def wanted_runs(entry:Entry, copies:dict) -> list: # protocols, one per learning rate and variant
    "What an entry asks for; copies: as of `read_copies`"
    study, seeds = study_of(entry.study), int_list(entry.seeds)
    role = 'data_seeds' if study.presets[entry.preset].data_seeds else 'train_seeds'
    overrides = copies_of(entry, copies)
    return resolved(protocols(entry.study, entry.preset, overrides=overrides, **{role: seeds}))

def plan(entries:list, copies:dict) -> dict: # entry -> protocols
    "The entries whose images are there, with what they ask for; of the others it is said why they wait"
    there = {}
    for entry in entries:
        try: there[entry] = wanted_runs(entry, copies)
        except InputError as e: print(f'{entry.study}/{entry.preset} waits: {e}', file=sys.stderr, flush=True)
    return there

def finished(folder:Path, study:str) -> list: # runs
    return [run for run in find_runs(folder, study) if run.protocol and run.state().kind == 'done']

def published(folder:Path) -> list: # protocols of a folder of tables; none where it is not there
    return published_protocols(folder) if (folder/'tables.json').exists() else []

def places(entry:Entry, folders:Folders) -> tuple[Path, Path]: # published tables, draft
    return folders.tables/entry.study/entry.preset, folders.drafts/entry.study/entry.preset

def place_for(entry:Entry, wanted:list, folders:Folders) -> Path:
    "Where the tables of an entry go: beside runs of the same kind; else they are a draft until they are complete"
    tables, draft = places(entry, folders)
    there = {p.family for p in published(tables)}
    return tables if there and there <= {p.family for p in wanted} else draft

def left_of(entry:Entry, wanted:list, folders:Folders) -> list: # protocols
    "The networks that neither runs nor tables have"
    done = [run.protocol for run in finished(folders.runs, entry.study)]
    for place in places(entry, folders): done += published(place)
    return [part for p in wanted for part in missing(p, done)]

def seconds_each(entry:Entry, folders:Folders) -> float:
    "What one network takes: the median over runs of this entry, else the preset's own estimate for two cores"
    measured = []
    for place in places(entry, folders):
        if not (place/'tables.json').exists(): continue
        ledger = read_published(place)['runs']
        counts = [len(networks(p)) for p in published(place)]
        measured += [s/n for s, n in zip(ledger.seconds, counts)]
    if measured: return statistics.median(measured)
    preset = study_of(entry.study).presets[entry.preset]
    whole = sum(len(networks(p)) for p in protocols(entry.study, entry.preset))
    return 2*60*preset.minutes/max(whole, 1)

def progress(entry:Entry, wanted:list, folders:Folders) -> Progress:
    "How far an entry is"
    left = left_of(entry, wanted, folders)
    return Progress(entry, wanted, left, seconds_each(entry, folders)*sum(len(networks(p)) for p in left))

def report(all_progress:list) -> str: # a line per entry, and the sum
    "What is left, and how long it takes on one core"
    lines = []
    for p in all_progress:
        whole, left = (sum(len(networks(q)) for q in some) for some in (p.wanted, p.left))
        state = f'{whole - left} of {whole} networks, {duration(p.seconds)} left' if left else 'complete'
        lines.append(f'{p.entry.study}/{p.entry.preset}: {state} ({p.entry.decides})')
    return '\n'.join([*lines, f'in all about {duration(sum(p.seconds for p in all_progress))} of one core'])

def publish_finished(entry:Entry, wanted:list, place:Path, folders:Folders) -> int: # networks that are new in `place`
    "Add the finished runs of an entry to its tables"
    old = published(place)
    new = [part for p in wanted for part in missing(p, old)]
    runs = finished(folders.runs, entry.study)
    found = sum(len(take) for _, take in cover(runs, new)) if new else 0
    if found:
        place.parent.mkdir(parents=True, exist_ok=True)
        publish(runs, place, new, preset=entry.preset, add=bool(old))
    return found

def promote(entry:Entry, wanted:list, folders:Folders) -> bool: # whether it was done
    "Put a complete draft in the place of what was published before"
    tables, draft = places(entry, folders)
    aside = tables.with_name(f'.{tables.name}.replaced')
    if tables.exists(): shutil.rmtree(aside, ignore_errors=True) # a killed call may have left it
    done = published(draft)
    if not done or any(missing(p, done) for p in wanted): return False
    if tables.exists(): tables.rename(aside)
    tables.parent.mkdir(parents=True, exist_ok=True)
    draft.rename(tables)
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(OSError): draft.parent.rmdir() # kept where another preset has a draft
    return True

def sweep_words(entry:Entry, part, folders:Folders, copies:dict) -> list[str]: # of the command line
    "The command that makes one missing part"
    words = [str(Path(sys.executable).with_name('ulrs')), 'sweep', entry.study, '--preset', entry.preset,
             '--plr', repr(part.plr), '--workers', '1', '--runs', str(folders.runs)]
    for role in ('data_seeds', 'train_seeds'):
        seeds = getattr(part, role)
        if seeds: words += [f"--{role.replace('_', '-')}", ','.join(map(str, seeds))]
    for role, folder in copies_of(entry, copies).items(): words += ['--set', f'{role}={folder}']
    return words

def run_child(words:list) -> int: # exit code
    "Run a command that is asked to stop when we are"
    child = subprocess.Popen(words)
    old = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try: return child.wait()
    except KeyboardInterrupt: return child.wait() or 130 # the terminal told the child too
    finally: signal.signal(signal.SIGTERM, old)

def take_in(entry:Entry, wanted:list, folders:Folders):
    "Publish what is finished, and say so"
    place = place_for(entry, wanted, folders)
    found = publish_finished(entry, wanted, place, folders)
    if found: print(f'published {found} networks in {place}', flush=True)
    if promote(entry, wanted, folders):
        print(f'{entry.study}/{entry.preset} is complete: its tables are in {folders.tables}; draw them with '
              f'ulrs figures {entry.study} --preset {entry.preset} --published --out figures --replace', flush=True)

def work(planned:dict, folders:Folders, copies:dict) -> int: # planned: as of `plan`; exit code
    "Make what is missing, entry after entry; a run that fails leaves the others"
    failed = []
    for entry in planned:
        for place in places(entry, folders): put_in_place(place) # tables that were on their way when we were killed
    print(report([progress(entry, wanted, folders) for entry, wanted in planned.items()]), flush=True)
    for entry, wanted in planned.items():
        take_in(entry, wanted, folders)
        for part in left_of(entry, wanted, folders):
            print(report([progress(entry, wanted, folders)]), flush=True)
            code = run_child(sweep_words(entry, part, folders, copies))
            take_in(entry, wanted, folders)
            if code == 1: failed.append(part.name)
            elif code: return code
    if failed: print(f"failed: {', '.join(failed)}; see ulrs status", file=sys.stderr)
    return 1 if failed else 0

def alone(folder:Path): # the open lock file, or None
    "Hold the list: two at work would make the same runs"
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder/'.at-work', 'a')
    return None if lock_file(file.fileno()) is False else file

def arguments() -> argparse.ArgumentParser:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--show', action='store_true', help='say what is left, and run nothing')
    ap.add_argument('--nice', type=int, default=19, help='priority: 19 leaves the machine to all others')
    ap.add_argument('--queue', type=Path, default=ROOT/'lab/queue.csv', help='the list')
    ap.add_argument('--data', action='append', default=[], metavar='[NAME=]FOLDER', help='your copy of cifar10, or of another set, instead of the download')
    ap.add_argument('--runs', type=Path, default=ROOT/'runs', help='folder of all runs')
    ap.add_argument('--tables', type=Path, default=ROOT/'figures/data', help='published tables')
    ap.add_argument('--drafts', type=Path, default=ROOT/'lab/drafts', help='tables of entries that are not complete')
    return ap

def main(args=None) -> int: # exit code
    a = arguments().parse_args(args)
    folders = Folders(a.runs, a.tables, a.drafts)
    try:
        entries = read_queue(a.queue)
        copies = read_copies(a.data, entries)
        planned = plan(entries, copies)
        if a.show:
            print(report([progress(entry, wanted, folders) for entry, wanted in planned.items()]))
            return 0
        held = alone(a.drafts)
        if held is None:
            print(f'another one is at work on {a.drafts}', file=sys.stderr)
            return 3
        os.nice(a.nice)
        return work(planned, folders, copies) or int(len(planned) < len(entries))
    except InputError as e: print(e, file=sys.stderr)
    except OSError as e: print(f'{e.filename}: {e.strerror}' if e.filename else e.strerror or e, file=sys.stderr)
    except KeyboardInterrupt: return 130
    return 2

if __name__ == '__main__': sys.exit(main())
