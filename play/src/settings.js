// What the page shows: the same settings, limits, words and tour as understanding_lrs.app.explore_settings.

export const GRID = [
  3.162e-5, 5.623e-5, 0.0001, 0.0001778, 0.0003162, 0.0005623, 0.001, 0.001778, 0.003162, 0.005623, 0.007499,
  0.01, 0.01334, 0.01778, 0.02371, 0.03162, 0.04217, 0.05623, 0.1, 0.1778, 0.3162, 0.5623, 1.0,
]
export const NETWORKS = ['pre-trained', 'averaged', 'fine-tuned']
export const SHAPE_NAMES = ['circles', 'sectors', 'stripe', 'diamond', 'peaks', 'tick', 'cross', 'union_jack']
export const CHOICES = {
  shape: SHAPE_NAMES,
  n_train: [64, 128, 256, 512, 1024, 2048],
  width: [8, 16, 32, 64],
  steps: [500, 1000, 2000, 5000, 10000, 20000, 40000],
  lr: GRID,
  flr: GRID.slice(0, 11),
  network: NETWORKS,
}
export const RANGES = {n_features: [1, 16], margin: [0, 0.3], noise: [0, 0.5], depth: [1, 4], seed: [0, 999]}
const WHOLE = ['n_features', 'depth', 'seed', 'feature']
export const DEFAULTS = Object.freeze({
  shape: 'tick',
  n_features: 16,
  margin: 0.1,
  utility: Object.freeze(Array(16).fill(1)),
  noise: 0,
  n_train: 512,
  width: 32,
  depth: 2,
  steps: 40000,
  seed: 15,
  lr: GRID[11],
  flr: GRID[6],
  feature: 0,
  network: NETWORKS[0],
})
/** What can change without training the grid again; `flr` fine-tunes again. */
export const LOOKS = ['lr', 'flr', 'feature', 'network']

/** A learning rate as people write it: 0.00141 -> '1.4e-3'. */
export function rate(lr, digits = 2) {
  if (lr === 1) return '1'
  const [number, power] = lr.toExponential(digits - 1).split('e')
  const short = number.includes('.') ? number.replace(/0+$/, '').replace(/\.$/, '') : number
  return `${short}e${Number(power)}`
}

/** A mistake in settings, as one line for the reader. */
export class InputError extends Error {}

function chosen(name, value) {
  const known = CHOICES[name]
  if (known.includes(value)) return value
  if (typeof value === 'number' && typeof known[0] === 'number') {
    const near = known.reduce((best, k) => (Math.abs(k - value) < Math.abs(best - value) ? k : best))
    if (Math.abs(near - value) <= 0.01 * near) return near
  }
  const words = name.endsWith('lr') ? known.map(k => rate(k)) : known
  const some = name.endsWith('lr')
    ? `${words.slice(0, 3).join(', ')} ... ${words[words.length - 1]}`
    : words.join(', ')
  throw new InputError(`${name} must be one of ${some}, got ${JSON.stringify(value)}`)
}

function within(name, value, [lo, hi]) {
  const whole = WHOLE.includes(name)
  if (typeof value === 'number' && lo <= value && value <= hi && (!whole || Number.isInteger(value)))
    return value
  throw new InputError(
    `${name} must be a ${whole ? 'whole number' : 'number'} from ${lo} to ${hi}, got ${JSON.stringify(value)}`,
  )
}

/** Settings checked, what is left out has its default; throws InputError with one line. */
export function makeSettings(given = {}) {
  const s = {...DEFAULTS, ...given}
  for (const name of Object.keys(given))
    if (!(name in DEFAULTS))
      throw new InputError(`unknown setting '${name}'; known: ${Object.keys(DEFAULTS).join(', ')}`)
  for (const name of Object.keys(CHOICES)) s[name] = chosen(name, s[name])
  for (const [name, ends] of Object.entries(RANGES)) s[name] = within(name, s[name], ends)
  s.feature = within('feature', s.feature, [0, s.n_features])
  if (!('utility' in given)) s.utility = 1
  const utility = Array.isArray(s.utility) ? s.utility : Array(s.n_features).fill(s.utility)
  if (utility.length !== s.n_features)
    throw new InputError(
      `utility needs one number or ${s.n_features}, one per feature; got ${utility.length}`,
    )
  s.utility = utility.map(u => within('utility', u, [0, 1]))
  return Object.freeze(s)
}

const alike = utility => utility.every(u => u === utility[0])

/** Settings as JSON of one line; equal utilities are written once. The Python explorer reads it too. */
export const toText = s => JSON.stringify({...s, utility: alike(s.utility) ? s.utility[0] : s.utility})

/** Read settings, or throw InputError with one line that says what is wrong. */
export function fromText(text) {
  let given
  try {
    given = JSON.parse(text)
  } catch (e) {
    throw new InputError(`this is not JSON: ${e.message}`)
  }
  if (given === null || typeof given !== 'object' || Array.isArray(given))
    throw new InputError('settings are an object like {"lr": 0.01}')
  return makeSettings(given)
}

