// Eight two-class patterns in the plane, as in understanding_lrs.data.synthetic: regions of the classes, border, true boundary.

const above = (slope, at) => [slope, -1, -at] // keep x2 >= slope*x1 + at, as a*x1 + b*x2 <= c
const below = (slope, at) => [-slope, 1, at]
const left = at => [1, 0, at]
const right = at => [-1, 0, -at]

/** Cut a convex polygon with a half-plane. */
function clip(polygon, [a, b, c]) {
  const kept = []
  polygon.forEach((p, i) => {
    const q = polygon[(i + 1) % polygon.length]
    const fp = a * p[0] + b * p[1] - c,
      fq = a * q[0] + b * q[1] - c
    if (fp <= 0) kept.push(p)
    if (fp * fq < 0)
      kept.push([p[0] + ((q[0] - p[0]) * fp) / (fp - fq), p[1] + ((q[1] - p[1]) * fp) / (fp - fq)])
  })
  return kept
}

/** Triangles that fill a union of convex pieces inside the square of half width `reach`. */
function triangles(pieces, reach) {
  const found = []
  for (const planes of pieces) {
    let polygon = [
      [-reach, -reach],
      [reach, -reach],
      [reach, reach],
      [-reach, reach],
    ]
    for (const plane of planes) polygon = clip(polygon, plane)
    for (let i = 1; i < polygon.length - 1; i++) found.push([polygon[0], polygon[i], polygon[i + 1]])
  }
  return found
}

const area = ([a, b, c]) => Math.abs((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])) / 2

/** Segments of chains of points. */
const chains = (...corners) => corners.flatMap(chain => chain.slice(1).map((point, i) => [chain[i], point]))

class Straight {
  constructor(name, pieces, edges, reach = () => 2) {
    Object.assign(this, {name, pieces, edges, reach})
    this.filled = {margin: NaN}
  }
  fill(margin) {
    if (this.filled.margin === margin) return this.filled
    const classes = this.pieces(margin).map(pieces => {
      const tri = triangles(pieces, this.reach(margin))
      const sums = []
      tri.forEach((t, i) => sums.push(area(t) + (i ? sums[i - 1] : 0)))
      return {tri, shares: sums.map(s => s / sums[sums.length - 1])}
    })
    return (this.filled = {margin, classes, edges: this.edges(margin)})
  }
  /** A point in the region of class k, from three uniform numbers; written to out[at], out[at + 1]. */
  place(k, margin, u0, u1, u2, out, at) {
    const {tri, shares} = this.fill(margin).classes[k]
    let i = 0
    while (shares[i] <= u0) i++
    const [a, b, c] = tri[i]
    const r = Math.sqrt(u1)
    out[at] = a[0] * (1 - r) + r * (b[0] * (1 - u2) + c[0] * u2)
    out[at + 1] = a[1] * (1 - r) + r * (b[1] * (1 - u2) + c[1] * u2)
  }
  borderDraws = 2 // uniform numbers of a point on the border
  border(margin, u0, u1, out, at) {
    const {edges} = this.fill(margin)
    const [a, b] = edges[Math.floor(u0 * edges.length)]
    out[at] = a[0] + (b[0] - a[0]) * u1
    out[at + 1] = a[1] + (b[1] - a[1]) * u1
  }
  boundary() {
    return this.edges(0)
  }
}

class Circles {
  // a disc (class 0) in a ring (class 1)
  name = 'circles'
  borderDraws = 1
  place(k, margin, u0, u1, u2, out, at) {
    const lo = k ? 1 + margin : 0,
      hi = k ? 2 : 1 - margin
    const r = Math.sqrt(lo ** 2 + (hi ** 2 - lo ** 2) * u0)
    out[at] = r * Math.cos(2 * Math.PI * u1)
    out[at + 1] = r * Math.sin(2 * Math.PI * u1)
  }
  border(margin, u0, u1, out, at) {
    out[at] = Math.cos(2 * Math.PI * u0)
    out[at + 1] = Math.sin(2 * Math.PI * u0)
  }
  boundary() {
    const turn = i => [Math.cos((Math.PI * i) / 36), Math.sin((Math.PI * i) / 36)]
    return Array.from({length: 72}, (_, i) => [turn(i), turn(i + 1)])
  }
}

const sectors = new Straight(
  'sectors',
  g => {
    const e = right(g),
      w = left(-g),
      n = above(0, g),
      s = below(0, -g)
    return [
      [
        [e, n],
        [w, s],
      ],
      [
        [w, n],
        [e, s],
      ],
    ]
  },
  g =>
    chains(
      [
        [-2 - g, 0],
        [2 + g, 0],
      ],
      [
        [0, -2 - g],
        [0, 2 + g],
      ],
    ),
  g => 2 + g,
)

