// The genealogy: time across, a lane for each member, an edge for every exploit.
// A lane's hill is the member's fitness; it begins anew where the member became a copy.

// Exploits from which on edges are drawn finer.
const CROWDED = 120;

function genealogy(host, run, view, small = false) {
  const many = run.members.length, tight = small || narrow(host.clientWidth);
  const lane = many > 24 ? 18 : tight ? 30 : 44;
  const plot = frame(host, {
    height: many * lane + 54, left: tight ? 74 : 118, right: 30, top: 10, label:
      `Genealogy of ${many} members with ${run.exploits.length} exploits. Arrow keys move from exploit to exploit; a table of them is below.`,
  });
  const { node, box } = plot, x = linear(timesFrom(run), [box.left, box.right]);
  const row = new Map(run.members.map((member, number) => [member.slot, number]));
  const base = (slot) => box.top + (row.get(slot) + 1) * lane - 5;
  const [low, high] = extent(run.members.flatMap((member) => member.fitness));
  const hill = linear([low, high], [1.5, lane - 10]);
  timeAxis(plot, x);
  const step = run.times.length > 1 ? x(run.times[1]) - x(run.times[0]) : 12, bend = Math.max(3, Math.min(step * 0.8, 22));
  const line = run.lines[view.line], slots = slotsOf(line);
  const faded = (slot) => (view.hidden.has(kindOf(run, slot).name) ? " faded" : "");

  const lanes = draw(node, "g", { class: "lanes" });
  for (const member of run.members) {
    const kind = run.kinds[member.kind], group = draw(lanes, "g", { class: `lane ${kind.cls}${faded(member.slot)}`, "data-member": member.slot });
    const bottom = base(member.slot);
    const births = run.exploits.filter((one) => one.member === member.slot).sort((a, b) => a.at - b.at);
    draw(group, "line", { x1: box.left, x2: box.right, y1: bottom, y2: bottom, class: "spine" });
    for (let life = 0; life <= births.length; life++) {
      const birth = births[life - 1], death = births[life], first = birth ? birth.at + 1 : 0, last = death ? death.at : run.times.length - 1;
      drawLife(group, run, member, { x, hill, bottom, bend, slots }, birth, first, last);
    }
    const text = tight ? `${member.slot} ${kind.name}` : `${member.slot}  ${kind.name}`;
    const label = draw(group, "text", { x: box.left - 9, y: bottom - lane / 2 + 8, "text-anchor": "end", class: "lane-name" });
    label.textContent = clipped(text, tight ? 11 : 17);
    draw(label, "title", {}, text);
  }

  const edges = draw(node, "g", { class: run.exploits.length > CROWDED ? "edges crowded" : "edges" }), targets = [];
  for (const one of run.exploits) targets.push(edge(edges, run, view, one, { x, base, bend, slots }));
  ancestorLine(node, run, line, { x, base, bend });
  const marks = draw(node, "g", { class: "births" });
  for (const target of targets) birthMark(marks, run, target, faded, small);
  for (const trouble of run.troubles) {
    if (trouble.what !== "quarantine" || !row.has(trouble.member)) continue;
    cross(draw(node, "path", { class: "quarantine" }), x(run.times[trouble.at]), base(trouble.member) - 8, 4);
  }
  if (run.best) {
    const at = { x: x(run.times[run.best.at]), y: base(run.best.member) - 1 };
    draw(node, "path", { d: star(at.x, at.y, 10), class: "best" });
    targets.push({ ...at, y: at.y - 1, tip: () => ({
      title: "the best policy", kind: kindOf(run, run.best.member).cls,
      rows: [["member", `${run.best.member} (${run.best.kind})`], ["steps", whole(run.times[run.best.at])], ["fitness", shown(run.best.fitness)]],
    }) });
  }
  interactive(plot, targets, 36);
}

const clipped = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const cross = (node, x, y, size) =>
  node.setAttribute("d", `M${x - size} ${y - size}L${x + size} ${y + size}M${x - size} ${y + size}L${x + size} ${y - size}`);

