// The explorer: `render({model, el})` puts it into an element. A notebook (anywidget) and the page use the same.
// model: `settings` (text, both ways), `results` (what was found, out).

import plain from '../wasm/mlp.wasm'
import relaxed from '../wasm/mlp-relaxed.wasm'
import workerSource from 'worker-source'
import css from './style.css'
import * as charts from './charts.js'
import {networksHtml, settingsHtml, turn, valueOf} from './controls.js'
import {
  answers,
  converged,
  describe,
  howFar,
  makeFrame,
  makeScene,
  origin,
  paint,
  regimeWords,
} from './frame.js'
import {chooseKernel, loadKernel} from './kernel.js'
import {
  GRID,
  InputError,
  NETWORKS,
  START,
  TOUR,
  count,
  differences,
  fromText,
  listed,
  makeSettings,
  rate,
  toText,
  trainingKey,
} from './settings.js'
import {isDark, onTheme} from './theme.js'
import {Trainer} from './trainer.js'

const BETWEEN = 120 // milliseconds between two starts of training while a control is dragged
const PAUSE = 150 // milliseconds between two drawings of curves that grow: each takes time from the training
const HEIGHT = 272 // of a panel
const THUMB = 16 // width of a slider's handle
let made = 0 // explorers on this page: their inputs need different names

const figure = (name, title, more = '') => `<figure class="panel" data-panel="${name}">
  <figcaption><b>${title}</b><span class="sub" data-sub="${name}"></span><span class="key">${more}</span></figcaption><div class="chart"></div></figure>`

const KEYS = {
  losses:
    [1, 2, 3].map(r => `<span>${charts.stroke(`curve h${r}`)}regime ${r}</span>`).join('') +
    `<span>${charts.stroke('curve mine')}chosen</span>`,
  accuracies: NETWORKS.map(name => `<span>${charts.sample(name)}${name}</span>`).join(''),
  features: `<span>${charts.stroke('curve best')}best feature</span><span>${charts.stroke('curve rest')}others, sorted</span>`,
  plane: '<span class="class zero">● class 0</span><span class="class one">▲ class 1</span>',
}

const layout = id => `
  <div class="tour" role="group" aria-label="Guided tour"><b>Tour</b>${TOUR.map(
    (stop, i) =>
      `<button type="button" data-stop="${i}"><span class="number">${i + 1}</span>${stop.title}</button>`,
  ).join('')}
    <button type="button" class="quiet" data-act="reset">Reset</button></div>
  <div class="stop" hidden></div>
  <p class="error" role="alert" hidden></p>
  <div class="rate">
    <div class="said"><output class="plr" for="${id}-lr"></output>${networksHtml(id)}</div>
    <div class="rail"></div>
    <input type="range" id="${id}-lr" data-setting="lr" min="0" max="${GRID.length - 1}" step="1" aria-label="PLR, learning rate of pre-training">
    <div class="ends" aria-hidden="true"><span>3e-5</span><span>learning rate of pre-training (PLR)</span><span>1</span></div>
  </div>
  <div class="main">
    <div class="boards">
      <div class="state"><progress max="1" value="0" aria-label="share of the training that is done"></progress><span class="far"></span></div>
      <h2>All 23 learning rates</h2>
      <div class="panels">${figure('losses', 'Training loss', KEYS.losses)}${figure('accuracies', 'Test accuracy', KEYS.accuracies)}${figure(
        'features',
        'Features in use',
        KEYS.features,
      )}</div>
      <h2 class="at"></h2>
      <div class="panels">${figure('ranked', 'Which features it uses')}${figure('plane', 'What the network answers', KEYS.plane)}${figure(
        'border',
        'Where it is uninformative',
        KEYS.plane,
      )}</div>
      <p class="words" role="status" aria-live="polite"></p>
      <p class="origin"></p>
    </div>
    <div class="settings" role="group" aria-label="Settings"><h2>Settings</h2>${settingsHtml(id)}</div>
  </div>
  <div class="tip" hidden></div>
  <svg class="unseen" aria-hidden="true"><pattern id="ulrs-hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
    <path class="hatch" d="M0 0V7"/></pattern></svg>`

