// Follows one lesson at a time, and leaves it when another one is asked for.

import {loadKernel} from './kernel.js'
import {Lesson} from './lesson.js'

const PROGRESS = 40 // milliseconds between two messages about progress

/** Let messages in. A timer would wait 4 ms. */
const {port1, port2} = new MessageChannel()
const waiting = []
port1.onmessage = () => waiting.shift()()
const turn = () =>
  new Promise(resolve => {
    waiting.push(resolve)
    port2.postMessage(0)
  })

/** Takes messages and answers by `post(message, buffers)`; lives in a worker, or on the page where there are none. */
export class Follower {
  constructor(post) {
    Object.assign(this, {post, kernel: null, lesson: null, key: '', job: 0})
  }

  async hear(data) {
    try {
      if (data.type === 'kernel') this.kernel = loadKernel(data.bytes)
      else await this.follow(data)
    } catch (e) {
      this.lesson = null
      this.post({type: 'failed', id: data.id, message: `${e.name}: ${e.message}`}, [])
    }
  }

  async follow({id, settings, training, rates, flr}) {
    this.job = id
    await turn() // the lesson before notices that it is left
    const kernel = await this.kernel
    if (this.job !== id) return
    if (training !== this.key || !this.lesson) {
      this.lesson?.close()
      this.lesson = new Lesson(kernel, settings, rates)
      this.key = training
    }
    let told = performance.now()
    for (const event of this.lesson.follow(flr)) {
      const due = event.type !== 'tick' || performance.now() - told > PROGRESS
      if (due) {
        this.post(
          {...event, id, step: event.step ?? this.lesson.step},
          event.weights ? [event.weights.buffer] : [],
        )
        told = performance.now()
      }
      await turn()
      if (this.job !== id) return
    }
  }
}
