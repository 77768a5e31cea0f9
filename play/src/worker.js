// A web worker: follows one lesson at a time, and leaves it when another one is asked for.

import { loadKernel } from './kernel.js'
import { Lesson } from './lesson.js'

const PROGRESS = 40 // milliseconds between two messages about progress

let kernel, lesson = null, key = '', job = 0

/** Let messages in. A timer would wait 4 ms. */
const {port1, port2} = new MessageChannel()
const waiting = []
port1.onmessage = () => waiting.shift()()
const turn = () => new Promise(resolve => {
  waiting.push(resolve)
  port2.postMessage(0)
})

async function follow({id, settings, training, rates, flr}) {
  job = id
  await turn()             // the lesson before notices that it is left
  const ready = await kernel
  if (job !== id) return
  if (training !== key || !lesson) {
    lesson?.close()
    lesson = new Lesson(ready, settings, rates)
    key = training
  }
  let told = performance.now()
  for (const event of lesson.follow(flr)) {
    const due = event.type !== 'tick' || performance.now() - told > PROGRESS
    if (due) {
      postMessage({...event, id, step: event.step ?? lesson.step}, event.weights ? [event.weights.buffer] : [])
      told = performance.now()
    }
    await turn()
    if (job !== id) return
  }
}

onmessage = async ({data}) => {
  try {
    if (data.type === 'kernel') kernel = loadKernel(data.bytes)
    else await follow(data)
  } catch (e) {
    lesson = null
    postMessage({type: 'failed', id: data.id, message: `${e.name}: ${e.message}`})
  }
}