class Explorer {
  constructor(model, el) {
    Object.assign(this, {
      model,
      el,
      id: `ulrs${made++}`,
      at: null,
      readings: null,
      scene: null,
      started: 0,
      timer: 0,
      due: 0,
      later: 0,
    })
    this.root = document.createElement('div')
    this.root.className = 'ulrs-play'
    this.root.innerHTML = layout(this.id)
    const style = document.createElement('style')
    style.textContent = css
    el.append(style, this.root)
    this.find = selector => this.root.querySelector(selector)
    this.settings = this.given() ?? START
    this.listen()
  }

  given() {
    // settings of the model, undefined where there are none; a mistake is said
    const text = this.model.get('settings')
    try {
      return text ? fromText(text) : undefined
    } catch (e) {
      this.fail(e.message)
    }
  }

  async begin() {
    const bytes = chooseKernel({relaxed, plain})
    this.simd = bytes === relaxed ? 'relaxed SIMD' : 'SIMD'
    this.trainer = new Trainer(workerSource, bytes, event => this.hear(event))
    const mistake = this.find('.error').textContent
    this.put(this.settings)
    this.fail(mistake)
    this.kernel = await loadKernel(bytes)
    this.drawSoon()
  }

  close() {
    this.trainer?.close()
    this.stopTheme()
    this.resize.disconnect()
    cancelAnimationFrame(this.due)
    clearTimeout(this.timer)
    clearTimeout(this.later)
  }

  // What the reader does

  listen() {
    this.root.addEventListener('input', e => this.moved(e.target))
    this.root.addEventListener('click', e => this.clicked(e.target.closest('button')))
    this.onSettings = () => {
      const s = this.given()
      if (s && toText(s) !== toText(this.settings)) this.put(s)
    }
    this.model.on?.('change:settings', this.onSettings)
    this.resize = new ResizeObserver(() => this.drawSoon())
    this.resize.observe(this.root)
    this.stopTheme = onTheme(() => this.drawSoon())
    for (const panel of this.root.querySelectorAll('.panel'))
      this.point(panel.dataset.panel, panel.querySelector('.chart'))
  }

  moved(input) {
    const {setting, utility} = input.dataset,
      s = {...this.settings}
    if (utility !== undefined)
      s.utility = s.utility.map((u, i) => (i === Number(utility) ? Number(input.value) : u))
    else if (setting === 'utility') s.utility = s.utility.map(() => Number(input.value))
    else if (setting) s[setting] = valueOf(input)
    else return
    if (setting === 'n_features') {
      s.utility = Array.from(
        {length: s.n_features},
        (_, i) => this.settings.utility[i] ?? this.settings.utility[0],
      )
      s.feature = Math.min(s.feature, s.n_features)
    }
    this.attempt(() => this.put(makeSettings(s)))
  }

  clicked(button) {
    if (!button) return
    const {act, stop} = button.dataset
    if (stop !== undefined) this.goTo(TOUR[stop])
    if (act === 'reset') {
      this.at = null
      this.put(START)
    }
    if (act === 'dice') this.put(makeSettings({...this.settings, seed: Math.floor(1000 * Math.random())}))
    if (act === 'use')
      this.attempt(() => {
        const s = fromText(this.find('textarea').value)
        this.at = null
        this.put(s)
      })
    if (act === 'copy') navigator.clipboard?.writeText(this.find('textarea').value)
  }

  goTo(stop) {
    this.at = stop
    this.put(stop.settings)
  }

  /** Do something that a mistake of the reader may prevent. */
  attempt(action) {
    try {
      action()
    } catch (e) {
      if (!(e instanceof InputError)) throw e
      this.fail(`${e.message}; nothing was changed`)
    }
  }
  fail(text) {
    const error = this.find('.error')
    error.textContent = text
    error.hidden = !text
  }