/** The hill of one life, from its birth to its death; a copy begins at the height of what it copied. */
function drawLife(group, run, member, { x, hill, bottom, bend, slots }, birth, first, last) {
  const points = [];
  if (birth && known(birth.parent_fitness)) points.push([x(run.times[birth.at]) + bend, bottom - hill(birth.parent_fitness), birth.at]);
  for (let at = first; at <= last; at++) {
    points.push([x(run.times[at]), known(member.fitness[at]) ? bottom - hill(member.fitness[at]) : null, at]);
  }
  // Stretches without a gap, and those on the highlighted line by themselves.
  let stretch = [];
  const flush = () => {
    if (stretch.length > 1) {
      const on = stretch.every(([, , at]) => slots[at] === member.slot || (birth && at === birth.at && slots[first] === member.slot));
      const area = [[stretch[0][0], bottom], ...stretch, [stretch.at(-1)[0], bottom]];
      draw(group, "path", { d: `${path(area)}Z`, class: `hill${on ? " on-line" : ""}` });
      draw(group, "path", { d: path(stretch), class: `ridge${on ? " on-line" : ""}` });
    }
    stretch = [];
  };
  for (const point of points) {
    if (point[1] === null) flush();
    else {
      const before = stretch.at(-1);
      // Where the line leaves or enters a life, its hill changes its shade.
      if (before && before[2] >= first && (slots[before[2]] === member.slot) !== (slots[point[2]] === member.slot)) {
        flush();
        stretch.push(before);
      }
      stretch.push(point);
    }
  }
  flush();
}

const bow = (x1, y1, x2, y2) => `M${x1.toFixed(1)} ${y1.toFixed(1)}C${((x1 + x2) / 2).toFixed(1)} ${y1.toFixed(1)} ${((x1 + x2) / 2).toFixed(1)} ${y2.toFixed(1)} ${x2.toFixed(1)} ${y2.toFixed(1)}`;

/** One exploit, from its parent's lane to its child's. */
function edge(layer, run, view, one, { x, base, bend, slots }) {
  const from = x(run.times[one.at]), to = from + bend;
  const hidden = [one.member, one.parent].some((slot) => view.hidden.has(kindOf(run, slot).name));
  const node = draw(layer, "path", {
    d: bow(from, base(one.parent), to, base(one.member)), class: `edge ${kindOf(run, one.parent).cls}${hidden ? " faded" : ""}`,
    "data-child": one.member, "data-parent": one.parent, "data-reset": one.reset ? "yes" : "no",
  });
  return { x: to, y: base(one.member), node, one, tip: () => exploitTip(run, one) };
}

/** Where a child begins: a full dot where it has its parent's optimizer state, a hollow one where that is new. */
function birthMark(layer, run, { x, y, one }, faded, small) {
  draw(layer, "circle", { cx: x.toFixed(1), cy: y, r: small ? 2.3 : 3.2, class: `birth ${one.reset ? "reset" : "kept"} ${kindOf(run, one.member).cls}${faded(one.member)}` });
}

function exploitTip(run, one) {
  const changes = one.changes.map(([name, old, now]) => [words(name), `${shown(old)} → ${shown(now)}`]);
  return {
    title: `member ${one.member} copied member ${one.parent}`, kind: kindOf(run, one.parent).cls,
    rows: [
      ["steps", whole(one.steps)],
      ["child", `${kindOf(run, one.member).name}, fitness ${shown(one.member_fitness)}`],
      ["parent", `${kindOf(run, one.parent).name}, fitness ${shown(one.parent_fitness)}`],
      ["optimizer", one.reset ? "state is new" : "state is copied"],
      ...(one.alike ? [["networks", "what is alike"]] : []),
      ...(changes.length ? changes : [["changed", "nothing"]]),
    ],
  };
}

/** The highlighted line: along the lanes and over the edges, in one stroke. */
function ancestorLine(node, run, line, { x, base, bend }) {
  if (!line) return;
  let d = "";
  line.parts.forEach(([slot, first, last], number) => {
    const y = base(slot).toFixed(1), before = line.parts[number - 1];
    if (before) {
      const from = x(run.times[before[2]]);
      d += bow(from, base(before[0]), from + bend, base(slot)).replace(/^M/, "L");
    } else d += `M${x(0).toFixed(1)} ${y}`;
    const next = line.parts[number + 1];
    if (next || x(run.times[last]) > (before ? x(run.times[before[2]]) + bend : 0)) d += `L${x(run.times[last]).toFixed(1)} ${y}`;
  });
  draw(node, "path", { d, class: "halo" });
  draw(node, "path", { d, class: "ancestor" });
}
