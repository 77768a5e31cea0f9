// The front end of ipywidgets writes the label of a slider beside it and does not tie it to the handle: a screen reader would say
// a value without a name, and of a list of values only the position. This gives every handle within `.ulrs-slider` its label and
// its reading, again whenever either changes.
function give(handle, attribute, text) {
  if (text && handle.getAttribute(attribute) !== text) handle.setAttribute(attribute, text)
}

export function name(slider) {
  const label = slider.querySelector('.widget-label'), reading = slider.querySelector('.widget-readout')
  for (const handle of slider.querySelectorAll('[role=slider]')) {
    give(handle, 'aria-label', label?.textContent)
    give(handle, 'aria-valuetext', reading?.textContent)
  }
}

function render() {
  const look = () => document.querySelectorAll('.ulrs-slider').forEach(name)
  const observer = new MutationObserver(look)
  observer.observe(document.body, {childList: true, characterData: true, subtree: true, attributeFilter: ['aria-valuetext']})
  look()
  return () => observer.disconnect() // when the widget goes
}

export default {render}