  /** Pointing at a panel: the nearest rate or feature, with its numbers. */
  point(name, chart) {
    const at = e => {
      const box = chart.getBoundingClientRect()
      return [e.clientX - box.left, e.clientY - box.top, box.width]
    }
    const pick = e => {
      const [px, py, w] = at(e),
        f = this.frame
      if (!f) return null
      if (name === 'ranked') {
        const i = charts.barAt(w, f.order.length, px)
        return i < 0 ? null : {feature: f.order[i], i}
      }
      if (name === 'losses') {
        const i = charts.nearestLoss(w, HEIGHT, f, px, py)
        return i < 0 ? null : {lr: GRID[i], i}
      }
      if (name !== 'accuracies' && name !== 'features') return null
      const wanted = charts.overRates(w).back(px)
      const i = GRID.reduce(
        (best, plr, j) =>
          Math.abs(Math.log(plr / wanted)) < Math.abs(Math.log(GRID[best] / wanted)) ? j : best,
        0,
      )
      return {lr: GRID[i], i}
    }
    const choose = e => {
      const found = pick(e)
      if (found)
        this.put(makeSettings({...this.settings, ...(found.lr ? {lr: found.lr} : {feature: found.feature})}))
    }
    chart.addEventListener('pointerdown', e => {
      if (e.button === 0) choose(e)
    })
    chart.addEventListener('pointermove', e => {
      if (e.buttons & 1 && name !== 'ranked' && e.pointerType === 'mouse') choose(e)
      this.tip(pick(e), name, e)
    })
    chart.addEventListener('pointerleave', () => {
      this.find('.tip').hidden = true
    })
  }

  tip(found, name, e) {
    const tip = this.find('.tip')
    tip.hidden = !found || !this.frame.readings
    if (tip.hidden) return
    tip.innerHTML = this.tipText(found, name)
    const box = this.root.getBoundingClientRect(),
      wide = tip.offsetWidth
    const left = Math.min(e.clientX - box.left + 14, box.width - wide - 4)
    tip.style.transform = `translate(${Math.max(0, left)}px, ${e.clientY - box.top + 16}px)`
  }
  tipText({i}, name) {
    const {readings, order, single} = this.frame
    const number = v => (Number.isFinite(v) ? `${v.toFixed(1)} %` : '...')
    if (name === 'ranked')
      return (
        `<b>feature ${order[i]}</b>` + NETWORKS.map(n => `<span>${n} ${number(single[n][i])}</span>`).join('')
      )
    const head = `<b>PLR ${rate(GRID[i])}</b><span>regime ${regimeWords(readings, GRID[i])}</span>`
    if (name === 'losses')
      return `${head}<span>loss ${this.frame.loss[this.frame.loss.length - 1][i].toPrecision(2)} nats</span>`
    if (name === 'accuracies')
      return head + NETWORKS.map(n => `<span>${n} ${number(readings.nets[n].acc[i])}</span>`).join('')
    return `${head}<span>best feature ${number(this.frame.ranks[i][0])}</span>`
  }

  // Training

  /** Take some settings: turn the controls, train if they need it, draw. */
  put(s) {
    this.settings = s
    this.fail('')
    turn(this.root, s)
    this.find('textarea').value = toText(s)
    this.model.set('settings', toText(s))
    this.model.save_changes()
    if (!this.trainer) return
    if (trainingKey(s) !== this.trainer.training || s.flr !== this.trainer.settings.flr) this.trainSoon()
    this.drawSoon()
  }

  trainSoon() {
    clearTimeout(this.timer)
    const rest = this.started + BETWEEN - performance.now()
    if (rest > 0) {
      this.timer = setTimeout(() => this.trainSoon(), rest)
      return
    }
    this.started = performance.now()
    this.trainer.start(this.settings)
  }

  hear(event) {
    if (event.type === 'failed') this.fail(`training stopped: ${event.message}`)
    else if (event.type === 'read' || event.type === 'done') this.drawSoon()
    else this.drawLater()
  }

  /** Readings of the present settings, or the last ones there were. */
  take() {
    const {shown} = this.trainer
    this.fresh = Boolean(shown) && trainingKey(this.settings) === this.trainer.training
    if (!shown || !this.kernel) return
    if (trainingKey(shown.settings) !== this.sceneOf) {
      this.scene = makeScene(this.kernel, shown.settings)
      this.sceneOf = trainingKey(shown.settings)
    }
    this.readings = shown
  }

  // Drawing

  /** Draw once after a pause, unless something else draws before. */
  drawLater() {
    this.later ||= setTimeout(() => this.drawSoon(), PAUSE)
  }
  drawSoon() {
    this.due ||= requestAnimationFrame(() => {
      this.due = 0
      this.draw()
    })
  }

  draw() {
    if (!this.trainer?.settings) return
    const start = performance.now()
    clearTimeout(this.later)
    this.later = 0
    this.take()
    const f = (this.frame = makeFrame(this.trainer, this.readings, this.scene, this.settings))
    this.dark = isDark()
    this.root.classList.toggle('dark', this.dark)
    this.root.classList.toggle('stale', !this.fresh)
    this.drawRate(f)
    this.drawPanels(f)
    this.drawWords(f)
    this.publish()
    this.measure(performance.now() - start)
  }

