// The page: what stands where, what the reader chooses, and news from the server where there is one.

const live = document.body.hasAttribute("data-live");
// Colours are by algorithm's family where there are several algorithms, and as far apart as can be where there is one.
const FAMILIES = { td3: [0, 2, 4], sac: [1, 5, 6], ddpg: [3, 7] };
const ALL = [0, 1, 2, 3, 4, 5, 6, 7];
const groupClass = (number) => `k${ALL[number % ALL.length]}`;
let figures = [], views = [];

/** Give every kind of the page its class, the same in every run. */
function paint(runs) {
  const kinds = new Map();
  for (const run of runs) for (const kind of run.kinds) kinds.set(kind.name, kind.algorithm);
  const several = new Set(kinds.values()).size > 1, used = {};
  for (const [name, algorithm] of kinds) {
    const own = several ? FAMILIES[algorithm] || [7] : ALL, family = several ? algorithm : "";
    const number = (used[family] ??= []).push(name) - 1;
    kinds.set(name, `k${own[number % own.length]}${number >= own.length ? " dashed" : ""}`);
  }
  for (const run of runs) for (const kind of run.kinds) kind.cls = kinds.get(kind.name);
}

/** A figure that is drawn again whenever its width or what the reader chose changes. */
function figure(title, about, drawing, view, cls = "") {
  const host = html("div", { class: "host" });
  figures.push({ host, view, width: 0, draw: () => { host.replaceChildren(); drawing(host); } });
  return html("figure", { class: cls }, html("figcaption", {}, html("h3", {}, title), about ? html("p", {}, about) : null), host);
}

function redraw(test) {
  hideTip();
  for (const one of figures) {
    if (!one.host.isConnected || !one.host.clientWidth || !test(one)) continue;
    one.width = one.host.clientWidth;
    one.draw();
  }
}
const redrawChanged = () => redraw((one) => one.width !== one.host.clientWidth);

const folded = (key, title, ...inside) => html("details", { "data-key": key, toggle: redrawChanged }, html("summary", {}, title), inside);

// -------------------------------------------------------------------------------------------------------- one run

const STATES = {
  ended: "The run has ended.", running: "The run goes on; this is what its intervals so far show.",
  stopped: "The run was stopped before its end; it can go on from its last checkpoint.",
};

function facts(run) {
  const best = run.best, final = run.final;
  const found = [
    ["best fitness", best ? shown(best.fitness) : "–", best ? `member ${best.member}, ${best.kind}` : "no interval has ended"],
    ["steps of each member", whole(run.done), known(run.steps) ? `of ${whole(run.steps)}` : ""],
    ["exploits", whole(run.exploits.length), `${run.exploits.filter((one) => one.reset).length} with a new optimizer state`],
  ];
  if (known(final.return_mean)) found.unshift(["final return", `${shown(final.return_mean)} ± ${shown(final.return_std)}`, `${whole(final.episodes)} fresh episodes`]);
  const seconds = run.phases.reduce((all, phase) => all + phase.seconds.reduce((a, b) => a + (b || 0), 0), 0);
  found.push(["wall time", duration(run.wall_seconds ?? seconds), run.started ? `since ${run.started.slice(0, 16).replace("T", " ")}` : ""]);
  return html("dl", { class: "facts" }, found.map(([name, value, about]) => html("div", {}, html("dt", {}, name), html("dd", {}, value, html("small", {}, about)))));
}

/** The video of the best policy, or where it is. */
function film(run) {
  const one = run.video;
  if (!one) return null;
  const where = `${one.name}, ${whole(one.size)} bytes`;
  if (!one.source) return html("p", { class: "empty" }, `There is a video in the run folder, which is too large for this page or none that it can show: ${where}.`);
  const label = `The policy at work: ${one.name}`;
  const moving = one.source.startsWith("data:image/") ? html("img", { src: one.source, alt: label }) : html("video", { src: one.source, controls: true, loop: true, muted: true, "aria-label": label });
  return html("figure", { class: "wide film" }, html("figcaption", {}, html("h3", {}, "The policy at work"), html("p", {}, `From the run folder: ${where}.`)), moving);
}

function toolbar(run, view) {
  const changed = () => redraw((one) => one.view === view);
  const choose = html("select", { "aria-label": "Highlighted line", change: () => { view.line = Number(choose.value); changed(); } },
    run.lines.map((line, number) => html("option", { value: number, selected: number === view.line },
      line.best ? `ancestors of the best policy (member ${line.member})` : `ancestors of member ${line.member} at the end`)));
  const kinds = run.kinds.map((kind) => {
    const button = html("button", { type: "button", class: `swatch ${kind.cls}`, "aria-pressed": !view.hidden.has(kind.name) ? "true" : "false", click: () => {
      if (!view.hidden.delete(kind.name)) view.hidden.add(kind.name);
      button.setAttribute("aria-pressed", String(!view.hidden.has(kind.name)));
      changed();
    } }, kind.name);
    return button;
  });
  return html("div", { class: "toolbar" },
    run.lines.length ? html("label", {}, html("span", { class: "line-sample" }), choose) : null,
    html("div", { class: "kinds", role: "group", "aria-label": "Kinds shown" }, kinds));
}

