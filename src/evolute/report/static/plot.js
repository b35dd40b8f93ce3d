// What every figure is made of: elements, numbers, scales, axes, the tip, and the cursor that pointer and keys share.
// Text reaches the page as text alone (textContent): names and messages come from files of strangers.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) node.append(typeof child === "object" ? child : String(child));
  }
  return node;
}
const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (parent, tag, attributes = {}, ...children) => {
  const node = fill(document.createElementNS(SVG, tag), attributes, children);
  parent.append(node);
  return node;
};

// ---------------------------------------------------------------------------------------------------------- numbers

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** A number for people: about three digits, a dash where there is none. */
function shown(value) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e9 || size < 1e-3) return value.toExponential(2).replace(/\.?0*e\+?/, "e").replace("-", "−").replace("e-", "e−");
  const digits = size >= 100 ? 0 : size >= 1 ? 1 : 3;
  const text = size < 1 ? String(Number(value.toPrecision(3))) : value.toLocaleString("en", { maximumFractionDigits: digits });
  return text.replace("-", "−");
}
const whole = (value) => (known(value) ? value.toLocaleString("en", { maximumFractionDigits: 0 }).replace("-", "−") : "–");

/** A number on an axis. */
function short(value) {
  const size = Math.abs(value);
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit && size < 1e12) return String(Number((value / unit).toPrecision(4))).replace("-", "−") + letter;
  }
  if (size !== 0 && (size >= 1e12 || size < 1e-3)) return value.toExponential(0).replace("e+", "e").replace("-", "−");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

/** Seconds as 1:02:03 or 2:03. */
function duration(seconds) {
  if (!known(seconds)) return "–";
  const all = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(all / 3600), minutes = Math.floor((all % 3600) / 60);
  return hours ? `${hours}:${two(minutes)}:${two(all % 60)}` : `${minutes}:${two(all % 60)}`;
}

