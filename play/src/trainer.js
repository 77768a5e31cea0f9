// Web workers that share the learning rates among them, and what they have found so far.

import { GRID, NETWORKS, trainingKey } from './settings.js'
import { weightCount } from './kernel.js'
import { sizesOf } from './lesson.js'
import { boundaries, regimeOf, unconverged } from './regimes.js'

/** What was read at a mark, network by network: test accuracy (%), accuracies on single features (%), weights. */
class Readings {
  constructor(mark, settings) {
    const p = weightCount(sizesOf(settings))
    Object.assign(this, {mark, settings, flr: settings.flr, bounds: null, regimes: null, slow: []})
    const unknown = () => new Float64Array(GRID.length).fill(NaN)
    const each = () => Array.from({length: settings.n_features}, unknown)
    const net = () => ({acc: unknown(), single: each(), weights: new Float32Array(GRID.length*p),
                        coming: unknown(), parts: each(), reads: 0, singles: 0}) // what some workers have told so far
    this.nets = Object.fromEntries(NETWORKS.map(name => [name, net()]))
  }
}

export class Trainer {
  /** source: code of a worker; bytes: of the kernel; onChange: called with what is new. */
  constructor(source, bytes, onChange, workers = Trainer.suitable()) {
    this.url = URL.createObjectURL(new Blob([source], {type: 'text/javascript'}))
    this.onChange = onChange
    this.job = 0
    this.workers = Array.from({length: workers}, (_, j) => {
      const worker = new Worker(this.url)
      worker.mine = [...GRID.keys()].filter(i => i % workers === j)
      worker.onmessage = ({data}) => this.hear(worker, data)
      worker.onerror = e => this.onChange({type: 'failed', message: e.message})
      worker.postMessage({type: 'kernel', bytes})
      return worker
    })
  }
  static suitable() { return Math.min(4, Math.max(2, navigator.hardwareConcurrency || 2)) }

  close() {
    for (const worker of this.workers) worker.terminate()
    URL.revokeObjectURL(this.url)
  }

  /** Train for some settings; with another fine-tuning rate only, what was pre-trained stays. */
  start(settings) {
    const training = trainingKey(settings)
    this.job += 1
    if (training === this.training) this.forgetFineTuning(settings)
    else Object.assign(this, {training, curves: new Map(), marks: [], from: performance.now(), firstAfter: null})
    Object.assign(this, {settings, done: 0, tuned: 0})
    for (const worker of this.workers) {
      Object.assign(worker, {step: 0, done: false})
      worker.postMessage({id: this.job, settings, training, rates: worker.mine.map(i => GRID[i]), flr: settings.flr})
    }
  }
  forgetFineTuning(settings) {
    this.marks = this.marks.slice(-1)
    for (const readings of this.marks) {
      readings.nets['fine-tuned'] = new Readings(readings.mark, settings).nets['fine-tuned']
      Object.assign(readings, {settings, flr: settings.flr})
    }
  }

  hear(worker, data) {
    if (data.id !== undefined && data.id !== this.job) return
    if (data.step !== undefined) worker.step = data.step
    if (data.type === 'curve') this.addCurve(worker, data)
    if (data.type === 'read' || data.type === 'single') this.addReading(worker, data)
    if (data.type === 'done') worker.done = true
    this.tuned = data.type === 'tick' ? data.tuned ?? 0 : this.tuned
    this.onChange(data)
  }

  addCurve(worker, {step, loss, acc}) {
    if (!this.curves.has(step)) this.curves.set(step, {loss: Array(GRID.length).fill(NaN), acc: acc && Array(GRID.length).fill(NaN), parts: new Set()})
    const row = this.curves.get(step)
    row.parts.add(worker)
    worker.mine.forEach((i, k) => {
      row.loss[i] = loss[k]
      if (acc) row.acc[i] = acc[k]
    })
  }

  addReading(worker, {type, mark, network, acc, weights, single}) {
    let readings = this.marks.find(r => r.mark === mark)
    if (!readings) this.marks.push(readings = new Readings(mark, this.settings))
    const net = readings.nets[network]
    if (type === 'read') {
      const p = weights.length/worker.mine.length
      worker.mine.forEach((i, k) => {
        net.coming[i] = acc[k]
        net.weights.set(weights.subarray(k*p, (k + 1)*p), i*p)
      })
      net.reads += 1
      if (net.reads === this.workers.length) net.acc.set(net.coming) // all rates at once
      if (network === NETWORKS[0] && net.reads === this.workers.length) this.judge(readings)
    } else {
      single.forEach((values, f) => worker.mine.forEach((i, k) => { net.parts[f][i] = values[k] }))
      net.singles += 1
      if (this.has(readings, network)) net.single = net.parts
    }
  }

  /** The regimes at a mark, from the curves of all rates. */
  judge(readings) {
    const {mark} = readings
    const tail = this.steps.filter(t => .9*mark < t && t <= mark).map(t => this.curves.get(t).acc)
    const losses = this.curves.get(mark).loss, tails = GRID.map((_, i) => tail.map(acc => acc[i]))
    readings.bounds = boundaries(GRID, losses, tails)
    readings.regimes = GRID.map(plr => regimeOf(plr, readings.bounds))
    readings.slow = unconverged(GRID, losses, readings.bounds)
    this.firstAfter ??= performance.now() - this.from
  }

  /** Steps at which the losses of all rates are known. */
  get steps() {
    return [...this.curves.keys()].filter(t => this.curves.get(t).parts.size === this.workers.length).sort((a, b) => a - b)
  }
  get step() { return Math.min(...this.workers.map(w => w.step)) }
  get finished() { return this.workers.every(w => w.done) }

  /** Is a network read completely at a mark? */
  has(readings, network) { return readings.nets[network].singles === this.workers.length }
  complete(readings) { return NETWORKS.every(name => this.has(readings, name)) }

  /** The last complete mark; before there is one, the first as far as it goes. */
  get shown() {
    const whole = this.marks.filter(r => this.complete(r))
    const first = this.marks.find(r => r.bounds && r.nets[NETWORKS[0]].reads === this.workers.length)
    return whole[whole.length - 1] ?? first ?? null
  }
}
