// The controls of the page: plain HTML inputs, each with a name, an output and a setting.

import {CHOICES, NETWORKS, RANGES, count, rate} from './settings.js'
import {SHAPES} from './shapes.js'
import {sample, thumbnail} from './charts.js'

const plainNumber = v => count(v)
const SLIDERS = {
  // setting -> label, its values or ends and step, how it reads
  n_features: ['features', {step: 1}, plainNumber, 'the rest of the 32 inputs is noise'],
  utility: [
    'utility',
    {ends: [0, 1], step: 0.05},
    v => v.toFixed(2),
    'share of samples in which a feature helps',
  ],
  margin: ['margin', {step: 0.01}, v => v.toFixed(2), 'half gap between the classes'],
  noise: ['label noise', {step: 0.01}, v => v.toFixed(2), 'share of points with swapped labels'],
  n_train: ['samples', {}, plainNumber, 'training samples'],
  width: ['width', {}, plainNumber, 'units of a layer'],
  depth: ['depth', {step: 1}, plainNumber, 'hidden layers'],
  steps: ['steps', {}, plainNumber, 'of pre-training; fine-tuning takes half as many'],
  flr: ['fine-tuning LR', {}, v => rate(v), 'learning rate of fine-tuning'],
}

function sliderHtml(id, name) {
  const [label, {step, ends = RANGES[name]}, , hint] = SLIDERS[name]
  const limits =
    ends && step
      ? `min="${ends[0]}" max="${ends[1]}" step="${step}"`
      : `min="0" max="${CHOICES[name].length - 1}" step="1"`
  return `<div class="field" title="${hint}"><label for="${id}-${name}">${label}</label>
    <output for="${id}-${name}" data-out="${name}"></output>
    <input type="range" id="${id}-${name}" data-setting="${name}" ${limits}></div>`
}

const shapesHtml = id =>
  `<fieldset class="shapes"><legend>shape of all features</legend>${CHOICES.shape
    .map(
      name =>
        `<label title="${name.replace('_', ' ')}"><input type="radio" name="${id}-shape" data-setting="shape" value="${name}">${thumbnail(SHAPES[name])}
   <span class="unseen">${name.replace('_', ' ')}</span></label>`,
    )
    .join('')}</fieldset>`

const utilitiesHtml = id =>
  `<details class="fold"><summary>Utility of each feature</summary><div class="utilities">${Array.from(
    {length: 16},
    (_, i) => `<div class="field small" data-feature="${i}"><label for="${id}-u${i}">${i + 1}</label>
    <input type="range" id="${id}-u${i}" data-utility="${i}" min="0" max="1" step=".05" aria-label="utility of feature ${i + 1}"><output data-u="${i}"></output></div>`,
  ).join('')}</div></details>`

export const settingsHtml = id => `
  ${shapesHtml(id)}
  ${['n_features', 'utility'].map(name => sliderHtml(id, name)).join('')}
  ${utilitiesHtml(id)}
  ${['margin', 'noise', 'n_train', 'width', 'depth', 'steps', 'flr'].map(name => sliderHtml(id, name)).join('')}
  <div class="field"><label for="${id}-seed">seed</label>
    <span class="seed"><input type="number" id="${id}-seed" data-setting="seed" min="0" max="999" step="1">
    <button type="button" data-act="dice">another</button></span></div>
  <div class="field"><label for="${id}-feature">feature in the planes</label><select id="${id}-feature" data-setting="feature"></select></div>
  <details class="fold text"><summary>Settings as text</summary>
    <textarea rows="4" spellcheck="false" aria-label="settings as text, JSON"></textarea>
    <div class="row"><button type="button" data-act="use">Use these settings</button><button type="button" data-act="copy">Copy</button></div>
    <p class="hint">The Python explorer reads the same text.</p></details>`

export const networksHtml = id =>
  `<fieldset class="networks"><legend class="unseen">network that is looked at</legend>${NETWORKS.map(
    name =>
      `<label><input type="radio" name="${id}-network" data-setting="network" value="${name}"><span>${sample(name)}${name}</span></label>`,
  ).join('')}</fieldset>`

/** The value of a control, as a setting. */
export function valueOf(input) {
  const {setting} = input.dataset,
    known = CHOICES[setting]
  if (input.type === 'radio') return input.value
  if (input.type === 'range' && known && !SLIDERS[setting]?.[1].step) return known[input.value]
  return Number(input.value)
}

/** How a value reads beside its slider. */
export const reading = (name, value) => SLIDERS[name][2](value)

/** Turn all controls below `root` to some settings. */
export function turn(root, s) {
  for (const input of root.querySelectorAll('[data-setting]')) {
    const {setting} = input.dataset
    const value = setting === 'utility' ? s.utility[0] : s[setting]
    if (input.type === 'radio') input.checked = input.value === value
    else if (setting === 'feature') turnFeature(input, s)
    else if (input.type === 'range' && CHOICES[setting]) input.value = CHOICES[setting].indexOf(value)
    else if (document.activeElement !== input || input.type === 'range') input.value = value
    const output = root.querySelector(`[data-out="${setting}"]`)
    if (!output) continue
    const mixed = setting === 'utility' && s.utility.some(u => u !== value)
    output.textContent = mixed ? 'mixed' : reading(setting, value)
    input.setAttribute('aria-valuetext', output.textContent)
  }
  for (const input of root.querySelectorAll('[data-utility]')) {
    const i = Number(input.dataset.utility),
      there = i < s.n_features
    root.querySelector(`[data-feature="${i}"]`).hidden = !there
    if (!there) continue
    input.value = s.utility[i]
    root.querySelector(`[data-u="${i}"]`).textContent = s.utility[i].toFixed(2)
  }
}

function turnFeature(select, s) {
  if (select.options.length !== s.n_features + 1) {
    const names = ['best', ...Array.from({length: s.n_features}, (_, i) => i + 1)]
    select.innerHTML = names.map((name, i) => `<option value="${i}">${name}</option>`).join('')
  }
  select.value = s.feature
}
