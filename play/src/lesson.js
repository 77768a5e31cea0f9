// The training of one setting at some learning rates: pre-training with its evaluations, averages, fine-tuning.

import {Networks} from './kernel.js'
import {
  BATCH,
  IN_DIM,
  batchOrder,
  dataOf,
  initReadout,
  initWeights,
  makeData,
  singleFeatureSets,
} from './data.js'
import {AVERAGED, EVERY, evalSteps, inTail, marksOf} from './settings.js'

const WINDOW = 12 // milliseconds between two chances to leave

/** Single-feature test sets take as long to draw as a short training, so each kernel keeps the last ones. */
function exam(kernel, data) {
  const key = JSON.stringify([data.shape, data.features, data.margin])
  if (kernel.exam?.key !== key) {
    if (kernel.exam) kernel.free(kernel.exam.set.x, kernel.exam.set.y)
    kernel.exam = {key, set: stored(kernel, singleFeatureSets(kernel, data))}
  }
  return kernel.exam.set
}

const stored = (kernel, {x, y, n}) => ({x: kernel.put(Float32Array, x), y: kernel.put(Float32Array, y), n})

/** Sizes of the network of some settings. */
export const sizesOf = s => ({inDim: IN_DIM, width: s.width, depth: s.depth})

/** `follow(flr)` yields events: what happened, `{type: ...}`; leave whenever you like, and follow again. */
export class Lesson {
  constructor(kernel, settings, rates) {
    // rates: learning rates of this lesson's networks
    Object.assign(this, {kernel, settings, rates, step: -1, base: null, pace: 60})
    this.sizes = sizesOf(settings)
    this.data = dataOf(settings)
    const {train, test} = makeData(kernel, this.data, settings.seed)
    this.train = stored(kernel, train)
    this.test = stored(kernel, test)
    this.marks = marksOf(settings.steps)
    this.evals = evalSteps(settings.steps)
    this.takes = this.marks.flatMap(m => Array.from({length: AVERAGED}, (_, i) => m - EVERY * i))
    const initial = initWeights(kernel, this.sizes, settings.seed)
    const weights = new Float32Array(rates.length * initial.length)
    rates.forEach((_, k) => weights.set(initial, k * initial.length))
    this.readout = initReadout(kernel, this.sizes, settings.seed)
    this.nets = new Networks(kernel, this.sizes, weights, this.readout)
    this.other = new Networks(kernel, this.sizes, weights, this.readout) // averaged or fine-tuned
    this.lr = kernel.put(Float32Array, rates)
    this.sums = new Float64Array(weights.length)
  }

  /** Give the memory back. */
  close() {
    this.kernel.free(this.train.x, this.train.y, this.test.x, this.test.y, this.lr)
    this.nets.free()
    this.other.free()
  }

  /** Train on the spot, a window of time at a time, until a step; yields after every window. */
  *steps(nets, lr, purpose, from, to) {
    for (let at = from; at < to;) {
      const next = Math.min(to, at + Math.max(1, Math.round(this.pace)))
      const order = this.kernel.put(
        Int32Array,
        batchOrder(this.kernel, purpose, this.settings.seed, this.train.n, at, next),
      )
      const start = performance.now()
      this.kernel.train(nets, this.train, order, lr, next - at, BATCH)
      const took = performance.now() - start
      if (next - at >= 8) this.pace = Math.min(4 * this.pace, (WINDOW / Math.max(took, 0.1)) * (next - at))
      this.kernel.free(order)
      at = next
      yield at
    }
  }

  /** What is due at a step. */
  arrive(step) {
    this.step = step
    if (this.takes.includes(step)) {
      const w = this.kernel.view(this.nets.w)
      if (!this.marks.includes(step + EVERY * (AVERAGED - 1)))
        for (let i = 0; i < w.length; i++) this.sums[i] += w[i]
      else for (let i = 0; i < w.length; i++) this.sums[i] = w[i]
    }
    if (!this.evals.includes(step)) return null
    const loss = this.kernel.evaluate(this.nets, this.train).loss
    const acc = inTail(step, this.settings.steps) ? this.kernel.evaluate(this.nets, this.test).acc : null
    this.acc = acc // until the next step that is evaluated
    return {type: 'curve', step, loss, acc}
  }

  *single(nets, mark, network) {
    const set = exam(this.kernel, this.data),
      out = []
    for (let f = 0; f < this.data.features; f++) {
      out.push(this.kernel.evaluate(nets, set, f).acc)
      yield {type: 'tick'}
    }
    yield {type: 'single', mark, network, single: out} // [feature][network of this lesson]
  }

  /** Read one of the three networks at a mark. */
  *read(nets, mark, network, acc = this.kernel.evaluate(nets, this.test).acc) {
    yield {type: 'read', mark, network, acc, weights: nets.weights}
    yield* this.single(nets, mark, network)
  }

  *averaged() {
    this.other.weights = Float32Array.from(this.base.sums, sum => sum / AVERAGED)
    yield* this.read(this.other, this.base.mark, 'averaged')
  }

  *fineTuned(flr) {
    const {mark, weights} = this.base,
      half = Math.floor(mark / 2)
    this.other.weights = weights
    const lr = this.kernel.put(
      Float32Array,
      this.rates.map(() => flr),
    )
    try {
      for (const tuned of this.steps(this.other, lr, 'finetune_order', 0, half))
        yield {type: 'tick', mark, tuned}
    } finally {
      this.kernel.free(lr)
    }
    yield* this.read(this.other, mark, 'fine-tuned')
  }

  /** Go on from where the lesson stands to its end. */
  *follow(flr) {
    if (this.base) {
      if (!this.base.read) yield* this.basics()
      yield* this.fineTuned(flr)
    }
    if (this.step < 0) yield this.arrive(0)
    const stops = [...new Set([...this.evals, ...this.takes, ...this.marks])].sort((a, b) => a - b)
    while (this.step < this.settings.steps) {
      const stop = stops.find(s => s > this.step)
      for (const at of this.steps(this.nets, this.lr, 'pretrain_order', this.step, stop)) {
        this.step = at
        if (at < stop) yield {type: 'tick', step: at}
      }
      const seen = this.arrive(stop)
      if (this.marks.includes(stop))
        this.base = {mark: stop, weights: this.nets.weights, sums: this.sums.slice(), acc: this.acc, read: false}
      if (seen) yield seen
      if (!this.marks.includes(stop)) continue
      yield* this.basics()
      yield* this.fineTuned(flr)
    }
    yield {type: 'done'}
  }

  /** What does not depend on the fine-tuning rate. */
  *basics() {
    yield* this.read(this.nets, this.base.mark, 'pre-trained', this.base.acc)
    yield* this.averaged()
    this.base.read = true
  }
}
