// Light or dark: what the page, the notebook or the system says, in this order.

const system = matchMedia('(prefers-color-scheme: dark)')

export function isDark() {
  const {dataset} = document.documentElement,
    {body} = document
  if (dataset.theme) return dataset.theme === 'dark'
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === 'false'
  if (body.dataset.vscodeThemeKind) return /dark|contrast$/.test(body.dataset.vscodeThemeKind)
  return system.matches
}

/** Call `change` whenever it changes; gives a function that stops it. */
export function onTheme(change) {
  const observer = new MutationObserver(change)
  observer.observe(document.documentElement, {attributes: true, attributeFilter: ['data-theme']})
  observer.observe(document.body, {
    attributes: true,
    attributeFilter: ['data-jp-theme-light', 'data-vscode-theme-kind'],
  })
  system.addEventListener('change', change)
  return () => {
    observer.disconnect()
    system.removeEventListener('change', change)
  }
}
