// The rule that finds regimes 1, 2 and 3, as in understanding_lrs.analysis.regimes, for one network per learning rate.

export const CONVERGED = 1e-2 // nats: training loss of a converged network
export const QUIET = 1 // percentage points: a smaller standard deviation over the tail is no chaos
export const AT_CHANCE = 1 // percentage points: distance from chance accuracy
const TAIL_LOOKS = 5 // evaluations from which the noise of a tail can be told
export const SLOW = 'not converged yet',
  UNKNOWN = 'unknown'

const mean = values => values.reduce((sum, v) => sum + v, 0) / values.length

/** Standard deviation of the finite values of a tail; NaN for too few. */
export function tailStd(tail) {
  const known = tail.filter(v => !Number.isNaN(v))
  if (known.length < TAIL_LOOKS) return NaN
  const m = mean(known)
  return Math.sqrt(mean(known.map(v => (v - m) ** 2)))
}

/** Label of one network from its final training loss and the test accuracies (%) of its tail. */
function label(loss, tail, chance) {
  const acc = mean(tail),
    std = tailStd(tail)
  if (loss < CONVERGED) return '1'
  if (Number.isNaN(acc)) return '3' // diverged
  if (Number.isNaN(std)) return UNKNOWN
  if (Math.abs(acc - chance) <= AT_CHANCE) return '3'
  return std < QUIET ? SLOW : '2'
}

/** Labels of all networks; those left of the first rate that converges have not converged yet. */
export function networkRegimes(losses, tails, chance = 50) {
  const labels = losses.map((loss, i) => label(loss, tails[i], chance))
  const first = losses.findIndex(loss => loss < CONVERGED)
  return labels.map((l, i) =>
    i < first && losses[i] >= CONVERGED && !Number.isNaN(mean(tails[i])) ? SLOW : l,
  )
}

const leading = flags => (flags.includes(false) ? flags.indexOf(false) : flags.length)
const at = (plrs, i) => (i >= 0 && i < plrs.length ? plrs[i] : null)
const line = (plrs, left) => ({lo: at(plrs, left - 1), hi: at(plrs, left), known: true})

/** The lines between the regimes: `{lr_12, lr_23}`, each with the last rate left of it (`lo`) and the first right (`hi`). */
export function boundaries(plrs, losses, tails, chance = 50) {
  const labels = networkRegimes(losses, tails, chance)
  if (labels.includes(UNKNOWN)) {
    const none = {lo: null, hi: null, known: false}
    return {lr_12: none, lr_23: none}
  }
  const one = labels.map(l => l === '1' || l === SLOW),
    three = labels.map(l => l === '3')
  return {lr_12: line(plrs, leading(one)), lr_23: line(plrs, plrs.length - leading(three.slice().reverse()))}
}

/** '1', '2', '3' or UNKNOWN. */
export function regimeOf(plr, bounds) {
  if (!bounds.lr_12.known) return UNKNOWN
  if (bounds.lr_12.lo !== null && plr <= bounds.lr_12.lo) return '1'
  if (bounds.lr_23.hi !== null && plr >= bounds.lr_23.hi) return '3'
  return '2'
}

/** Rates of regime 1 at which training has not converged. */
export const unconverged = (plrs, losses, bounds) =>
  plrs.filter((plr, i) => !(losses[i] < CONVERGED) && regimeOf(plr, bounds) === '1')

/** The parts of an axis from `lo` to `hi` that belong to each regime: [regime, from, to]. */
export function spans(bounds, lo, hi) {
  if (!bounds.lr_12.known) return []
  const one = bounds.lr_12.hi === null ? hi : (bounds.lr_12.lo ?? lo)
  const three = bounds.lr_23.hi ?? hi
  return [
    ['1', lo, one],
    ['2', one, three],
    ['3', three, hi],
  ].filter(([, from, to]) => from < to)
}