const STRIPE = 4 - 2 * Math.SQRT2
const stripe = new Straight(
  'stripe',
  g => {
    const lo = STRIPE - g * Math.SQRT2,
      hi = STRIPE + g * Math.SQRT2
    return [[[below(1, lo), above(1, -lo)]], [[above(1, hi)], [below(1, -hi)]]]
  },
  () =>
    chains(
      [
        [-2, STRIPE - 2],
        [2 - STRIPE, 2],
      ],
      [
        [STRIPE - 2, -2],
        [2, 2 - STRIPE],
      ],
    ),
)

const diamond = new Straight(
  'diamond',
  g => {
    const lo = 2 - g * Math.SQRT2,
      hi = 2 + g * Math.SQRT2
    return [
      [[below(1, lo), above(1, -lo), below(-1, lo), above(-1, -lo)]],
      [[above(1, hi)], [above(-1, hi)], [below(1, -hi)], [below(-1, -hi)]],
    ]
  },
  () =>
    chains([
      [2, 0],
      [0, 2],
      [-2, 0],
      [0, -2],
      [2, 0],
    ]),
)

const peaks = new Straight(
  'peaks',
  g => {
    const m = g * Math.sqrt(10),
      west = above(3, 0),
      east = below(3, 0)
    return [
      [
        [above(-3, -4 + m), above(3, 2 + m)],
        [below(3, -2 - m), below(-3, 4 - m)],
      ],
      [
        [west, below(-3, -4 - m)],
        [west, below(3, 2 - m), above(-3, -4 - m)],
        [east, above(-3, 4 + m)],
        [east, above(3, -2 + m), below(-3, 4 + m)],
      ],
    ]
  },
  () =>
    chains(
      [
        [-2, 2],
        [-1, -1],
        [0, 2],
      ],
      [
        [0, -2],
        [1, 1],
        [2, -2],
      ],
    ),
)

const tick = new Straight(
  'tick',
  g => {
    const m = g * Math.SQRT2
    return [
      [
        [right(0), below(1, -m), above(1, m - 2)],
        [left(0), below(-1, -m), above(-1, m - 2)],
      ],
      [
        [right(0), above(1, m)],
        [right(0), below(1, -2 - m)],
        [left(0), above(-1, m)],
        [left(0), below(-1, -2 - m)],
      ],
    ]
  },
  () =>
    chains(
      [
        [-2, 2],
        [0, 0],
        [2, 2],
      ],
      [
        [-2, 0],
        [0, -2],
        [2, 0],
      ],
    ),
)

const CROSS = 2 - Math.SQRT2
const cross = new Straight(
  'cross',
  g => {
    const lo = CROSS - g,
      hi = CROSS + g,
      mid = [above(0, -lo), below(0, lo)]
    const outer = [right(hi), left(-hi)].flatMap(side =>
      [above(0, hi), below(0, -hi)].map(end => [side, end]),
    )
    return [
      [
        [right(-lo), left(lo)],
        [right(lo), ...mid],
        [left(-lo), ...mid],
      ],
      outer,
    ]
  },
  () =>
    chains(
      ...[1, -1].flatMap(s =>
        [1, -1].map(t => [
          [s * 2, t * CROSS],
          [s * CROSS, t * CROSS],
          [s * CROSS, t * 2],
        ]),
      ),
    ),
)

const unionJack = new Straight(
  'union_jack',
  g => {
    const m = g * Math.SQRT2,
      e = right(g),
      w = left(-g),
      n = above(0, g),
      s = below(0, -g)
    return [
      [
        [n, below(1, -m)],
        [w, above(-1, m)],
        [s, above(1, m)],
        [e, below(-1, -m)],
      ],
      [
        [e, above(1, m)],
        [n, below(-1, -m)],
        [w, below(1, -m)],
        [s, above(-1, m)],
      ],
    ]
  },
  () =>
    chains(
      [
        [-2, 0],
        [2, 0],
      ],
      [
        [0, -2],
        [0, 2],
      ],
      [
        [-2, -2],
        [2, 2],
      ],
      [
        [-2, 2],
        [2, -2],
      ],
    ),
)

const all = [new Circles(), sectors, stripe, diamond, peaks, tick, cross, unionJack]
export const SHAPES = Object.fromEntries(all.map(shape => [shape.name, shape]))
