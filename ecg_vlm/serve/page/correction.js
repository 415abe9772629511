// The editor of a correction: four corners of the sheet, or a rectangle to crop to, and quarter turns.
//
// Points are in pixels of the picture as it was given. The picture is shown turned; the corners that are handed on are
// named as they are seen, "top left" being the top left of the sheet when it is upright.

import { button, element, shape } from "/page/dom.js";
import { t } from "/page/text.js";

const STEP = 2; // pixels of the screen that an arrow key moves a handle; ten times as many with Shift

/**
 * Fill `container` with the editor.
 * @param picture {src, width, height}
 * @param correction the one to begin with, or null
 * @param outline the sheet's corners as they were read, or null
 * @param onApply called with {turn, corners, crop}, or null where nothing is corrected
 * @param onCancel called without arguments
 */
export function openEditor(container, { picture, correction, outline, onApply, onCancel }) {
  const start = upright(outline ?? rectangle(0, 0, picture.width, picture.height));
  const state = { mode: "corners", isMoved: Boolean(correction?.corners || correction?.crop), ...start };
  if (correction?.crop)
    Object.assign(state, { mode: "crop", points: rectangle(...correction.crop), turn: correction.turn });
  else if (correction?.corners) Object.assign(state, upright(correction.corners));
  else if (correction) state.turn = correction.turn;

  const content = shape("g");
  const loupe = loupeOf(picture);
  const image = shape("image", { href: picture.src, width: picture.width, height: picture.height });
  const shade = shape("path", { class: "shade", "fill-rule": "evenodd" });
  const outlinePath = shape("path", { class: "outline" });
  const handles = state.points.map((_, i) => handleOf(i));
  content.append(image, shade, outlinePath, ...handles);
  const svg = shape("svg", { class: "editor-picture", role: "group", "aria-label": t("sheet") }, content);
  const modes = ["corners", "crop"].map(modeButton);
  container.replaceChildren(
    element(
      "div",
      { class: "tools" },
      element("div", { class: "segments", role: "group", "aria-label": t("editMode") }, modes),
      button(t("turnLeft"), () => turnBy(270)),
      button(t("turnRight"), () => turnBy(90)),
    ),
    element("p", { class: "hint" }, t("editorHelp")),
    element("div", { class: "editor-stage" }, svg, loupe.node),
    element(
      "div",
      { class: "tools" },
      button(t("readAgain"), () => onApply(result()), { class: "primary", id: "apply" }),
      button(t("reset"), reset),
      button(t("cancel"), onCancel),
    ),
  );
  svg.addEventListener("keydown", (event) => event.key === "Escape" && onCancel());
  const watcher = new ResizeObserver(draw);
  watcher.observe(svg);
  draw();
  handles[0].focus();
  return () => watcher.disconnect();

  function modeButton(mode) {
    return button(t(mode), () => {
      state.mode = mode;
      if (mode === "crop") state.points = rectangle(...bounds(state.points));
      draw();
    });
  }

  function handleOf(i) {
    const node = shape(
      "g",
      { class: "handle", tabindex: 0, role: "button" },
      shape("circle", { class: "handle-reach", r: 22 }),
      shape("circle", { class: "handle-dot", r: 9 }),
    );
    node.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      node.focus();
      node.setPointerCapture(event.pointerId);
    });
    node.addEventListener("pointermove", (event) => {
      if (!node.hasPointerCapture(event.pointerId)) return;
      moveTo(i, pointOf(event));
      loupe.show(
        state.points[i],
        state.turn,
        pixelsPerPoint(),
        event.clientX < svg.getBoundingClientRect().x + svg.clientWidth / 2,
      );
    });
    node.addEventListener("lostpointercapture", loupe.hide);
    node.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!direction) return;
      event.preventDefault();
      const step = STEP * pixelsPerPoint() * (event.shiftKey ? 10 : 1);
      const [dx, dy] = rotate(direction, -state.turn);
      moveTo(i, [state.points[i][0] + dx * step, state.points[i][1] + dy * step]);
    });
    return node;
  }

  function pointOf(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(content.getScreenCTM().inverse());
    return [point.x, point.y];
  }

  function moveTo(i, [x, y]) {
    const point = [clamp(x, 0, picture.width), clamp(y, 0, picture.height)];
    state.isMoved = true;
    state.points = state.mode === "crop" ? croppedTo(i, point) : state.points.map((p, j) => (j === i ? point : p));
    draw();
  }

  /** The rectangle of which corner i moves and the opposite corner stays. */
  function croppedTo(i, [x, y]) {
    const [left, top, right, bottom] = bounds(state.points);
    const corners = { 0: [x, y, right, bottom], 1: [left, y, x, bottom], 2: [left, top, x, y], 3: [x, top, right, y] };
    const [l, u, r, d] = corners[i];
    return rectangle(Math.min(l, right - 1), Math.min(u, bottom - 1), Math.max(r, left + 1), Math.max(d, top + 1));
  }

  function turnBy(degrees) {
    state.turn = (state.turn + degrees) % 360;
    draw();
  }

  function reset() {
    Object.assign(state, { mode: "corners", isMoved: false, ...start });
    draw();
  }

  function pixelsPerPoint() {
    const width = state.turn % 180 ? picture.height : picture.width;
    return width / (svg.clientWidth || width);
  }

  function draw() {
    const { width, height } = picture;
    const [w, h] = state.turn % 180 ? [height, width] : [width, height];
    const placement = {
      0: "",
      90: `translate(${height} 0)`,
      180: `translate(${width} ${height})`,
      270: `translate(0 ${width})`,
    };
    svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
    content.setAttribute("transform", `${placement[state.turn]} rotate(${state.turn})`);
    const path = `M${state.points.map((p) => p.join(" ")).join("L")}Z`;
    shade.setAttribute("d", `M0 0H${width}V${height}H0Z${path}`);
    outlinePath.setAttribute("d", path);
    handles.forEach((node, i) => {
      const [x, y] = state.points[i].map(Math.round);
      node.setAttribute("transform", `translate(${x} ${y}) scale(${pixelsPerPoint()})`);
      node.setAttribute("aria-label", `${t("handles")[(i + state.turn / 90) % 4]}: ${t("handleValue", { x, y })}`);
    });
    modes.forEach((node, i) => node.setAttribute("aria-pressed", String(state.mode === ["corners", "crop"][i])));
  }

  function result() {
    const rounded = state.points.map((p) => p.map(Math.round));
    if (!state.isMoved) return state.turn ? { turn: state.turn, corners: null, crop: null } : null;
    if (state.mode === "crop") return { turn: state.turn, corners: null, crop: bounds(rounded) };
    // In the order in which they are seen: with them the sheet is upright, and needs no turn.
    return { turn: 0, corners: rounded.map((_, i) => rounded[(i - state.turn / 90 + 4) % 4]), crop: null };
  }
}

