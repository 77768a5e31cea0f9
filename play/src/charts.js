// Panels as SVG text: a function from data and size to a string.

import {GRID, NETWORKS, rate} from './settings.js'
import {spans} from './regimes.js'

export const REACH = 2.3 // half width of the plane
export const DOMINANT = 10 // percentage points between the best feature and the second
const SUPER = {'-': '⁻', 0: '⁰', 1: '¹', 2: '²', 3: '³', 4: '⁴', 5: '⁵', 6: '⁶'}
export const ENDS = [GRID[0] / 1.2, GRID[GRID.length - 1] * 1.2]

const power = p => {
  if (p === 0) return '1'
  return p === 1
    ? '10'
    : '10' +
        String(p)
          .split('')
          .map(c => SUPER[c])
          .join('')
}
const fixed = v => Math.round(v * 10) / 10

/** A linear or logarithmic map from values to pixels; `back` inverts it. */
export function scale([lo, hi], [from, to], log = false) {
  const f = log ? Math.log10 : v => v
  const a = f(lo),
    b = f(hi)
  const map = v => from + ((f(v) - a) / (b - a)) * (to - from)
  map.back = px => {
    const t = a + ((px - from) / (to - from)) * (b - a)
    return log ? 10 ** t : t
  }
  return map
}

const MARKS = {
  // centred on 0, 0; drawn by strokes or filled
  'pre-trained': '<path class="mark pre" d="M-3-3L3 3M-3 3L3-3"/>',
  averaged: '<rect class="mark avg" x="-2.9" y="-2.9" width="5.8" height="5.8"/>',
  'fine-tuned': '<path class="mark fine" d="M-3.6-2.8H3.6L0 3.6Z"/>',
}
export const STYLE = {'pre-trained': 'pre', averaged: 'avg', 'fine-tuned': 'fine'}
const marker = (name, x, y) => `<g transform="translate(${fixed(x)} ${fixed(y)})">${MARKS[name]}</g>`

/** A mark, on a short line, for legends. */
export const sample = (name, lined = true) =>
  lined
    ? `<svg class="sample" width="22" height="10" aria-hidden="true"><path class="curve ${STYLE[name]}" d="M0 5H22"/>${marker(name, 11, 5)}</svg>`
    : `<svg class="sample" width="12" height="10" aria-hidden="true">${marker(name, 6, 5)}</svg>`
export const barSample =
  '<svg class="sample" width="12" height="10" aria-hidden="true"><rect class="bar" width="12" height="10"/></svg>'
export const stroke = cls =>
  `<svg class="sample" width="18" height="10" aria-hidden="true"><path class="${cls}" d="M0 5H18"/></svg>`

/** A polyline that breaks where a value is missing. */
function path(xs, ys, cls, extra = '') {
  let d = '',
    pen = 'M'
  xs.forEach((x, i) => {
    if (!Number.isFinite(ys[i])) {
      pen = 'M'
      return
    }
    d += `${pen}${fixed(x)} ${fixed(ys[i])}`
    pen = 'L'
  })
  return d ? `<path class="${cls}" d="${d}" ${extra}/>` : ''
}

const BOX = {left: 49, right: 10, top: 18, bottom: 40}

/** Axes with grid lines and units. */
function frame(w, h, {x, y, xTicks, yTicks, xLabel, yLabel}) {
  const {left, right, top, bottom} = BOX
  const rows = yTicks.map(
    ([v, text]) =>
      `<path class="grid" d="M${left} ${fixed(y(v))}H${w - right}"/>` +
      `<text class="tick" x="${left - 6}" y="${fixed(y(v)) + 4}" text-anchor="end">${text}</text>`,
  )
  const cols = xTicks.map(
    ([v, text]) =>
      `<path class="axis" d="M${fixed(x(v))} ${h - bottom}v4"/>` +
      `<text class="tick" x="${fixed(x(v))}" y="${h - bottom + 16}" text-anchor="middle">${text}</text>`,
  )
  return (
    `${rows.join('')}${cols.join('')}<path class="axis" d="M${left} ${top}V${h - bottom}H${w - right}"/>` +
    `<text class="label" x="${(left + w - right) / 2}" y="${h - 6}" text-anchor="middle">${xLabel}</text>` +
    `<text class="label" transform="translate(10 ${(top + h - bottom) / 2}) rotate(-90)" text-anchor="middle">${yLabel}</text>`
  )
}

const decades = (lo, hi, every = 1) => {
  const out = []
  for (let p = Math.ceil(Math.log10(lo) - 1e-9); p <= Math.log10(hi) + 1e-9; p += 1)
    if (p % every === 0) out.push([10 ** p, power(p)])
  return out
}

