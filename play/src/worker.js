// A web worker around a follower.

import {Follower} from './follower.js'

const follower = new Follower((message, buffers) => postMessage(message, buffers))
onmessage = ({data}) => follower.hear(data)
