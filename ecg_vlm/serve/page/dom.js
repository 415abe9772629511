// Elements from data. Text is only ever set as text, so nothing in a file name, question or answer becomes markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An HTML element; `on` holds its listeners, every other key is an attribute (false and null leave it out). */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function shape(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export function button(text, action, attributes = {}) {
  return element("button", { type: "button", ...attributes, on: { click: action } }, text);
}

function fill(node, { on = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, String(value));
  }
  for (const [event, listener] of Object.entries(on)) node.addEventListener(event, listener);
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

/** Replace what is in a container. Keyboard focus and what stands open stay where they were, by their place. */
export function refill(container, ...children) {
  const places = () => [...container.querySelectorAll("button, summary, a, input")];
  const focus = places().indexOf(document.activeElement);
  const isOpen = [...container.querySelectorAll("details")].map((node) => node.open);
  container.replaceChildren(...children.flat(Infinity).filter((child) => child != null && child !== false));
  const details = [...container.querySelectorAll("details")];
  if (details.length === isOpen.length) details.forEach((node, i) => (node.open = isOpen[i]));
  places()[focus]?.focus();
}
