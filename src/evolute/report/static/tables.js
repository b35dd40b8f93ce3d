// Tables and lists: everything that a figure shows can be read as text, too.

/** A table that scrolls sideways by itself; columns are [heading, class]. */
function table(caption, columns, rows) {
  return html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    html("table", {},
      html("thead", {}, html("tr", {}, columns.map(([heading, cls]) => html("th", { scope: "col", class: cls }, heading)))),
      html("tbody", {}, rows.map((cells) => html("tr", {}, cells.map((cell, number) => html("td", { class: columns[number][1] }, cell)))))));
}

const swatch = (cls, text) => html("span", { class: `swatch ${cls}` }, text);
const kindNamed = (run, name) => run.kinds.find((kind) => kind.name === name) || { cls: "", name };

function leaderboard(run) {
  const telling = run.paths.map((path) => path.name);
  return table("Leaderboard",
    [["#", "number"], ["member", "number"], ["kind", ""], ["fitness", "number"], ["copied last", "number"], ...telling.map((name) => [words(name), "number"]), ["steps", "number"]],
    run.leaderboard.map((row) => [
      row.rank, row.member, swatch(kindNamed(run, row.kind).cls, row.kind), shown(row.fitness), row.parent === null ? "–" : row.parent,
      ...telling.map((name) => shown(row.hyperparameters[name] ?? null)), whole(row.environment_steps),
    ]));
}
const words = (name) => name.replaceAll("_", " ");

function exploitTable(run) {
  return table("Exploits",
    [["steps", "number"], ["member", ""], ["fitness", "number"], ["copied", ""], ["fitness", "number"], ["optimizer", ""], ["changed", "wide"]],
    run.exploits.map((one) => [
      whole(one.steps), swatch(kindOf(run, one.member).cls, `${one.member} ${kindOf(run, one.member).name}`), shown(one.member_fitness),
      swatch(kindOf(run, one.parent).cls, `${one.parent} ${kindOf(run, one.parent).name}`), shown(one.parent_fitness), one.reset ? "new" : "copied",
      one.changes.map(([name, old, now]) => `${words(name)} ${shown(old)} → ${shown(now)}`).join(", ") || "nothing",
    ]));
}

const eventTable = (run) => table("Events", [["steps", "number"], ["event", ""], ["what happened", "wide"]],
  run.events.map(([steps, name, text]) => [whole(steps), words(name), text]));
const pairTable = (caption, rows) => table(caption, [["name", ""], ["value", "wide"]], rows);

function phaseTable(run) {
  const sums = run.phases.map((phase) => phase.seconds.reduce((a, b) => a + (b || 0), 0)), all = sums.reduce((a, b) => a + b, 0) || 1;
  return table("Seconds by phase", [["phase", ""], ["seconds", "number"], ["share", "number"]],
    run.phases.map((phase, number) => [swatch(`p${number}`, phase.name), shown(sums[number]), `${Math.round((100 * sums[number]) / all)}%`]));
}

function commandList(run) {
  return html("dl", { class: "commands" }, run.commands.map(([what, command]) => {
    const code = html("code", { tabindex: 0 }, command);
    const copy = html("button", { type: "button", class: "quiet", "aria-label": `copy: ${what}`, click: async () => {
      try {
        await navigator.clipboard.writeText(command);
        copy.textContent = "copied";
      } catch {
        // Where a page may not write there, the command is marked for the reader's own keys.
        getSelection().selectAllChildren(code);
        copy.textContent = "marked";
      }
      setTimeout(() => { copy.textContent = "copy"; }, 1500);
    } }, "copy");
    return [html("dt", {}, what), html("dd", {}, code, copy)];
  }));
}

// -------------------------------------------------------------------------------------------------- several runs

const signed = (value) => (known(value) && value > 0 ? `+${shown(value)}` : shown(value));

/** Results by seed, a column for each group, then differences from the first group. */
function pairedTable(env) {
  const cell = (group, seed) => {
    const found = group.results[seed];
    return found ? `${shown(found[0])}${found[1] ? "" : " so far"}` : "–";
  };
  const columns = [["seed", ""], ...env.groups.map((group) => [group.label, "number"]), ...env.pairs.map((pair) => [`${env.groups[pair.group].label} minus ${env.groups[0].label}`, "number"])];
  const rows = env.seeds.map((seed) => [seed, ...env.groups.map((group) => cell(group, seed)), ...env.pairs.map((pair) => signed(pair.differences[seed]))]);
  rows.push([
    "mean", ...env.groups.map((group) => shown(group.result.mean) + (known(group.result.deviation) ? ` ± ${shown(group.result.deviation)}` : "")),
    ...env.pairs.map((pair) => signed(pair.mean) + (known(pair.error) ? ` ± ${shown(pair.error)}` : "")),
  ]);
  const found = table("Results by seed", columns, rows);
  found.querySelector("tbody").lastChild.classList.add("sum");
  return found;
}

function pairedWords(env) {
  return env.pairs.map((pair) => {
    const count = Object.keys(pair.differences).length, name = env.groups[pair.group].label;
    return html("p", {}, count ? `${name} is ahead of ${env.groups[0].label} on ${pair.ahead} of ${count} common ${count === 1 ? "seed" : "seeds"}.` : `${name} and ${env.groups[0].label} have no seed in common.`);
  });
}

function runsTable(runs) {
  return table("Runs", [["run", ""], ["environment", ""], ["mix", ""], ["seed", "number"], ["steps", "number"], ["state", ""], ["best", "number"], ["exploits", "number"]],
    runs.map((run, number) => [
      html("a", { href: `#run-${number}` }, run.name), run.env ?? "–", run.mix ?? "–", run.seed ?? "–", whole(run.done), run.state,
      shown(run.best && run.best.fitness), run.exploits.length,
    ]));
}