/** What must be trained for some settings; equal text, equal training. */
export const trainingKey = s =>
  toText({...s, ...Object.fromEntries(LOOKS.map(name => [name, DEFAULTS[name]]))})

const NUMBER = new Intl.NumberFormat('en-US')
export const count = n => NUMBER.format(n)
const WORDS = {
  shape: s => s.shape.replace('_', ' '),
  n_features: s => (s.n_features === 1 ? '1 feature' : `${s.n_features} features`),
  margin: s => `margin ${s.margin}`,
  noise: s => `label noise ${s.noise}`,
  n_train: s => `${count(s.n_train)} samples`,
  width: s => `width ${s.width}`,
  depth: s => `depth ${s.depth}`,
  steps: s => `${count(s.steps)} steps`,
  seed: s => `seed ${s.seed}`,
  network: s => `${s.network} network`,
  lr: s => `PLR ${rate(s.lr)}`,
  flr: s => `fine-tuning LR ${rate(s.flr)}`,
  feature: s => (s.feature ? `feature ${s.feature}` : 'best feature'),
  utility: s => `utility ${(alike(s.utility) ? s.utility.slice(0, 1) : s.utility).join(' ')}`,
}

/** A setting as people say it. */
export const spelled = (s, name) => WORDS[name](s)

/** Names of the settings in which two differ; equal utilities of more or fewer features do not. */
export function differences(a, b) {
  const same = alike(a.utility) && alike(b.utility) && a.utility[0] === b.utility[0]
  const differs = name => String(a[name]) !== String(b[name])
  return Object.keys(DEFAULTS).filter(name => differs(name) && !(name === 'utility' && same))
}

export const listed = (s, names) => names.map(name => spelled(s, name)).join(', ')

// When things are read

export const MARKS = [2000, 5000, 10000, 20000, 40000]
export const AVERAGED = 5,
  EVERY = 100 // checkpoints that are averaged, steps between them
const TAIL = 8 // evaluations in the last tenth

/** The steps at which everything is read. */
export const marksOf = steps => [...MARKS.filter(m => m < steps), steps]

/** The steps at which losses are read: log-spaced, and for every mark some in its last tenth. */
export function evalSteps(steps) {
  const log = Array.from({length: 18}, (_, i) => Math.round(steps ** (i / 17)))
  const tails = marksOf(steps).flatMap(m =>
    Array.from({length: TAIL}, (_, i) => m - Math.floor((Math.floor(m / 10) * i) / TAIL)),
  )
  return [...new Set([0, ...log, ...tails])].filter(t => t <= steps).sort((a, b) => a - b)
}

/** Is a step in the last tenth before a mark, where test accuracy is read as well? */
export const inTail = (step, steps) => marksOf(steps).some(m => 0.9 * m < step && step <= m)

// The tour

/** Where the page begins: a seed whose networks become sparse just above the threshold in every browser that was tried. */
export const START = makeSettings({seed: 16})

const stop = (title, question, answer, settings, free = ['feature'], mark = MARKS[2]) => ({
  title,
  question,
  answer,
  settings: makeSettings({...START, ...settings}),
  free,
  mark,
})

/** The questions of understanding_lrs.app.explore_tour. Above the threshold other hardware gives other numbers, so the answers here
    are about a seed for which both kernels agree (tests/test_play.py). */
export const TOUR = [
  stop(
    'A small rate',
    'The rate is 1e-3 and training converges. How many of the sixteen features does the network use?',
    'Many, each a little. No single feature takes it more than a few points above chance (50 %), all together about 74 %. ' +
      'The plane is pale: the network hardly answers to one feature alone.',
    {lr: GRID[6]},
  ),
  stop(
    'Just above the threshold',
    'The rate is 1e-2: the loss no longer goes to zero. What happened to the features by 10,000 steps?',
    'One stands out, more than ten points ahead of the others, which are near chance. The colours of the plane follow the true boundary. ' +
      'This is the sparsity that the paper finds in regime 2A.',
    {lr: GRID[11]},
  ),
  stop(
    'Calm it down',
    'Now look at the average of the last five checkpoints, or at the fine-tuned network. Do the other features come back?',
    'No. The network stays sparse and mostly learns its one feature better. Its test accuracy passes that of rates of 1e-3 and less.',
    {lr: GRID[11], network: 'averaged'},
    ['feature', 'network'],
  ),
  stop(
    'Too large',
    'The rate is 4.2e-2, four times as large. Is larger better?',
    'No. Here training settles on nothing, and fine-tuning from it ends like a small rate: many features, each a little.',
    {lr: GRID[16], network: 'fine-tuned'},
  ),
  stop(
    'Was it luck?',
    'The same rate as in step 2 with other data and another initial point: seed 14. Does it become sparse?',
    'Often it does not: near the threshold some networks find a dominant feature and some do not. One seed is an example, no ' +
      'evidence; the study counts networks over many seeds.',
    {lr: GRID[11], seed: 14},
  ),
]