export const svg = (w, h, words, body) =>
  `<svg width="${w}" height="${h}" viewBox="0 0 ${w} ${h}" role="img" aria-label="${words.replace(/"/g, '&quot;')}">${body}</svg>`

/** Where a rate stands on an axis over the grid. */
export const overRates = w => scale(ENDS, [BOX.left, w - BOX.right], true)
/** Regimes as bands from `top` to `bottom`; hatched where training has not converged yet. */
export function bands(readings, x, top, bottom, names) {
  if (!readings?.bounds) return ''
  const parts = spans(readings.bounds, ...ENDS).map(([regime, lo, hi]) => {
    const wide = x(hi) - x(lo),
      text = names(regime, wide)
    return (
      `<rect class="regime r${regime}" x="${fixed(x(lo))}" y="${top}" width="${fixed(wide)}" height="${bottom - top}"/>` +
      (text
        ? `<text class="regime-name" x="${fixed((x(lo) + x(hi)) / 2)}" y="${top + 13}" text-anchor="middle">${text}</text>`
        : '')
    )
  })
  const edges = GRID.map((plr, i) => [
    i ? Math.sqrt(plr * GRID[i - 1]) : ENDS[0],
    i + 1 < GRID.length ? Math.sqrt(plr * GRID[i + 1]) : ENDS[1],
  ])
  const slow = readings.slow
    .map(plr => edges[GRID.indexOf(plr)])
    .map(
      ([lo, hi]) =>
        `<rect class="slow" x="${fixed(x(lo))}" y="${top}" width="${fixed(x(hi) - x(lo)) + 0.5}" height="${bottom - top}"/>`,
    )
  return parts.join('') + slow.join('')
}

const short = (regime, wide) => (wide > 14 ? regime : '')

function rateChart(w, h, f, {yLabel, words}, curves) {
  const x = overRates(w),
    y = scale([44, 101], [h - BOX.bottom, BOX.top])
  const ticks = [50, 60, 70, 80, 90, 100].map(v => [v, v])
  const here = fixed(x(f.settings.lr))
  return svg(
    w,
    h,
    words,
    bands(f.readings, x, BOX.top, h - BOX.bottom, short) +
      frame(w, h, {
        x,
        y,
        xTicks: decades(...ENDS),
        yTicks: ticks,
        xLabel: 'PLR (learning rate of pre-training)',
        yLabel,
      }) +
      `<path class="here" d="M${here} ${BOX.top + 16}V${h - BOX.bottom}"/>` +
      curves(x, y),
  )
}

/** Test accuracy of the three networks of every rate. */
export const accuracies = (w, h, f, words) =>
  rateChart(w, h, f, {yLabel: 'test accuracy, %', words}, (x, y) => {
    const xs = GRID.map(x)
    return NETWORKS.map(name => {
      const ys = Array.from(f.readings?.nets[name].acc ?? [], y)
      const dots = ys.map((v, i) => (Number.isFinite(v) ? marker(name, xs[i], v) : '')).join('')
      return path(xs, ys, `curve ${STYLE[name]}`) + dots
    }).join('')
  })

/** Sorted single-feature accuracies of every rate. */
export const features = (w, h, f, words) =>
  rateChart(w, h, f, {yLabel: 'accuracy on one feature, %', words}, (x, y) => {
    const xs = GRID.map(x),
      n = f.ranks[0]?.length ?? 0
    return Array.from({length: n}, (_, k) => n - 1 - k)
      .map(k => {
        const ys = f.ranks.map(row => y(row[k]))
        return path(
          xs,
          ys,
          k ? 'curve rest' : 'curve best',
          k ? `style="opacity:${fixed(0.95 - (0.6 * k) / 16)}"` : '',
        )
      })
      .join('')
  })

/** Training loss over steps, one line per rate. */
export function losses(w, h, f, words) {
  const x = scale([1, 1.15 * f.settings.steps], [BOX.left, w - BOX.right], true),
    y = scale([3e-5, 30], [h - BOX.bottom, BOX.top], true)
  const xs = f.steps.map(t => x(t + 1)),
    mine = GRID.indexOf(f.settings.lr)
  const line = i => {
    const ys = f.loss.map(row => y(Math.min(30, Math.max(row[i], 3e-5))))
    const regime = f.readings?.regimes?.[i] ?? '0',
      slow = f.readings?.slow.includes(GRID[i]) ? ' not-yet' : ''
    if (i === mine) return path(xs, ys, `curve mine${slow}`)
    const same = GRID.map((_, j) => j).filter(j => (f.readings?.regimes?.[j] ?? '0') === regime)
    return path(
      xs,
      ys,
      `curve h${regime}${slow}`,
      `style="opacity:${fixed(0.35 + (0.65 * (same.indexOf(i) + 1)) / same.length)}"`,
    )
  }
  const order = GRID.map((_, i) => i).filter(i => i !== mine)
  const wanted = [1e-4, 1e-2, 1].map(v => [v, power(Math.round(Math.log10(v)))])
  return svg(
    w,
    h,
    words,
    frame(w, h, {
      x,
      y,
      xTicks: decades(1, 1.15 * f.settings.steps),
      yTicks: wanted,
      xLabel: 'step + 1',
      yLabel: 'training loss, nats',
    }) + [...order, mine].map(line).join(''),
  )
}