const key = (...entries) => html("ul", { class: "key" }, entries.map(([mark, text]) => html("li", {}, mark, text)));
function sample(drawing) {
  const node = document.createElementNS(SVG, "svg");
  fill(node, { viewBox: "0 0 22 16", width: 22, height: 16, "aria-hidden": "true" }, []);
  drawing(node);
  return node;
}

function section(run, number, several) {
  const view = views[number] ??= { line: 0, hidden: new Set() };
  if (view.line >= run.lines.length) view.line = 0;
  const drawn = run.times.length > 0; const id = (name) => `${number}-${name}`;
  const head = html("header", {},
    html("p", { class: "over" }, html("span", { class: `badge ${run.state}` }, run.state), run.name),
    html(several ? "h2" : "h1", {}, run.env ?? run.name),
    html("p", { class: "mix" }, [run.mix, run.strategy && `strategy ${run.strategy}`, known(run.seed) && `seed ${run.seed}`].filter(Boolean).join(" · ")),
    html("p", { class: "state" }, STATES[run.state]));
  const problems = run.problems.length ? html("div", { class: "problems", role: "note" }, html("h3", {}, "Missing or damaged"), html("ul", {}, run.problems.map((text) => html("li", {}, text)))) : null;
  const body = drawn ? figuresOf(run, view) : [html("p", { class: "empty" }, "No interval has ended yet, so there is nothing to draw.")];
  return html("section", { class: "run", id: `run-${number}` }, head, problems, facts(run), film(run), body,
    html("div", { class: "texts" },
      html("h3", {}, "What to type next"), commandList(run),
      run.leaderboard.length ? [html("h3", {}, "Leaderboard"), leaderboard(run)] : null,
      run.exploits.length ? folded(id("exploits"), `Exploits (${run.exploits.length})`, exploitTable(run)) : null,
      run.events.length ? folded(id("events"), `Events (${run.events.length})`, eventTable(run)) : null,
      run.notes.length ? folded(id("notes"), `Notes (${run.notes.length})`, html("ul", {}, run.notes.map((text) => html("li", {}, text)))) : null,
      run.settings.length ? folded(id("settings"), "Settings", pairTable("Settings", run.settings)) : null,
      run.versions.length ? folded(id("versions"), "Versions", pairTable("Versions", run.versions)) : null));
}

function figuresOf(run, view) {
  const crossing = run.exploits.filter((one) => memberOf(run, one.member).kind !== memberOf(run, one.parent).kind).length;
  const founders = new Set(run.lines.filter((line) => !line.best).map((line) => line.parts[0][0])).size;
  return [
    toolbar(run, view),
    figure("Genealogy", `Each lane is a member, its hill the fitness. An edge leads from a member to the one that became its copy: ${run.exploits.length} exploits, ${crossing} between kinds. ` +
      `All that is alive at the end descends from ${founders} of ${run.members.length} starts.`, (host) => {
      genealogy(host, run, view);
      host.append(key(
        [sample((node) => draw(node, "path", { d: "M1 8H21", class: "ancestor" })), "the highlighted line"],
        [sample((node) => draw(node, "circle", { cx: 11, cy: 8, r: 4, class: "birth kept plain" })), "copy with its parent's optimizer state"],
        [sample((node) => draw(node, "circle", { cx: 11, cy: 8, r: 4, class: "birth reset plain" })), "copy whose optimizer was reset"],
        [sample((node) => draw(node, "path", { d: star(11, 8, 8), class: "best" })), "best policy"],
        ...(run.troubles.some((one) => one.what === "quarantine") ? [[sample((node) => cross(draw(node, "path", { class: "quarantine" }), 11, 8, 4)), "quarantine"]] : []),
      ));
    }, view, "wide genealogy"),
    figure("Learning curves", "Fitness of every member. The highlighted line is the ancestry; dots are where it moved to another member.", (host) => learningCurves(host, run, view), view, "wide"),
    figure("Kinds on the highlighted line", "Share of the intervals that it spent in members of each kind.", (host) => lineShares(host, run, view), view),
    run.shares.length ? figure("Kinds of the ancestors over time", "Of all that is alive at the end: how many of the ancestors at a time were of which kind.", (host) => sharesOverTime(host, run), view) : null,
    run.paths.length
      ? html("div", { class: "grid" }, run.paths.map((one) => figure(words(one.name), one.help, (host) => hyperparameterPath(host, run, view, one), view)))
      : html("p", { class: "empty" }, "No hyperparameter has changed yet."),
    run.troubles.length
      ? figure("Events on the time axis", null, (host) => {
        troubles(host, run);
        const present = Object.keys(TROUBLES).filter((what) => run.troubles.some((one) => one.what === what));
        host.append(key(...present.map((what) => [sample((node) => troubleMark(node, what, 11, 8, 4)), TROUBLES[what]])));
      }, view, "wide")
      : html("p", { class: "empty" }, "No numerical event had to be contained, no environment failed, and no member was in quarantine."),
    figure("Seconds by phase", "Wall time of the population, interval by interval.", (host) => { phases(host, run); host.append(phaseTable(run)); }, view, "wide"),
  ];
}

