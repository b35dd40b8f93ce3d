// Shares of kinds, troubles, and seconds by phase.

/** How much of the highlighted line each kind has, a bar for each. */
function lineShares(host, run, view) {
  const slots = slotsOf(run.lines[view.line]), counts = run.kinds.map(() => 0), height = 34;
  for (const slot of slots) counts[memberOf(run, slot).kind]++;
  const said = counts.map((count) => `${Math.round((100 * count) / (slots.length || 1))}%`);
  const plot = frame(host, {
    height: run.kinds.length * height + 8, left: 92, right: 46, top: 4, bottom: 4,
    label: `Share of kinds on the highlighted line: ${run.kinds.map((kind, number) => `${kind.name} ${said[number]}`).join(", ")}.`,
  });
  const { node, box } = plot, x = linear([0, slots.length || 1], [box.left, box.right]), targets = [];
  run.kinds.forEach((kind, number) => {
    const y = box.top + number * height + 7, middle = y + 10;
    draw(node, "text", { x: box.left - 9, y: middle, dy: "0.34em", "text-anchor": "end", class: "lane-name" }, clipped(kind.name, 13));
    draw(node, "rect", { x: box.left, y, width: box.right - box.left, height: 20, rx: 5, class: "track" });
    if (counts[number]) draw(node, "rect", { x: box.left, y, width: x(counts[number]) - box.left, height: 20, rx: 5, class: `share ${kind.cls}` });
    draw(node, "text", { x: box.right + 9, y: middle, dy: "0.34em", class: "strong" }, said[number]);
    targets.push({ x: x(counts[number]), y: middle, tip: () => ({ title: kind.name, kind: kind.cls, rows: [["intervals", `${counts[number]} of ${slots.length}`]] }) });
  });
  interactive(plot, targets, 400);
}

/** Layers on top of each other: values[at][layer], each layer with a class and a name. */
function stacked(plot, x, times, values, layers, y, words) {
  const { node, box } = plot, lower = times.map(() => 0);
  layers.forEach((layer, number) => {
    const up = [], down = [];
    times.forEach((time, at) => {
      const from = at ? times[at - 1] : 0, height = values[at][number];
      down.push([x(from), y(lower[at])], [x(time), y(lower[at])]);
      lower[at] += height;
      up.push([x(from), y(lower[at])], [x(time), y(lower[at])]);
    });
    draw(node, "path", { d: times.length ? `${path([...up, ...down.reverse()])}Z` : "", class: `layer ${layer.cls}` });
  });
  interactive(plot, times.map((time, at) => ({ x: (x(at ? times[at - 1] : 0) + x(time)) / 2, y: (box.top + box.bottom) / 2, tip: () => words(at) })), 2000);
}

/** The kinds of the ancestors of all that is alive at the end. */
function sharesOverTime(host, run) {
  const plot = frame(host, { height: 190, left: 40, label: "How many of the last population's ancestors were of each kind, over time." });
  const { box } = plot, x = linear(timesFrom(run), [box.left, box.right]);
  const total = run.members.length, y = linear([0, total], [box.bottom, box.top]);
  timeAxis(plot, x);
  valueAxis(plot, y, 4, "members");
  stacked(plot, x, run.times, run.shares, run.kinds, y, (at) => ({
    title: `ancestors after ${whole(run.times[at])} steps`,
    rows: run.kinds.map((kind, number) => [kind.name, `${run.shares[at][number]} of ${total}`]),
  }));
}

const TROUBLES = { contained: "contained numerical events", fault: "environment failures", quarantine: "quarantine", dead: "dead units" };

function troubleMark(layer, what, x, y, size) {
  const cls = `trouble ${what}`;
  if (what === "contained") return draw(layer, "circle", { cx: x, cy: y, r: size, class: cls });
  if (what === "fault") return draw(layer, "path", { d: `M${x} ${y - size - 1}L${x + size + 1} ${y + size}L${x - size - 1} ${y + size}Z`, class: cls });
  if (what === "dead") return draw(layer, "rect", { x: x - size, y: y - size, width: 2 * size, height: 2 * size, class: cls });
  const node = draw(layer, "path", { class: cls });
  cross(node, x, y, size);
  return node;
}

function troubles(host, run) {
  const tight = narrow(host.clientWidth), lane = run.members.length > 24 ? 14 : 24;
  const plot = frame(host, { height: run.members.length * lane + 54, left: tight ? 74 : 118, right: 20, top: 10, label: `${run.troubles.length} troubles of members over time; the events are in a table below.` });
  const { node, box } = plot, x = linear(timesFrom(run), [box.left, box.right]), targets = [];
  const row = new Map(run.members.map((member, number) => [member.slot, box.top + (number + 0.5) * lane]));
  timeAxis(plot, x);
  for (const member of run.members) {
    const y = row.get(member.slot), kind = run.kinds[member.kind];
    draw(node, "line", { x1: box.left, x2: box.right, y1: y, y2: y, class: `spine ${kind.cls}` });
    draw(node, "text", { x: box.left - 9, y, dy: "0.34em", "text-anchor": "end", class: "lane-name" }, clipped(`${member.slot}  ${kind.name}`, tight ? 11 : 17));
  }
  const marks = draw(node, "g", { class: "marks" });
  for (const one of run.troubles) {
    if (!row.has(one.member)) continue;
    const at = x(run.times[one.at]), y = row.get(one.member), size = one.what === "contained" ? Math.min(3 + Math.log10(one.count + 1) * 2, 9) : 4;
    troubleMark(marks, one.what, at, y, size);
    targets.push({ x: at, y, tip: () => ({ title: nameOf(run, one.member), kind: kindOf(run, one.member).cls, rows: [["steps", whole(run.times[one.at])], ["", one.text]] }) });
  }
  interactive(plot, targets, 30);
}

function phases(host, run) {
  const plot = frame(host, { height: 190, label: "Wall time of every interval by phase." });
  const values = run.times.map((_, at) => run.phases.map((phase) => phase.seconds[at]));
  const { box } = plot, x = linear(timesFrom(run), [box.left, box.right]);
  const y = linear([0, Math.max(1e-9, ...values.map((row) => row.reduce((a, b) => a + b, 0)))], [box.bottom, box.top]);
  timeAxis(plot, x);
  valueAxis(plot, y, 4, "seconds for each interval");
  stacked(plot, x, run.times, values, run.phases.map((_, number) => ({ cls: `p${number}` })), y, (at) => ({
    title: `interval ${run.intervals[at]}`,
    rows: run.phases.map((phase) => [phase.name, `${shown(phase.seconds[at])} s`]),
  }));
}