/** The least and the largest of some values, of which some may be null; [0, 1] where there are none. */
function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (!known(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  return low === high ? [low - (Math.abs(low) / 10 || 1), high + (Math.abs(high) / 10 || 1)] : [low, high];
}

// ----------------------------------------------------------------------------------------------------------- scales

/** A function from values to pixels. Halves, because the difference of two numbers may be too large for one. */
function linear([low, high], [from, to]) {
  const span = high / 2 - low / 2 || 1;
  const scale = (value) => from + ((value / 2 - low / 2) / span) * (to - from);
  scale.ticks = (count) => {
    const raw = (span * 2) / Math.max(count, 1);
    if (!Number.isFinite(raw) || raw <= 0) return [low, high];
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = power * ([1, 2, 5, 10].find((n) => n * power >= raw) || 10);
    const found = [];
    for (let n = Math.ceil(low / step); n * step <= high && found.length < 50; n++) found.push(n * step);
    return found;
  };
  return scale;
}

function logarithmic([low, high], range) {
  const inner = linear([Math.log10(low), Math.log10(high)], range);
  const scale = (value) => inner(Math.log10(value));
  scale.ticks = (count) => {
    const found = [];
    const decades = Math.log10(high / low), factors = decades < 1.2 ? [1, 2, 3, 5, 7] : decades < 3 ? [1, 3] : [1];
    const every = Math.max(1, Math.ceil((decades * factors.length) / Math.max(count, 1) / factors.length));
    for (let n = Math.floor(Math.log10(low)); n <= Math.log10(high); n++) {
      if (n % every) continue;
      for (const factor of factors) {
        const value = factor * 10 ** n;
        if (value >= low * 0.999 && value <= high * 1.001) found.push(Number(value.toPrecision(3)));
      }
    }
    return found;
  };
  return scale;
}

/** A path through points, broken where a value is null. */
function path(points) {
  let text = "", open = false;
  for (const [x, y] of points) {
    if (!known(x) || !known(y)) open = false;
    else {
      text += `${open ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
      open = true;
    }
  }
  return text;
}

// ------------------------------------------------------------------------------------------------------------ frame

const narrow = (width) => width < 560;

/** An SVG of a width with room for axes; `box` is where values are drawn. */
function frame(host, { height, left = 56, right = 14, top = 12, bottom = 34, label }) {
  const width = Math.max(240, Math.floor(host.clientWidth || 640));
  const node = draw(host, "svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label, tabindex: 0, class: "plot",
  });
  return { node, width, height, box: { left, right: width - right, top, bottom: height - bottom } };
}

function timeAxis({ node, box, width }, x, word = "steps") {
  const axis = draw(node, "g", { class: "axis" });
  for (const value of x.ticks(narrow(width) ? 4 : 8)) {
    const at = x(value).toFixed(1);
    draw(axis, "line", { x1: at, x2: at, y1: box.top, y2: box.bottom, class: "grid" });
    draw(axis, "text", { x: at, y: box.bottom + 16, "text-anchor": "middle" }, short(value));
  }
  draw(axis, "line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "base" });
  draw(axis, "text", { x: box.right, y: box.bottom + 30, "text-anchor": "end", class: "unit" }, word);
}

function valueAxis({ node, box }, y, count = 5, word = "") {
  const axis = draw(node, "g", { class: "axis" });
  for (const value of y.ticks(count)) {
    const at = y(value).toFixed(1);
    draw(axis, "line", { x1: box.left, x2: box.right, y1: at, y2: at, class: "grid" });
    draw(axis, "text", { x: box.left - 7, y: at, dy: "0.32em", "text-anchor": "end" }, short(value));
  }
  if (word) draw(axis, "text", { x: box.left, y: box.bottom + 30, class: "unit" }, word);
}

/** A five-pointed star's path around a point. */
function star(x, y, size) {
  const points = Array.from({ length: 10 }, (_, n) => {
    const far = n % 2 ? size * 0.45 : size, angle = (Math.PI * n) / 5 - Math.PI / 2;
    return [x + far * Math.cos(angle), y + far * Math.sin(angle)];
  });
  return `${path(points)}Z`;
}

// -------------------------------------------------------------------------------------------------- tip and cursor

const tip = html("div", { id: "tip", role: "status", hidden: true });

function showTip({ title, kind, rows }, left, top) {
  tip.replaceChildren(
    html("strong", { class: kind === undefined ? null : `swatch ${kind}` }, title),
    html("dl", {}, rows.map(([name, value]) => [html("dt", {}, name), html("dd", {}, value)])),
  );
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const room = document.documentElement.clientWidth;
  tip.style.left = `${Math.max(6, Math.min(left + 16, room - width - 6))}px`;
  tip.style.top = `${top - height - 14 > 6 ? top - height - 14 : top + 18}px`;
}
const hideTip = () => { tip.hidden = true; };

/**
 * Let pointer and arrow keys find targets in a figure: {x, y, tip: () => content, node}, from left to right.
 * The node of the target that is found has the class "on"; keys pass over targets with `passed`.
 */
function interactive({ node }, targets, reach = 48) {
  targets.sort((a, b) => a.x - b.x || a.y - b.y);
  const ring = draw(node, "circle", { r: 7, class: "ring", visibility: "hidden" });
  let now = -1;
  const leave = () => {
    if (now >= 0 && targets[now].node) targets[now].node.classList.remove("on");
    now = -1;
    ring.setAttribute("visibility", "hidden");
    hideTip();
  };
  const go = (number) => {
    if (number === now) return;
    leave();
    if (number < 0 || number >= targets.length) return;
    now = number;
    const target = targets[now], place = node.getBoundingClientRect(), scale = place.width / node.viewBox.baseVal.width;
    if (target.node) target.node.classList.add("on");
    ring.setAttribute("cx", target.x);
    ring.setAttribute("cy", target.y);
    ring.setAttribute("visibility", "visible");
    showTip(target.tip(), place.left + target.x * scale, place.top + target.y * scale);
  };
  node.addEventListener("pointermove", (event) => {
    const place = node.getBoundingClientRect(), scale = place.width / node.viewBox.baseVal.width || 1;
    const x = (event.clientX - place.left) / scale, y = (event.clientY - place.top) / scale;
    let best = -1, nearest = reach ** 2;
    targets.forEach((target, number) => {
      const far = (target.x - x) ** 2 + (target.y - y) ** 2;
      if (far < nearest) [best, nearest] = [number, far];
    });
    go(best);
  });
  node.addEventListener("pointerleave", leave);
  node.addEventListener("blur", leave);
  node.addEventListener("keydown", (event) => {
    const stop = (from, by) => {
      for (let n = from; n >= 0 && n < targets.length; n += by) if (!targets[n].passed) return n;
      return now;
    };
    if (event.key === "Escape") leave();
    else if (event.key === "ArrowRight") go(stop(now + 1, 1));
    else if (event.key === "ArrowLeft") go(stop(now - 1, -1));
    else if (event.key === "Home") go(stop(0, 1));
    else if (event.key === "End") go(stop(targets.length - 1, -1));
    else return;
    event.preventDefault();
  });
}
