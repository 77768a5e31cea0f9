// From what was trained and what is looked at to the data of a picture, and to words.

import {IN_DIM, dataOf, initReadout, probe, trainingSet} from './data.js'
import {padded, weightCount} from './kernel.js'
import {sizesOf} from './lesson.js'
import {CONVERGED, SLOW} from './regimes.js'
import {SHAPES} from './shapes.js'
import {DOMINANT, REACH} from './charts.js'
import {GRID, NETWORKS, count, listed, rate} from './settings.js'

const POINTS = 240 // training samples that are shown
const SIDE = 40 // points along a side of the plane

/** Samples, border and true boundary that belong to some readings. */
export function makeScene(kernel, settings) {
  const data = dataOf(settings)
  const train = trainingSet(kernel, data, settings.seed)
  return {
    ...probe(kernel, data, settings.seed),
    train,
    readout: initReadout(kernel, sizesOf(settings), settings.seed),
    edges: SHAPES[settings.shape].boundary(),
  }
}

const descending = (a, b) => (Number.isNaN(b) ? -1 : b) - (Number.isNaN(a) ? -1 : a)

/** What is drawn: `trainer` has the losses, `readings` everything else, `s` what is looked at. */
export function makeFrame(trainer, readings, scene, s) {
  const steps = sparse(trainer.steps)
  const f = {
    settings: s,
    trainer,
    readings,
    steps,
    loss: steps.map(t => trainer.curves.get(t).loss),
    order: [],
    single: {},
    ranks: [],
    ahead: -1,
  }
  if (!readings) return f
  const i = GRID.indexOf(s.lr),
    own = readings.nets[s.network].single
  f.order = own.map((_, k) => k + 1).sort((a, b) => descending(own[a - 1][i], own[b - 1][i]))
  f.feature = s.feature && s.feature <= own.length ? s.feature : f.order[0]
  for (const name of NETWORKS) f.single[name] = f.order.map(k => readings.nets[name].single[k - 1][i])
  f.ranks = GRID.map((_, j) => own.map(row => row[j]).sort(descending))
  const best = f.single[s.network]
  if (best.length > 1) f.ahead = best[0] - best[1]
  const n = Math.min(POINTS, scene.train.n),
    ld = padded(IN_DIM),
    at = 2 * (f.feature - 1)
  f.points = new Float32Array(2 * n)
  for (let k = 0; k < n; k++) f.points.set(scene.train.x.subarray(k * ld + at, k * ld + at + 2), 2 * k)
  f.labels = scene.train.y.subarray(0, n)
  f.border = scene.border
  f.edges = scene.edges
  return f
}

/** Steps that a logarithmic axis can tell apart, and the last one. */
function sparse(steps, ratio = 1.2) {
  const kept = steps.slice(-1)
  for (let i = steps.length - 2; i >= 0; i--)
    if (kept[0] + 1 >= ratio * (steps[i] + 1)) kept.unshift(steps[i])
  return kept
}

/** What a network says over the plane of one feature, the others held at their borders: SIDE x SIDE probabilities of class 1. */
export function answers(kernel, readings, scene, s, feature) {
  const sizes = sizesOf(readings.settings),
    p = weightCount(sizes),
    i = GRID.indexOf(s.lr),
    ld = padded(IN_DIM)
  const w = readings.nets[s.network].weights.subarray(i * p, (i + 1) * p)
  const cells = SIDE * SIDE,
    x = new Float32Array(cells * ld),
    out = new Float32Array(cells)
  for (let m = 0; m < scene.samples; m++) {
    const other = scene.others.subarray(m * ld, (m + 1) * ld)
    for (let c = 0; c < cells; c++) {
      x.set(other, c * ld)
      x[c * ld + 2 * feature - 2] = -REACH + (2 * REACH * (c % SIDE)) / (SIDE - 1)
      x[c * ld + 2 * feature - 1] = -REACH + (2 * REACH * Math.floor(c / SIDE)) / (SIDE - 1)
    }
    const logits = kernel.logits(sizes, w, scene.readout, x, cells)
    for (let c = 0; c < cells; c++) out[c] += 1 / (1 + Math.exp(-logits[c])) / scene.samples
  }
  return out
}

