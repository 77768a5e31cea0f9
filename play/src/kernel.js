// The C training step in WebAssembly, behind typed arrays.

const BLOCK = 16 // samples and inputs come in rows of 16
const EPS = 1e-7 // of the LayerNorms
const STREAMS = {
  // as in understanding_lrs.core.seeds
  train_data: 1,
  test_data: 2,
  single_feature: 3,
  readout: 4,
  init: 5,
  pretrain_order: 6,
  finetune_order: 7,
  probe: 9,
}

export const padded = n => Math.ceil(n / BLOCK) * BLOCK

/** Number of trainable weights of `{inDim, width, depth}`. */
export const weightCount = ({inDim, width, depth}) => width * inDim + (depth - 1) * width * width

/** The faster kernel where the browser can run it. */
export const chooseKernel = ({relaxed, plain}) => (WebAssembly.validate(relaxed) ? relaxed : plain)

export async function loadKernel(bytes) {
  const {instance} = await WebAssembly.instantiate(bytes, {})
  instance.exports._initialize?.()
  return new Kernel(instance.exports)
}

export class Kernel {
  constructor(exports) {
    this.c = exports
    this.scratch = this.bytes(64) // keys of a stream
    this.specAt = this.bytes(64) // the structure `spec`
  }

  bytes(n) {
    const at = this.c.malloc(Math.max(n, 16))
    if (!at) throw new Error('out of memory')
    return at
  }

  // A view dies when the memory grows, so a block remembers its place and makes a new view each time.
  block(Type, n) {
    return {at: this.bytes(n * Type.BYTES_PER_ELEMENT), n, Type}
  }
  view({Type, at, n}) {
    return new Type(this.c.memory.buffer, at, n)
  }
  put(Type, values) {
    const block = this.block(Type, values.length)
    this.view(block).set(values)
    return block
  }
  free(...blocks) {
    for (const block of blocks) if (block) this.c.free(block.at)
  }

  // Random numbers

  /** Begin the stream of a purpose; what is drawn next comes from it. */
  stream(purpose, ...keys) {
    const all = [STREAMS[purpose], ...keys]
    new Uint32Array(this.c.memory.buffer, this.scratch, all.length).set(all)
    this.c.play_stream(this.scratch, all.length)
    return this
  }
  drawn(Type, n, draw) {
    const block = this.block(Type, n)
    draw(block.at)
    const values = this.view(block).slice()
    this.free(block)
    return values
  }
  uniform(n) {
    return this.drawn(Float64Array, n, at => this.c.play_uniform(at, n))
  } // in [0, 1)
  normal(n) {
    return this.drawn(Float64Array, n, at => this.c.play_normal(at, n))
  }
  labels(n) {
    return this.drawn(Int32Array, n, at => this.c.play_integers(at, n, 1))
  } // 0 or 1
  permutation(n) {
    return this.drawn(Int32Array, n, at => this.c.play_permutation(at, n))
  }

  // Networks

  /** Write the structure that every call takes first. */
  spec(sizes, batch, samples) {
    const {buffer} = this.c.memory
    const numbers = [sizes.inDim, sizes.width, sizes.depth, batch, samples, padded(sizes.inDim)]
    new BigInt64Array(buffer, this.specAt, 6).set(numbers.map(BigInt))
    new Float32Array(buffer, this.specAt + 48, 1)[0] = EPS
    return this.specAt
  }

  /** Steps of K networks in place; `nets` as `Networks`, `order` a block of steps x batch sample numbers. */
  train(nets, set, order, lr, steps, batch) {
    const spec = this.spec(nets.sizes, batch, set.n)
    const {w, readout, first, count} = nets
    const failed = this.c.ulrs_train(
      spec,
      0n,
      BigInt(count),
      w.at,
      readout.at,
      set.x.at,
      set.y.at,
      first.at,
      order.at,
      first.at,
      lr.at,
      BigInt(steps),
    )
    if (failed) throw new Error('out of memory')
  }

  /** Mean cross-entropy (nats) and accuracy (%) of K networks on a set, or on the part `which` of several. */
  evaluate(nets, set, which = 0) {
    const spec = this.spec(nets.sizes, 1, set.n)
    const {w, readout, first, count, results} = nets
    const shift = which * set.n
    const failed = this.c.ulrs_evaluate(
      spec,
      0n,
      BigInt(count),
      w.at,
      readout.at,
      set.x.at + 4 * shift * padded(nets.sizes.inDim),
      set.y.at + 4 * shift,
      first.at,
      results.at,
      results.at + 8 * count,
    )
    if (failed) throw new Error('out of memory')
    const both = this.view(results)
    return {loss: both.slice(0, count), acc: both.slice(count).map(share => 100 * share)}
  }

  /** Logits of one network, given as arrays, for n samples of padded inputs. */
  logits(sizes, w, readout, x, n) {
    const blocks = [this.put(Float32Array, w), this.put(Float32Array, readout), this.put(Float32Array, x)]
    const out = this.block(Float32Array, n)
    const failed = this.c.play_logits(this.spec(sizes, 1, n), ...blocks.map(b => b.at), n, out.at)
    if (failed) throw new Error('out of memory')
    const values = this.view(out).slice()
    this.free(...blocks, out)
    return values
  }
}

/** K networks in the memory of a kernel; all have the same readout and the same data. */
export class Networks {
  constructor(kernel, sizes, weights, readout) {
    // weights: (K*P); readout: (width)
    this.kernel = kernel
    this.sizes = sizes
    this.count = weights.length / weightCount(sizes)
    this.w = kernel.put(Float32Array, weights)
    const repeated = new Float32Array(this.count * sizes.width)
    for (let k = 0; k < this.count; k++) repeated.set(readout, k * sizes.width)
    this.readout = kernel.put(Float32Array, repeated)
    this.first = kernel.put(BigInt64Array, new BigInt64Array(this.count)) // everybody's data set and order: the first
    this.results = kernel.block(Float64Array, 2 * this.count)
  }
  get weights() {
    return this.kernel.view(this.w).slice()
  }
  set weights(values) {
    this.kernel.view(this.w).set(values)
  }
  free() {
    this.kernel.free(this.w, this.readout, this.first, this.results)
  }
}