  /** For tests and the benchmark: milliseconds of this frame, from start to readings, until the first picture; where training is. */
  measure(took) {
    const {dataset} = this.root,
      mark = this.fresh ? (this.readings?.mark ?? 0) : 0
    if (mark) dataset.shown ??= performance.now().toFixed(0)
    Object.assign(dataset, {
      frame: took.toFixed(1),
      first: (this.trainer.firstAfter ?? NaN).toFixed(0),
      mark,
      done: this.trainer.finished && this.fresh,
    })
  }

  drawRate(f) {
    const s = f.settings,
      regime = f.readings?.regimes ? `regime ${regimeWords(f.readings, s.lr)}` : 'training ...'
    this.find('.plr').innerHTML =
      `PLR <b>${rate(s.lr)}</b> <span class="chip r${f.readings?.regimes?.[GRID.indexOf(s.lr)] ?? 0}">${regime}</span>`
    this.find(`#${this.id}-lr`).setAttribute('aria-valuetext', `${rate(s.lr)}, ${regime}`)
    this.find('.rail').innerHTML = charts.rail(this.find('.rail').clientWidth, f, THUMB / 2)
    this.find('.at').textContent = `At PLR ${rate(s.lr)}, ${s.network} network`
  }

  drawPanels(f) {
    const put = (name, draw, words) => {
      const chart = this.find(`[data-panel="${name}"] .chart`)
      chart.style.height = `${HEIGHT}px`
      const old = chart.querySelector('svg')
      if (old) old.outerHTML = draw(chart.clientWidth, HEIGHT, f, words)
      else chart.insertAdjacentHTML('beforeend', draw(chart.clientWidth, HEIGHT, f, words))
    }
    const words = describe(f)
    put('losses', charts.losses, `Training loss over steps, one line per learning rate. ${converged(f)}`)
    put('accuracies', charts.accuracies, `Test accuracy over the learning rate of pre-training. ${words}`)
    put(
      'features',
      charts.features,
      `Accuracy on single features over the learning rate of pre-training, sorted. ${words}`,
    )
    put('ranked', charts.ranked, `Accuracy on each feature at PLR ${rate(f.settings.lr)}. ${words}`)
    if (f.readings) this.drawPlanes(f, put)
    const sub = (name, text) => {
      this.find(`[data-sub="${name}"]`).textContent = text
    }
    const mark = f.readings ? `after ${count(f.readings.mark)} steps` : ''
    sub(
      'accuracies',
      f.readings
        ? `${mark}; fine-tuned: + ${count(Math.floor(f.readings.mark / 2))} at ${rate(f.readings.flr)}`
        : '',
    )
    sub('features', `${f.settings.network} network ${mark}`)
    sub('losses', `of pre-training, one line per rate`)
    sub('ranked', mark)
    const others = NETWORKS.filter(name => name !== f.settings.network)
    const keys = [
      charts.barSample + f.settings.network,
      ...others.map(name => charts.sample(name, false) + name),
    ]
    this.find('[data-panel=ranked] .key').innerHTML = keys.map(key => `<span>${key}</span>`).join('')
    sub('plane', f.feature ? `feature ${f.feature}; the others tell nothing` : '')
    sub('border', f.feature ? `feature ${f.feature}: on the border, classes alike` : '')
  }

  drawPlanes(f, put) {
    const name = `feature ${f.feature}: its two inputs`
    put('plane', (w, h) =>
      charts.plane(w, h, {
        ...f,
        name,
        words: `Samples of feature ${f.feature}, its true boundary, and the answers of the ${f.settings.network} network`,
      }),
    )
    const labels = Array.from({length: f.border.length / 2}, (_, i) => i % 2)
    put('border', (w, h) =>
      charts.plane(w, h, {
        points: f.border,
        labels,
        edges: f.edges,
        name,
        words: `Feature ${f.feature} where it is uninformative: points on the border`,
      }),
    )
    const chart = this.find('[data-panel="plane"] .chart')
    if (!chart.querySelector('canvas')) {
      const canvas = document.createElement('canvas')
      canvas.setAttribute('aria-hidden', 'true')
      chart.prepend(canvas)
    }
    const canvas = chart.querySelector('canvas'),
      {left, top, side} = charts.planeBox(chart.clientWidth, HEIGHT)
    Object.assign(canvas.style, {left: `${left}px`, top: `${top}px`, width: `${side}px`, height: `${side}px`})
    const {readings} = f,
      known = this.trainer.hasRead(readings, f.settings.network)
    canvas.hidden = !known
    const key = [
      readings.mark,
      this.sceneOf,
      readings.flr,
      f.settings.lr,
      f.settings.network,
      f.feature,
      known,
      this.dark,
    ].join()
    if (!known || key === this.painted) return
    paint(canvas, answers(this.kernel, readings, this.scene, f.settings, f.feature), this.dark)
    this.painted = key
  }