/** A loupe for the point that a finger hides: twice the size on the screen, in the corner away from the finger. */
function loupeOf(picture) {
  const image = shape("image", { href: picture.src, width: picture.width, height: picture.height });
  const cross = shape("path", { class: "outline" });
  const node = shape("svg", { class: "loupe", "aria-hidden": "true", hidden: true }, image, cross);
  return {
    node,
    show([x, y], turn, pixelsPerPoint, isLeft) {
      const reach = 32 * pixelsPerPoint; // half the width of what it shows
      node.setAttribute("viewBox", `${x - reach} ${y - reach} ${2 * reach} ${2 * reach}`);
      image.setAttribute("transform", `rotate(${turn} ${x} ${y})`);
      cross.setAttribute("d", `M${x - reach} ${y}h${2 * reach}M${x} ${y - reach}v${2 * reach}`);
      node.classList.toggle("right", isLeft);
      node.removeAttribute("hidden");
    },
    hide: () => node.setAttribute("hidden", ""),
  };
}

function rectangle(left, top, right, bottom) {
  return [
    [left, top],
    [right, top],
    [right, bottom],
    [left, bottom],
  ]; // as corners are named: clockwise
}

/** Corners of the sheet, its top left first, as the quarter turn that makes it upright and points as the picture has them. */
function upright(corners) {
  const sums = corners.map(([x, y]) => x + y);
  const first = sums.indexOf(Math.min(...sums)); // the picture's own top left
  return { turn: 90 * first, points: corners.map((_, i) => corners[(i + first) % 4]) };
}

function bounds(points) {
  const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

function rotate([x, y], degrees) {
  const [c, s] = { 0: [1, 0], 90: [0, 1], 180: [-1, 0], 270: [0, -1] }[((degrees % 360) + 360) % 360];
  return [x * c - y * s, x * s + y * c];
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
