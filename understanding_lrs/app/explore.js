// The front end of ipywidgets writes the label of a slider beside it and does not tie it to the handle, and its pictures have no alternative
// text: a screen reader would say the position of a slider without its name, and nothing of a picture. This gives the handle within
// `.ulrs-slider` its label and its reading, and the picture within `.ulrs-picture` the words that stand beside it unseen, again
// whenever they change.
function give(element, attribute, text) {
  if (text && element.getAttribute(attribute) !== text) element.setAttribute(attribute, text)
}

function nameSlider(slider) {
  const label = slider.querySelector('.widget-label'), reading = slider.querySelector('.widget-readout')
  for (const handle of slider.querySelectorAll('[role=slider]')) {
    give(handle, 'aria-label', label?.textContent)
    give(handle, 'aria-valuetext', reading?.textContent)
  }
}

function namePicture(box) {
  const words = box.querySelector('.ulrs-unseen')
  for (const image of box.querySelectorAll('img')) give(image, 'alt', words?.textContent.trim())
  if (words) give(words, 'aria-hidden', 'true') // or it would be read twice
}

function render() {
  const look = () => {
    document.querySelectorAll('.ulrs-slider').forEach(nameSlider)
    document.querySelectorAll('.ulrs-picture').forEach(namePicture)
  }
  const observer = new MutationObserver(look)
  observer.observe(document.body, {childList: true, characterData: true, subtree: true, attributeFilter: ['aria-valuetext']})
  look()
  return () => observer.disconnect() // when the widget goes
}

export default {render}