/** Index of the rate whose loss curve is nearest to a point, or -1. */
export function nearestLoss(w, h, f, px, py) {
  const x = scale([1, 1.15 * f.settings.steps], [BOX.left, w - BOX.right], true),
    y = scale([3e-5, 30], [h - BOX.bottom, BOX.top], true)
  if (!f.steps.length) return -1
  const at = x.back(px),
    t = f.steps.reduce(
      (best, s, i) =>
        Math.abs(Math.log(s + 1) - Math.log(at)) < Math.abs(Math.log(f.steps[best] + 1) - Math.log(at))
          ? i
          : best,
      0,
    )
  const gaps = f.loss[t].map(v => Math.abs(y(Math.min(30, Math.max(v, 3e-5))) - py))
  const best = gaps.reduce((b, gap, i) => (gap < gaps[b] ? i : b), 0)
  return gaps[best] < 24 ? best : -1
}

/** Accuracy on single features at the chosen rate, best first. */
export function ranked(w, h, f, words) {
  const n = f.order.length,
    {left, right, top, bottom} = BOX
  const y = scale([44, 101], [h - bottom, top]),
    slot = (w - left - right) / Math.max(n, 1)
  const x = i => left + slot * (i + 0.5)
  const axis = frame(w, h, {
    x,
    y,
    xTicks: [],
    yTicks: [50, 60, 70, 80, 90, 100].map(v => [v, v]),
    xLabel: 'features, best first',
    yLabel: 'accuracy on one feature, %',
  })
  const own = f.single[f.settings.network]
  const bars = f.order
    .map((feature, i) => {
      const value = Number.isFinite(own[i]) ? own[i] : 50,
        [a, b] = [y(Math.max(value, 50)), y(Math.min(value, 50))]
      const kind = `${i === 0 && f.ahead >= DOMINANT ? 'dominant' : ''}${feature === f.feature ? ' chosen' : ''}`
      const bar = `<rect class="bar ${kind}" x="${fixed(x(i) - 0.36 * slot)}" width="${fixed(0.72 * slot)}" y="${fixed(a)}" height="${fixed(Math.max(b - a, 0.8))}"/>`
      const name = `<text class="tick ${feature === f.feature ? 'chosen' : ''}" x="${fixed(x(i))}" y="${h - bottom + 15}" text-anchor="middle">${feature}</text>`
      return bar + name
    })
    .join('')
  const marks = NETWORKS.filter(name => name !== f.settings.network)
    .map(name =>
      (f.single[name] ?? []).map((v, i) => (Number.isFinite(v) ? marker(name, x(i), y(v)) : '')).join(''),
    )
    .join('')
  const note =
    f.ahead >= DOMINANT
      ? `<text class="note" x="${fixed(x(0) + 0.5 * slot + 6)}" y="${fixed(y(own[0])) + 10}">${Math.round(f.ahead)} pp ahead</text>`
      : ''
  return svg(
    w,
    h,
    words,
    axis + `<path class="chance" d="M${left} ${fixed(y(50))}H${w - right}"/>` + bars + marks + note,
  )
}

/** Which bar is at a place, as an index, or -1. */
export function barAt(w, n, px) {
  const i = Math.floor((px - BOX.left) / ((w - BOX.left - BOX.right) / n))
  return i >= 0 && i < n ? i : -1
}

const AROUND = {left: 34, right: 10, top: 8, bottom: 36}

/** The square of the plane inside a panel. */
export function planeBox(w, h) {
  const side = Math.min(w - AROUND.left - AROUND.right, h - AROUND.top - AROUND.bottom)
  return {left: Math.round((w - side + AROUND.left - AROUND.right) / 2), top: AROUND.top, side}
}

