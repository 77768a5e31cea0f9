// What tests/test_play.py asks of the page's source: a question as JSON on standard input, the answer as JSON on standard output.
import {readFileSync} from 'node:fs'
import {Networks, loadKernel} from '../play/src/kernel.js'
import * as data from '../play/src/data.js'
import * as regimes from '../play/src/regimes.js'
import * as settings from '../play/src/settings.js'
import {Lesson} from '../play/src/lesson.js'

const kernel = name => loadKernel(readFileSync(new URL(`../play/wasm/${name}`, import.meta.url)))
const numbers = values => values.map(v => v ?? NaN) // JSON has no NaN

const QUESTIONS = {
  async draws({settings: s}) {
    // everything random that belongs to some settings
    const k = await kernel('mlp.wasm'),
      made = settings.makeSettings(s),
      d = data.dataOf(made)
    const sizes = {inDim: data.IN_DIM, width: made.width, depth: made.depth},
      {train, test} = data.makeData(k, d, made.seed)
    const single = data.singleFeatureSets(k, d),
      probe = data.probe(k, d, made.seed)
    const values = {
      x: train.x,
      y: train.y,
      x_test: test.x,
      y_test: test.y,
      x_single: single.x,
      y_single: single.y,
      others: probe.others,
      border: probe.border,
      w: data.initWeights(k, sizes, made.seed),
      readout: data.initReadout(k, sizes, made.seed),
      order: data.batchOrder(k, 'pretrain_order', made.seed, made.n_train, 5, 100),
    }
    return Object.fromEntries(Object.entries(values).map(([name, v]) => [name, Array.from(v)]))
  },
  async train({kernel: name, sizes, w, readout, x, y, order, lr, steps}) {
    // weights, losses and accuracies after some steps
    const k = await kernel(name),
      nets = new Networks(k, sizes, Float32Array.from(w), Float32Array.from(readout))
    const set = {x: k.put(Float32Array, x), y: k.put(Float32Array, y), n: y.length}
    k.train(nets, set, k.put(Int32Array, order), k.put(Float32Array, lr), steps, data.BATCH)
    const {loss, acc} = k.evaluate(nets, set)
    const p = w.length / lr.length
    const logits = k.logits(
      sizes,
      nets.weights.subarray(0, p),
      Float32Array.from(readout),
      Float32Array.from(x),
      y.length,
    )
    return {
      w: Array.from(nets.weights),
      loss: Array.from(loss),
      acc: Array.from(acc),
      logits: Array.from(logits),
    }
  },
  async lesson({settings: s, rates, kernel: name = 'mlp.wasm'}) {
    // what a whole lesson reads at its marks
    const made = settings.makeSettings(s),
      lesson = new Lesson(await kernel(name), made, rates),
      out = []
    for (const event of lesson.follow(made.flr)) {
      if (event.type === 'read')
        out.push({...event, acc: Array.from(event.acc), weights: Array.from(event.weights)})
      if (event.type === 'single') out.push({...event, single: event.single.map(row => Array.from(row))})
      if (event.type === 'curve')
        out.push({...event, loss: Array.from(event.loss), acc: event.acc && Array.from(event.acc)})
    }
    return out
  },
  regimes({cases}) {
    return cases.map(({plrs, losses, tails}) => {
      const known = numbers(losses),
        bounds = regimes.boundaries(plrs, known, tails.map(numbers))
      return {
        bounds,
        labels: regimes.networkRegimes(known, tails.map(numbers)),
        names: plrs.map(plr => regimes.regimeOf(plr, bounds)),
        slow: regimes.unconverged(plrs, known, bounds),
        spans: regimes.spans(bounds, plrs[0] / 1.2, plrs[plrs.length - 1] * 1.2),
      }
    })
  },
  settings({texts, steps}) {
    const read = text => {
      try {
        return {settings: settings.fromText(text), text: settings.toText(settings.fromText(text))}
      } catch (e) {
        return {error: e.message, kind: e.constructor.name}
      }
    }
    const {GRID, CHOICES, RANGES, MARKS, TOUR} = settings
    return {
      texts: texts.map(read),
      evals: steps.map(settings.evalSteps),
      rates: GRID.map(lr => settings.rate(lr)),
      GRID,
      CHOICES,
      RANGES,
      MARKS,
      TOUR,
    }
  },
}

const {question, ...given} = JSON.parse(readFileSync(0, 'utf8'))
process.stdout.write(JSON.stringify(await QUESTIONS[question](given)))
