// Web workers that share the learning rates among them, and what they have found so far.

import {GRID, NETWORKS, trainingKey} from './settings.js'
import {Follower} from './follower.js'
import {weightCount} from './kernel.js'
import {sizesOf} from './lesson.js'
import {boundaries, regimeOf, unconverged} from './regimes.js'

/** What was read at a mark, network by network: test accuracy (%), accuracies on single features (%), weights. */
class Readings {
  constructor(mark, settings) {
    const p = weightCount(sizesOf(settings))
    Object.assign(this, {mark, settings, flr: settings.flr, bounds: null, regimes: null, slow: []})
    const unknown = () => new Float64Array(GRID.length).fill(NaN)
    const each = () => Array.from({length: settings.n_features}, unknown)
    const net = () => ({
      acc: unknown(),
      single: each(),
      weights: new Float32Array(GRID.length * p),
      coming: unknown(),
      parts: each(),
      reads: new Set(),
      singles: new Set(),
    }) // what some workers have told so far
    this.nets = Object.fromEntries(NETWORKS.map(name => [name, net()]))
  }
}

/** Stands in for a worker where the host of a notebook forbids them: the page trains itself, between two events. */
class Stand {
  constructor() {
    this.follower = new Follower(data => this.onmessage({data}))
  }
  postMessage(data) {
    this.follower.hear(data)
  }
  terminate() {
    this.follower.job = -1
  }
}

function makeWorker(url) {
  try {
    return new Worker(url)
  } catch {
    return new Stand()
  }
}

export class Trainer {
  /** source: code of a worker; bytes: of the kernel; onChange: called with what is new. */
  constructor(source, bytes, onChange, workers = Trainer.suitable()) {
    this.url = URL.createObjectURL(new Blob([source], {type: 'text/javascript'}))
    this.onChange = onChange
    this.job = 0
    this.bytes = bytes
    this.workers = []
    for (let j = 0; j < workers; j++)
      this.employ(
        makeWorker(this.url),
        j,
        [...GRID.keys()].filter(i => i % workers === j),
      )
  }

  /** Put a worker into place j, for some of the rates. */
  employ(worker, j, mine) {
    this.workers[j] = Object.assign(worker, {mine, heard: false})
    worker.onmessage = ({data}) => this.hear(worker, data)
    worker.onerror = e => {
      if (worker.heard) return this.onChange({type: 'failed', message: e.message})
      this.employ(new Stand(), j, mine) // it could be made, but must not run
      if (this.settings) this.send(this.workers[j])
    }
    worker.postMessage({type: 'kernel', bytes: this.bytes})
  }
  send(worker) {
    Object.assign(worker, {step: 0, done: false})
    const {settings} = this
    worker.postMessage({
      id: this.job,
      settings,
      training: this.training,
      rates: worker.mine.map(i => GRID[i]),
      flr: settings.flr,
    })
  }

  static suitable() {
    return Math.min(4, Math.max(2, navigator.hardwareConcurrency || 2))
  }

  close() {
    for (const worker of this.workers) worker.terminate()
    URL.revokeObjectURL(this.url)
  }

  /** Train for some settings; with another fine-tuning rate only, what was pre-trained stays. */
  start(settings) {
    const training = trainingKey(settings)
    this.job += 1
    if (training === this.training) this.forgetFineTuning(settings)
    else
      Object.assign(this, {training, curves: new Map(), marks: [], from: performance.now(), firstAfter: null})
    this.settings = settings
    for (const worker of this.workers) this.send(worker)
  }
  forgetFineTuning(settings) {
    this.marks = this.marks.slice(-1)
    for (const readings of this.marks) {
      readings.nets['fine-tuned'] = new Readings(readings.mark, settings).nets['fine-tuned']
      Object.assign(readings, {settings, flr: settings.flr})
    }
  }

  hear(worker, data) {
    worker.heard = true
    if (data.id !== undefined && data.id !== this.job) return
    if (data.step !== undefined) worker.step = data.step
    if (data.type === 'curve') this.addCurve(worker, data)
    if (data.type === 'read' || data.type === 'single') this.addReading(worker, data)
    if (data.type === 'done') worker.done = true
    this.onChange(data)
  }

  addCurve(worker, {step, loss, acc}) {
    if (!this.curves.has(step))
      this.curves.set(step, {
        loss: Array(GRID.length).fill(NaN),
        acc: acc && Array(GRID.length).fill(NaN),
        parts: new Set(),
      })
    const row = this.curves.get(step)
    row.parts.add(worker)
    worker.mine.forEach((i, k) => {
      row.loss[i] = loss[k]
      if (acc) row.acc[i] = acc[k]
    })
  }

  addReading(worker, {type, mark, network, acc, weights, single}) {
    let readings = this.marks.find(r => r.mark === mark)
    if (!readings) this.marks.push((readings = new Readings(mark, this.settings)))
    const net = readings.nets[network]
    if (type === 'read') {
      const p = weights.length / worker.mine.length
      worker.mine.forEach((i, k) => {
        net.coming[i] = acc[k]
        net.weights.set(weights.subarray(k * p, (k + 1) * p), i * p)
      })
      net.reads.add(worker)
      if (this.hasRead(readings, network)) net.acc.set(net.coming) // all rates at once
      if (network === NETWORKS[0] && this.hasRead(readings, network)) this.judge(readings)
    } else {
      single.forEach((values, f) =>
        worker.mine.forEach((i, k) => {
          net.parts[f][i] = values[k]
        }),
      )
      net.singles.add(worker)
      if (this.has(readings, network)) net.single = net.parts
    }
  }

  /** The regimes at a mark, from the curves of all rates. */
  judge(readings) {
    const {mark} = readings
    const tail = this.steps.filter(t => 0.9 * mark < t && t <= mark).map(t => this.curves.get(t).acc)
    const losses = this.curves.get(mark).loss,
      tails = GRID.map((_, i) => tail.map(acc => acc[i]))
    readings.bounds = boundaries(GRID, losses, tails)
    readings.regimes = GRID.map(plr => regimeOf(plr, readings.bounds))
    readings.slow = unconverged(GRID, losses, readings.bounds)
    this.firstAfter ??= performance.now() - this.from
  }

  /** Steps at which the losses of all rates are known. */
  get steps() {
    return [...this.curves.keys()]
      .filter(t => this.curves.get(t).parts.size === this.workers.length)
      .sort((a, b) => a - b)
  }
  get step() {
    return Math.min(...this.workers.map(w => w.step))
  }
  get finished() {
    return this.workers.every(w => w.done)
  }

  /** Are the weights and accuracies of a network known at a mark, and is it read completely? */
  hasRead(readings, network) {
    return readings.nets[network].reads.size === this.workers.length
  }
  has(readings, network) {
    return readings.nets[network].singles.size === this.workers.length
  }
  complete(readings) {
    return NETWORKS.every(name => this.has(readings, name))
  }

  /** The last complete mark; before there is one, the first as far as it goes. */
  get shown() {
    const whole = this.marks.filter(r => this.complete(r))
    const first = this.marks.find(r => r.bounds)
    return whole[whole.length - 1] ?? first ?? null
  }
}