// ---------------------------------------------------------------------------------------------------- several runs

function comparison(shown, runs) {
  const view = views.together ??= { line: 0, hidden: new Set() };
  return html("section", { class: "run" },
    html("header", {}, html("h1", {}, `${runs.length} runs side by side`)),
    html("div", { class: "texts" }, runsTable(runs)),
    shown.map((env) => [
      figure(env.env, "Fitness of the best member: mean over seeds, the range of the seeds as a band, and every seed as a thin line.", (host) => {
        bands(host, env);
        host.append(key(...env.groups.map((group, number) => [swatch(groupClass(number), ""), `${group.label}, ${group.runs.length} ${group.runs.length === 1 ? "seed" : "seeds"}`])));
      }, view, "wide"),
      html("div", { class: "texts" }, html("h3", {}, "Results by seed"), html("p", {}, "Return of the best policy on fresh episodes, or its fitness so far; mean ± standard deviation, and ± standard error of differences."), pairedTable(env), pairedWords(env)),
    ]),
    html("div", { class: "grid" }, runs.filter((run) => run.times.length).map((run) => figure(run.name, [run.mix, known(run.seed) && `seed ${run.seed}`].filter(Boolean).join(" · "),
      (host) => genealogy(host, run, { ...view, hidden: new Set() }, true), view, "genealogy"))));
}

// ------------------------------------------------------------------------------------------------------- the page

function themeButton() {
  const root = document.documentElement;
  const button = html("button", { type: "button", class: "quiet", "aria-label": "Switch between light and dark", click: () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  } }, "light / dark");
  return button;
}

const news = html("span", { class: "news", role: "status" });

function show(shown) {
  const { runs } = shown, several = runs.length > 1, before = document.querySelector("main");
  paint(runs);
  figures = [];
  const open = new Set([...document.querySelectorAll("details[open]")].map((node) => node.dataset.key));
  const main = html("main", {}, several ? comparison(shown.comparison, runs) : null,
    runs.map((run, number) => (several ? html("details", { class: "one-of-many", "data-key": `run-${number}`, toggle: redrawChanged }, html("summary", {}, run.name), section(run, number, true)) : section(run, number, false))));
  for (const node of main.querySelectorAll("details")) node.open = open.has(node.dataset.key);
  if (before) before.replaceWith(main);
  else {
    document.body.append(
      html("div", { class: "masthead" }, html("span", { class: "brand" }, "evolute"), live ? news : null, themeButton()),
      main, html("footer", {}, `Made by evolute ${shown.version}. This page is one file and needs no network.`), tip);
  }
  document.title = `${several ? `${runs.length} runs` : runs[0].env ?? runs[0].name} · evolute`;
  redraw(() => true);
}

function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1)), around = target && target.closest("details");
  if (!around) return;
  around.open = true;
  target.scrollIntoView();
}

let tag = null;
async function ask() {
  try {
    const answer = await fetch(location.pathname, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
    if (answer.status === 200) {
      const first = tag === null, page = new DOMParser().parseFromString(await answer.text(), "text/html");
      tag = answer.headers.get("ETag");
      if (!first || page.getElementById("data").textContent !== document.getElementById("data").textContent) show(JSON.parse(page.getElementById("data").textContent));
    }
    news.textContent = answer.ok || answer.status === 304 ? `live, looked at ${new Date().toLocaleTimeString("en-GB")}` : "the run folder is gone";
  } catch {
    news.textContent = "nobody serves this page any more";
  }
  setTimeout(ask, 2000);
}

show(JSON.parse(document.getElementById("data").textContent));
openTarget();
addEventListener("hashchange", openTarget);
addEventListener("resize", redrawChanged);
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
addEventListener("scroll", hideTip, { passive: true });
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const node of opened) node.open = true;
  redrawChanged();
});
addEventListener("afterprint", () => { for (const node of opened) node.open = false; });
if (live) ask();