const PALETTES = {
  light: [
    [142, 193, 227],
    [255, 255, 255],
    [242, 181, 140],
  ],
  dark: [
    [36, 98, 143],
    [28, 32, 38],
    [156, 84, 38],
  ],
}

/** Paint probabilities: rows from below. */
export function paint(canvas, probabilities, dark) {
  const [zero, half, one] = PALETTES[dark ? 'dark' : 'light']
  canvas.width = canvas.height = SIDE
  const context = canvas.getContext('2d'),
    image = context.createImageData(SIDE, SIDE)
  probabilities.forEach((p, c) => {
    const [from, to, t] = p < 0.5 ? [half, zero, 1 - 2 * p] : [half, one, 2 * p - 1]
    const at = 4 * ((SIDE - 1 - Math.floor(c / SIDE)) * SIDE + (c % SIDE))
    for (let j = 0; j < 3; j++) image.data[at + j] = from[j] + (to[j] - from[j]) * t
    image.data[at + 3] = 255
  })
  context.putImageData(image, 0, 0)
}

// Words

export const regimeWords = (readings, lr) => {
  const regime = readings.regimes[GRID.indexOf(lr)]
  return readings.slow.includes(lr) ? `${regime}, ${SLOW}` : regime
}

function effectiveNumber(accuracies) {
  const above = accuracies.map(a => Math.max(a - 50, 0)),
    square = above.reduce((sum, a) => sum + a * a, 0)
  return above.reduce((sum, a) => sum + a, 0) ** 2 / square
}

/** What a frame shows, in two or three sentences. */
export function describe(f) {
  const {settings: s, readings} = f,
    i = GRID.indexOf(s.lr)
  if (!readings) return 'Training has begun.'
  const known = NETWORKS.filter(name => Number.isFinite(readings.nets[name].acc[i]))
  const acc = known.map(name => `${name} ${readings.nets[name].acc[i].toFixed(1)} %`).join(', ')
  const own = f.single[s.network],
    n = effectiveNumber(own)
  const head = `PLR ${rate(s.lr)}, seed ${readings.settings.seed}, regime ${regimeWords(readings, s.lr)} after ${count(readings.mark)} steps. Test accuracy: ${acc}.`
  if (!Number.isFinite(own[0])) return head
  const second = own.length > 1 ? `, the next, ${f.order[1]}, with ${own[1].toFixed(0)} %` : ''
  const used = Number.isFinite(n) ? `; effective number of features ${n.toFixed(1)} of ${own.length}.` : '.'
  return `${head} Best single feature of the ${s.network} network: ${f.order[0]} with ${own[0].toFixed(0)} %${second}${used}`
}

/** How far the training is. */
export function howFar(trainer, readings) {
  const end = trainer.settings.steps
  if (trainer.finished) return `All ${count(end)} steps done.`
  if (!readings) return `Step ${count(trainer.step)} of ${count(end)}.`
  return `Step ${count(trainer.step)} of ${count(end)}; accuracies and features read at ${count(readings.mark)}.`
}

/** How many rates have converged. */
export function converged(f) {
  const last = f.loss[f.loss.length - 1]
  if (!last) return ''
  const low = last.filter(v => v < CONVERGED).length,
    slow = f.readings?.slow.length ?? 0
  const late = slow ? ` Hatched, dashed: ${SLOW} (${slow}).` : ''
  return `${low} of ${GRID.length} rates have converged (training loss below ${CONVERGED}).${late}`
}

/** What a picture was computed from. */
export function origin(f) {
  const s = f.settings
  const data = listed({...s, ...f.readings?.settings}, [
    'shape',
    'n_features',
    'utility',
    'margin',
    'noise',
    'n_train',
    'width',
    'depth',
    'seed',
  ])
  const mark = f.readings
    ? `Losses to step ${count(f.steps[f.steps.length - 1] ?? 0)}, everything else after ${count(f.readings.mark)} of ${count(s.steps)} steps.`
    : ''
  return `${data}. ${mark}`
}
