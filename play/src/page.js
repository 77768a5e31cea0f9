// The static page: a model that lives in the address, and the switch between light and dark.

import {render} from './app.js'
import {START, toText} from './settings.js'
import {isDark, onTheme} from './theme.js'

/** What the address says behind its #; a broken link is read as it stands, and refused where settings are. */
function address() {
  const text = location.hash.slice(1)
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** What anywidget calls a model, without Python. */
class Model {
  values = {settings: address(), results: {}}
  listeners = []
  get(name) {
    return this.values[name]
  }
  set(name, value) {
    this.values[name] = value
  }
  on(event, listener) {
    if (event === 'change:settings') this.listeners.push(listener)
  }
  save_changes() {
    const {settings} = this.values,
      plain = settings === toText(START)
    history.replaceState(
      null,
      '',
      plain ? location.pathname + location.search : `#${encodeURIComponent(settings)}`,
    )
  }
  addressed() {
    this.values.settings = address() || toText(START)
    for (const listener of this.listeners) listener()
  }
}

const model = new Model(),
  button = document.querySelector('.looks')
addEventListener('hashchange', () => model.addressed())

function look() {
  document.documentElement.classList.toggle('dark', isDark())
  button.textContent = isDark() ? 'Light' : 'Dark'
}
button.addEventListener('click', () => {
  document.documentElement.dataset.theme = isDark() ? 'light' : 'dark'
})
onTheme(look)
look()
render({model, el: document.getElementById('play')})
window.play = model // for the curious: play.get('results')