/** One feature: points of two classes and the true boundary, over what is below (the answers of a network). */
export function plane(w, h, {points, labels, edges, words, name}) {
  const {left, top, side} = planeBox(w, h)
  const x = scale([-REACH, REACH], [left, left + side]),
    y = scale([-REACH, REACH], [top + side, top])
  const dot = i => {
    const [px, py] = [fixed(x(points[2 * i])), fixed(y(points[2 * i + 1]))]
    return labels[i]
      ? `<path class="dot one" d="M${px - 3.6} ${py + 2.8}h7.2l-3.6-6.4z"/>`
      : `<circle class="dot zero" cx="${px}" cy="${py}" r="2.9"/>`
  }
  const dots = Array.from(labels, (_, i) => dot(i)).join('')
  const lines = edges
    .map(([p, q]) => `M${fixed(x(p[0]))} ${fixed(y(p[1]))}L${fixed(x(q[0]))} ${fixed(y(q[1]))}`)
    .join('')
  const ticks = [-2, -1, 0, 1, 2]
    .map(
      v =>
        `<text class="tick" x="${fixed(x(v))}" y="${top + side + 15}" text-anchor="middle">${String(v).replace('-', '−')}</text>` +
        `<text class="tick" x="${left - 6}" y="${fixed(y(v)) + 4}" text-anchor="end">${String(v).replace('-', '−')}</text>`,
    )
    .join('')
  return svg(
    w,
    h,
    words,
    `<rect class="square" x="${left}" y="${top}" width="${side}" height="${side}"/>${ticks}` +
      `<path class="truth" d="${lines}"/>${dots}<text class="label" x="${left + side / 2}" y="${top + side + 32}" text-anchor="middle">${name}</text>`,
  )
}

/** A small picture of a shape, for its button. */
export function thumbnail(shape, side = 30) {
  const at = ([px, py]) => `${fixed(((px + 2) * side) / 4)},${fixed(((2 - py) * side) / 4)}`
  const body =
    shape.name === 'circles'
      ? `<circle class="one" cx="${side / 2}" cy="${side / 2}" r="${side / 2}"/><circle class="zero" cx="${side / 2}" cy="${side / 2}" r="${side / 4}"/>`
      : [0, 1]
          .map(k =>
            shape
              .fill(0)
              .classes[k].tri.map(
                t => `<polygon class="${k ? 'one' : 'zero'}" points="${t.map(at).join(' ')}"/>`,
              )
              .join(''),
          )
          .join('')
  return `<svg class="thumb" width="${side}" height="${side}" viewBox="0 0 ${side} ${side}" aria-hidden="true">${body}</svg>`
}

/** The name of a regime as far as there is room for it. */
function railName(regime, full, wide) {
  if (wide > 7.2 * full.length + 12) return full
  if (wide > 62) return `regime ${regime}`
  return regime === 'unknown' ? '?' : regime
}

/** The strip above the slider of rates. */
export function rail(w, f, inset) {
  const x = scale([0, GRID.length - 1], [inset, w - inset])
  if (!f.readings?.regimes)
    return svg(
      w,
      26,
      'Regimes: not known yet',
      `<rect class="regime r0" x="0" y="0" width="${w}" height="26"/>`,
    )
  const names = {
    1: 'regime 1: convergence',
    2: 'regime 2: chaotic equilibrium',
    3: 'regime 3: divergence',
    unknown: 'regime unknown: too few evaluations',
  }
  const runs = []
  f.readings.regimes.forEach((r, i) => {
    const last = runs[runs.length - 1]
    if (last?.regime === r) last.to = i
    else runs.push({regime: r, from: i, to: i})
  })
  const edge = (i, end) => (i < 0 ? 0 : i >= GRID.length - 1 && end ? w : x(i + 0.5))
  const parts = runs.map(({regime, from, to}) => {
    const lo = from ? edge(from - 1) : 0
    const hi = edge(to, true),
      wide = hi - lo
    const text = railName(regime, names[regime], wide)
    return (
      `<rect class="regime r${regime === 'unknown' ? 0 : regime}" x="${fixed(lo)}" y="0" width="${fixed(wide)}" height="26"/>` +
      `<text class="regime-name" x="${fixed((lo + hi) / 2)}" y="15" text-anchor="middle">${text}</text>`
    )
  })
  const slow = f.readings.slow
    .map(plr => GRID.indexOf(plr))
    .map(i => {
      const lo = i ? edge(i - 1) : 0
      return `<rect class="slow" x="${fixed(lo)}" y="20" width="${fixed(edge(i, true) - lo)}" height="6"/>`
    })
  const words = runs
    .map(r => `${names[r.regime]}, PLR ${rate(GRID[r.from])} to ${rate(GRID[r.to])}`)
    .join('; ')
  return svg(w, 26, words, parts.join('') + slow.join(''))
}
