// Data sets, initial weights and readouts: the same numbers as understanding_lrs.data.synthetic and understanding_lrs.networks.mlp draw.

import {padded, weightCount} from './kernel.js'
import {SHAPES} from './shapes.js'

export const IN_DIM = 32 // inputs; those beyond the features are noise
export const N_TEST = 2000
export const N_SINGLE = 1000 // samples of a single-feature test set
export const BATCH = 16
const READOUT_NORM = 10

/** Which feature helps in which sample: for each feature exactly its share of the samples. */
function usefulSamples(kernel, utility, n) {
  return utility.map(share => {
    const rank = kernel.permutation(n),
      helps = Math.floor(share * n)
    return i => rank[i] < helps
  })
}

/** Samples with padded inputs: each feature in the region of its class where useful, on the border elsewhere. */
function fill(kernel, {shape, margin}, y, useful) {
  const pattern = SHAPES[shape],
    n = y.length,
    ld = padded(IN_DIM)
  const x = new Float32Array(n * ld),
    noise = kernel.normal(n * IN_DIM),
    draws = pattern.borderDraws
  for (let i = 0; i < n; i++) for (let j = 0; j < IN_DIM; j++) x[i * ld + j] = noise[i * IN_DIM + j]
  useful.forEach((helps, f) => {
    const u = kernel.uniform(3 * n),
      v = kernel.uniform(draws * n)
    for (let i = 0; i < n; i++) {
      const at = i * ld + 2 * f
      if (helps(i)) pattern.place(y[i], margin, u[3 * i], u[3 * i + 1], u[3 * i + 2], x, at)
      else pattern.border(margin, v[draws * i], v[draws * i + draws - 1], x, at)
    }
  })
  return x
}

/** Label noise: for each feature, some samples of class 0 exchange their points with as many of class 1. */
function swapLabels(kernel, {features, noise}, x, y) {
  const ld = padded(IN_DIM),
    groups = [0, 1].map(k => [...y.keys()].filter(i => y[i] === k))
  const m = Math.floor(noise * Math.min(groups[0].length, groups[1].length))
  for (let f = 0; f < features; f++) {
    const [a, b] = groups.map(group => {
      const order = kernel.permutation(group.length)
      return Array.from(order.subarray(0, m), i => group[i])
    })
    a.forEach((i, k) => {
      for (const j of [2 * f, 2 * f + 1]) {
        const p = i * ld + j,
          q = b[k] * ld + j,
          kept = x[p]
        x[p] = x[q]
        x[q] = kept
      }
    })
  }
}

/** What the data depend on, of some settings. */
export const dataOf = s => ({
  shape: s.shape,
  features: s.n_features,
  margin: s.margin,
  utility: s.utility,
  noise: s.noise,
  n: s.n_train,
})

function drawSet(kernel, data, purpose, n, seed) {
  kernel.stream(purpose, seed)
  const y = kernel.labels(n)
  const x = fill(kernel, data, y, usefulSamples(kernel, data.utility, n))
  if (purpose === 'train_data' && data.noise) swapLabels(kernel, data, x, y)
  return {x, y: Float32Array.from(y), n}
}

/** The training set of one seed. */
export const trainingSet = (kernel, data, seed) => drawSet(kernel, data, 'train_data', data.n, seed)

/** Training and test set of one seed. */
export const makeData = (kernel, data, seed) => ({
  train: trainingSet(kernel, data, seed),
  test: drawSet(kernel, data, 'test_data', N_TEST, seed),
})

/** Test sets in which only one feature tells the label, one after the other. */
export function singleFeatureSets(kernel, data) {
  const ld = padded(IN_DIM),
    n = N_SINGLE
  const x = new Float32Array(data.features * n * ld),
    y = new Float32Array(data.features * n)
  for (let f = 0; f < data.features; f++) {
    kernel.stream('single_feature', f)
    const labels = kernel.labels(n)
    const useful = Array.from({length: data.features}, (_, g) => () => g === f)
    x.set(fill(kernel, data, labels, useful), f * n * ld)
    y.set(labels, f * n)
  }
  return {x, y, n}
}

/** Samples in which nothing is informative, and points on the border: what the planes show. */
export function probe(kernel, data, seed, samples = 12, points = 240) {
  kernel.stream('probe', seed)
  const y = kernel.labels(samples)
  const others = fill(
    kernel,
    data,
    y,
    Array.from({length: data.features}, () => () => false),
  )
  const pattern = SHAPES[data.shape],
    draws = pattern.borderDraws
  const v = kernel.uniform(draws * points),
    border = new Float32Array(2 * points)
  for (let i = 0; i < points; i++)
    pattern.border(data.margin, v[draws * i], v[draws * i + draws - 1], border, 2 * i)
  return {others, samples, border}
}

const scaledTo = (norm, values) => {
  const length = Math.sqrt(values.reduce((sum, v) => sum + v * v, 0))
  return Float32Array.from(values, v => v * (norm / length))
}

/** The initial point of a seed, on the unit sphere. */
export function initWeights(kernel, sizes, seed) {
  const w = kernel.stream('init', seed).normal(weightCount(sizes))
  const length = Math.sqrt(w.reduce((sum, v) => sum + v * v, 0))
  return Float32Array.from(w, v => v / length)
}

/** The frozen last layer of a seed. */
export const initReadout = (kernel, sizes, seed) =>
  scaledTo(
    READOUT_NORM,
    kernel
      .stream('readout', seed)
      .uniform(sizes.width)
      .map(u => -1 + 2 * u),
  )

/** The batches of steps from `start` to `stop`: a function of (purpose, seed, epoch). */
export function batchOrder(kernel, purpose, seed, n, start, stop) {
  const perEpoch = Math.floor(n / BATCH),
    order = new Int32Array((stop - start) * BATCH)
  for (let step = start; step < stop;) {
    const epoch = Math.floor(step / perEpoch),
      end = Math.min(stop, (epoch + 1) * perEpoch)
    const shuffled = kernel.stream(purpose, seed, epoch).permutation(n)
    const from = (step - epoch * perEpoch) * BATCH
    order.set(shuffled.subarray(from, from + (end - step) * BATCH), (step - start) * BATCH)
    step = end
  }
  return order
}