  drawWords(f) {
    const {trainer} = this
    this.find('progress').value = trainer.finished ? 1 : trainer.step / trainer.settings.steps
    this.find('.far').textContent =
      `${howFar(trainer, this.fresh ? f.readings : null)} ${converged(f)} ${this.speed()}`
    const words = this.find('.words'),
      text = describe(f)
    if (this.fresh && words.textContent !== text) words.textContent = text
    this.find('.origin').textContent = origin(f)
    this.drawTour()
  }

  /** How long the first mark took. */
  speed() {
    const {firstAfter, marks, workers} = this.trainer
    if (!firstAfter) return ''
    const seconds = (firstAfter / 1000).toFixed(2)
    return `First ${count(marks[0].mark)} steps of all ${GRID.length} networks: ${seconds} s, ${workers.length} workers, ${this.simd}.`
  }

  drawTour() {
    const box = this.find('.stop'),
      stop = this.at
    for (const button of this.root.querySelectorAll('[data-stop]'))
      button.setAttribute('aria-pressed', TOUR[button.dataset.stop] === stop)
    box.hidden = !stop
    if (!stop) return
    const moved = differences(stop.settings, this.settings).filter(name => !stop.free.includes(name))
    const remark = this.remark(stop, moved)
    if (box.dataset.of !== stop.title) {
      box.dataset.of = stop.title
      box.innerHTML = `<p><b>${stop.title}${stop.title.endsWith('?') ? '' : '.'}</b> ${stop.question}</p><details><summary>Answer</summary><p>${stop.answer}</p></details><p class="remark"></p>`
    }
    box.querySelector('details').hidden = moved.length > 0
    box.querySelector('.remark').textContent = remark
    box.querySelector('.remark').hidden = !remark
  }

  /** Where the picture is not the one that the answer of a step is about. */
  remark(stop, moved) {
    const here = listed(this.settings, moved),
      there = listed(stop.settings, moved)
    if (moved.length)
      return `You have moved on, to ${here}; this step is about ${there}. Its button leads back.`
    if (!this.fresh) return 'The answer comes with the picture.'
    const {mark} = this.readings
    if (mark >= stop.mark) return ''
    return `The answer is about ${count(stop.mark)} steps and more; this picture is of ${count(mark)}.`
  }

  /** Tell the model what was found, once for every complete mark. */
  publish() {
    const r = this.readings
    if (!this.fresh || !r || !this.trainer.complete(r)) return
    const key = [this.sceneOf, r.mark, r.flr].join()
    if (key === this.published) return
    this.published = key
    this.model.set('results', resultsOf(r))
    this.model.save_changes()
  }
}

const finite = values => Array.from(values, v => (Number.isFinite(v) ? v : null))
const top = single =>
  GRID.map((_, i) => {
    const [best, next] = single.map(row => row[i]).sort((a, b) => b - a)
    return next === undefined ? null : best - next
  })

/** Readings as plain data, for Python. */
function resultsOf({mark, flr, bounds, regimes, slow, nets}) {
  const each = make => Object.fromEntries(NETWORKS.map(name => [name, make(nets[name])]))
  return {
    mark,
    flr,
    plr: GRID,
    regimes,
    slow,
    lr_12: [bounds.lr_12.lo, bounds.lr_12.hi],
    lr_23: [bounds.lr_23.lo, bounds.lr_23.hi],
    test_acc: each(net => finite(net.acc)),
    single_feature_acc: each(net => net.single.map(finite)),
    dominance: each(net => finite(top(net.single))),
  }
}

export function render({model, el}) {
  const explorer = new Explorer(model, el)
  explorer.begin().catch(e => explorer.fail(`${e.name}: ${e.message}`))
  return () => explorer.close()
}

export default {render}
