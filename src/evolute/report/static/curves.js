// Figures of values over time: learning curves, hyperparameters, and bands over seeds.

/** The slot of a line in every interval. */
function slotsOf(line) {
  const slots = [];
  for (const [slot, first, last] of line ? line.parts : []) for (let at = first; at <= last; at++) slots[at] = slot;
  return slots;
}
const memberOf = (run, slot) => run.members.find((member) => member.slot === slot);
const kindOf = (run, slot) => run.kinds[memberOf(run, slot).kind];
const nameOf = (run, slot) => `member ${slot} (${kindOf(run, slot).name})`;
const timesFrom = (run) => [0, Math.max(...run.times, 1)];

/** The marks that all curves of a run have: thin lines by kind, then one line of ancestors above them. */
function memberCurves(plot, run, view, curves, points, cls) {
  const layer = draw(plot.node, "g", { class: "members" });
  run.members.forEach((member, number) => {
    if (view.hidden.has(run.kinds[member.kind].name)) return;
    draw(layer, "path", { d: path(points(curves[number])), class: `${cls} ${run.kinds[member.kind].cls}`, "data-member": member.slot });
  });
}

function ancestorCurve(plot, points) {
  draw(plot.node, "path", { d: path(points), class: "halo" });
  draw(plot.node, "path", { d: path(points), class: "ancestor" });
}

function learningCurves(host, run, view) {
  const plot = frame(host, {
    height: narrow(host.clientWidth) ? 260 : 340, label:
      `Learning curves of ${run.members.length} members. Arrow keys move through the intervals of the highlighted line.`,
  });
  const { box } = plot, curves = run.members.map((member) => member.fitness);
  const x = linear(timesFrom(run), [box.left, box.right]), [low, high] = extent(curves.flat());
  const y = linear([low, high], [box.bottom - 4, box.top + 4]);
  timeAxis(plot, x);
  valueAxis(plot, y, 5, "return");
  memberCurves(plot, run, view, curves, (values) => values.map((value, at) => [x(run.times[at]), known(value) ? y(value) : null]), "curve");
  const line = run.lines[view.line], slots = slotsOf(line);
  const own = slots.map((slot, at) => [x(run.times[at]), memberOf(run, slot).fitness[at]]);
  ancestorCurve(plot, own.map(([left, value]) => [left, known(value) ? y(value) : null]));
  const dots = draw(plot.node, "g", { class: "joints" });
  slots.forEach((slot, at) => {
    if (at && slot !== slots[at - 1] && known(own[at][1])) {
      draw(dots, "circle", { cx: own[at][0], cy: y(own[at][1]), r: 4, class: `joint ${kindOf(run, slot).cls}` });
    }
  });
  if (run.best) draw(plot.node, "path", { d: star(x(run.times[run.best.at]), y(run.best.fitness), 9), class: "best" });
  const targets = [];
  run.members.forEach((member) => {
    if (view.hidden.has(run.kinds[member.kind].name)) return;
    member.fitness.forEach((value, at) => {
      if (!known(value)) return;
      const ancestor = slots[at] === member.slot;
      targets.push({ x: x(run.times[at]), y: y(value), passed: !ancestor, tip: () => fitnessTip(run, member, at, ancestor) });
    });
  });
  interactive(plot, targets);
}

function fitnessTip(run, member, at, ancestor) {
  const copied = run.exploits.find((one) => one.at === at && one.member === member.slot);
  return {
    title: nameOf(run, member.slot), kind: run.kinds[member.kind].cls,
    rows: [
      ["steps", whole(run.times[at])],
      ["fitness", shown(member.fitness[at]) + (known(member.fitness_std[at]) ? ` ± ${shown(member.fitness_std[at])}` : "")],
      ...(ancestor ? [["", "on the highlighted line"]] : []),
      ...(copied ? [["then copied", nameOf(run, copied.parent)]] : []),
    ],
  };
}

/** One hyperparameter: what members trained with, held over each interval. */
function hyperparameterPath(host, run, view, one) {
  const plot = frame(host, { height: 190, left: 52, label: `Path of ${one.name} in ${run.members.length} members. Arrow keys move along the highlighted line.` });
  const { box } = plot, [low, high] = extent(one.values.flat());
  const x = linear(timesFrom(run), [box.left, box.right]);
  const room = [box.bottom - 6, box.top + 6], y = low > 0 && high / low > 3 ? logarithmic([low, high], room) : linear([low, high], room);
  timeAxis(plot, x);
  valueAxis(plot, y, 4, one.unit);
  const held = (values) => values.flatMap((value, at) => {
    const height = known(value) ? y(value) : null;
    return [[x(at ? run.times[at - 1] : 0), height], [x(run.times[at]), height]];
  });
  memberCurves(plot, run, view, one.values, held, "curve");
  const slots = slotsOf(run.lines[view.line]), place = new Map(run.members.map((member, number) => [member.slot, number]));
  ancestorCurve(plot, held(slots.map((slot, at) => one.values[place.get(slot)][at])));
  const targets = [];
  run.members.forEach((member, number) => {
    if (view.hidden.has(run.kinds[member.kind].name)) return;
    one.values[number].forEach((value, at) => {
      if (!known(value)) return;
      targets.push({
        x: x(run.times[at]), y: y(value), passed: slots[at] !== member.slot,
        tip: () => ({ title: nameOf(run, member.slot), kind: run.kinds[member.kind].cls, rows: [["steps", whole(run.times[at])], [one.name, shown(value)]] }),
      });
    });
  });
  interactive(plot, targets);
}

/** The best member's fitness of several groups: mean over seeds, and the range of the seeds. */
function bands(host, env) {
  const plot = frame(host, {
    height: narrow(host.clientWidth) ? 260 : 340, label: `Fitness of the best member on ${env.env}: mean and range over seeds, for ${env.groups.length} groups.`,
  });
  const { box } = plot;
  const x = linear([0, Math.max(1, ...env.groups.flatMap((group) => group.times))], [box.left, box.right]);
  const y = linear(extent(env.groups.flatMap((group) => [...group.low, ...group.high])), [box.bottom - 4, box.top + 4]);
  timeAxis(plot, x);
  valueAxis(plot, y, 5, "return of the best member");
  const targets = [];
  env.groups.forEach((group, number) => {
    const up = group.times.map((time, at) => [x(time), y(group.high[at])]);
    const down = group.times.map((time, at) => [x(time), y(group.low[at])]).reverse();
    if (group.runs.length > 1) draw(plot.node, "path", { d: up.length ? `${path([...up, ...down])}Z` : "", class: `band ${groupClass(number)}` });
    for (const one of group.each) {
      draw(plot.node, "path", { d: path(one.map((value, at) => [x(group.times[at]), y(value)])), class: `seed ${groupClass(number)}` });
    }
  });
  env.groups.forEach((group, number) => {
    draw(plot.node, "path", { d: path(group.mean.map((value, at) => [x(group.times[at]), y(value)])), class: `mean ${groupClass(number)}` });
    group.mean.forEach((value, at) => targets.push({
      x: x(group.times[at]), y: y(value),
      tip: () => ({
        title: group.label, kind: groupClass(number),
        rows: [["steps", whole(group.times[at])], ["mean", shown(value)], ["range", `${shown(group.low[at])} to ${shown(group.high[at])}`], ["seeds", group.runs.length]],
      }),
    }));
  });
  interactive(plot, targets);
}
