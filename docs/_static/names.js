// Names for what the theme leaves without one: the arrows that open parts of the menu, and controls whose label hides their text.
document.addEventListener('DOMContentLoaded', () => {
  for (const arrow of document.querySelectorAll('nav summary:not([aria-label])')) {
    const page = arrow.closest('li')?.querySelector('a')
    arrow.setAttribute('aria-label', `Pages below ${page ? page.textContent.trim() : 'this one'}`)
  }
  for (const control of document.querySelectorAll('.search-button-field, summary:has(.admonition-title)')) {
    control.removeAttribute('aria-label')
  }
})
