// The page polls the broker, and shows what it is sent. Names and bodies become text nodes: nothing
// that comes from a client is parsed as HTML.
"use strict";

const MINUTE = 60;
// The time between two polls, in milliseconds; and after a failed one.
const POLL = 1000;
const RETRY = 2000;
const SVG = "http://www.w3.org/2000/svg";
const SERIES = [["published", "Published"], ["delivered", "Delivered"]];

const byId = (id) => document.getElementById(id);

// Creates an element. Children that are strings become text.
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const whole = new Intl.NumberFormat("en");
const count = (number) => whole.format(number);
const rate = (number) => (number > 0 && number < 10 ? number.toFixed(1) : count(Math.round(number)));

function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${unit === 0 || number >= 100 ? Math.round(number) : number.toFixed(1)} ${units[unit]}`;
}

function duration(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => seconds >= size);
  if (first < 0) return "0 s";
  const shown = [];
  for (const [size, name] of parts.slice(first, first + 2)) {
    const number = Math.floor(seconds / size);
    seconds -= number * size;
    if (number > 0) shown.push(`${number} ${name}`);
  }
  return shown.join(" ");
}

// The next number of 1, 2 or 5 times a power of ten, for the top of an axis.
function ceiling(number) {
  if (number <= 10) return 10;
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 5, 10].map((factor) => factor * power).find((top) => top >= number);
}

// The points of a line, as SVG takes them. A point is [age in seconds, value].
function points(values, top, box) {
  return values
    .filter(([age]) => age <= MINUTE)
    .map(([age, value]) => {
      const x = box.left + (1 - age / MINUTE) * (box.right - box.left);
      const y = box.bottom - (value / top) * (box.bottom - box.top);
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    })
    .join(" ");
}

// ---- Polling

const state = { tab: "queues", filter: "", after: null, overview: null, seen: null, failed: false };

class Refused extends Error {}

async function get(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(8000) });
  if (response.status === 404) throw new Refused("It does not exist any more.");
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  return response.json();
}

let timer = 0;
let polling = false;

async function poll() {
  clearTimeout(timer);
  if (polling) return;
  polling = true;
  const start = performance.now();
  const asked = listPath();
  try {
    const [overview, list] = await Promise.all([get("/api/overview"), get(asked)]);
    state.overview = overview;
    state.seen = Date.now();
    state.failed = false;
    remember(overview, list);
    showState();
    showOverview(overview);
    if (asked === listPath()) showList(list);
  } catch (error) {
    state.failed = true;
    showState();
  }
  polling = false;
  // A broker that answers slowly, because it has much to show, is asked less often.
  const pause = state.failed ? RETRY : Math.max(POLL, 9 * (performance.now() - start));
  if (asked !== listPath()) poll();
  else if (!document.hidden) timer = setTimeout(poll, pause);
}

function listPath() {
  const query = new URLSearchParams();
  if (state.filter && state.tab !== "connections") query.set("contains", state.filter);
  for (const [name, value] of Object.entries(state.after ?? {})) query.set(name, value);
  return `/api/${state.tab}${query.size ? `?${query}` : ""}`;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) poll();
});

// ---- Rates of single queues and connections, as counted while the page is open

const histories = new Map();

function remember(overview, list) {
  const now = performance.now() / 1000;
  const rows = list[state.tab];
  if (!rows) return;
  for (const row of rows) {
    const counts = row.messages ?? row;
    if (counts.published === undefined) continue;
    const key = keyOf(state.tab, row);
    let history = histories.get(key);
    if (!history) histories.set(key, (history = []));
    // With lower counts than before it is another queue of that name.
    if (history.length && history.at(-1).published > counts.published) history.length = 0;
    history.push({ time: now, published: counts.published, delivered: counts.delivered });
    while (history.length && history[0].time < now - MINUTE - 5) history.shift();
  }
  for (const [key, history] of histories) {
    if (history.at(-1).time < now - MINUTE) histories.delete(key);
  }
}

function ratesOf(key, name) {
  const history = histories.get(key) ?? [];
  const now = performance.now() / 1000;
  return history.slice(1).map((sample, index) => {
    const before = history[index];
    return [now - sample.time, (sample[name] - before[name]) / (sample.time - before.time)];
  });
}

const latest = (rates) => (rates.length ? rates.at(-1)[1] : 0);

function keyOf(tab, row) {
  return JSON.stringify([tab, row.vhost, tab === "connections" ? row.number : row.name]);
}

// ---- The state of the page

function showState() {
  const body = document.body;
  body.classList.toggle("stale", state.failed);
  const label = byId("state");
  label.className = state.failed ? "lost" : "live";
  const up = state.overview && duration(state.overview.uptime);
  byId("state-text").textContent = state.failed ? "Unreachable" : `Live, up ${up}`;
  const banner = byId("unreachable");
  banner.hidden = !state.failed;
  if (state.failed) {
    const ago = state.seen ? duration(Math.round((Date.now() - state.seen) / 1000)) : null;
    const old = ago ? ` The numbers below are ${ago} old.` : "";
    const text = `The broker cannot be reached: it has stopped, or its page has. Trying again every ${RETRY / 1000} seconds.${old}`;
    if (banner.textContent !== text) banner.textContent = text;
  }
}

function showOverview(overview) {
  byId("version").textContent = overview.version;
  byId("listening").replaceChildren(...overview.listening.map((address) => el("code", {}, address)));
  const { messages, memory, rates } = overview;
  const last = rates.at(-1);
  const used = Math.min(1, memory.used / memory.limit);
  const bar = svg("svg", { preserveAspectRatio: "none", viewBox: "0 0 100 1", "aria-hidden": "true" },
    svg("rect", { width: (used * 100).toFixed(2), height: 1 }));
  const tiles = [
    ["Ready", count(messages.ready)],
    ["Unacked", count(messages.unacked)],
    ["Published", rate(last?.published ?? 0), "/s"],
    ["Delivered", rate(last?.delivered ?? 0), "/s"],
    ["Acknowledged", rate(last?.acked ?? 0), "/s"],
    ["Queues", count(overview.queues)],
    ["Consumers", count(overview.consumers)],
    ["Connections", count(overview.connections)],
    [memory.alarm ? "Memory alarm" : "Memory", bytes(memory.used), ` of ${bytes(memory.limit)}`],
  ].map(([name, value, unit]) => el("div", {}, el("dt", {}, name), el("dd", {}, value, el("small", {}, unit ?? ""))));
  const memoryTile = tiles.at(-1);
  memoryTile.className = memory.alarm ? "wide alarm" : "wide";
  memoryTile.append(el("dd", { class: "meter" }, bar));
  byId("tiles").replaceChildren(...tiles);
  const alarm = byId("alarm");
  alarm.hidden = !memory.alarm;
  const text = "Memory alarm: connections that publish are blocked until messages are consumed.";
  if (memory.alarm && alarm.textContent !== text) alarm.textContent = text;
  showPlot(rates);
}

// ---- The plot

let pointer = null;

function showPlot(rates) {
  const host = byId("plot");
  const width = Math.max(280, host.clientWidth);
  const height = 170;
  const box = { left: 46, right: width - 8, top: 10, bottom: height - 24 };
  const top = ceiling(Math.max(...rates.flatMap((it) => [it.published, it.delivered]), 0));
  const shown = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const part of [0, 0.5, 1]) {
    const y = box.bottom - part * (box.bottom - box.top);
    shown.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y, y2: y }));
    shown.append(svg("text", { x: box.left - 8, y: y + 4, "text-anchor": "end" }, count(part * top)));
  }
  for (const age of width < 500 ? [60, 30, 0] : [60, 45, 30, 15, 0]) {
    const x = box.left + (1 - age / MINUTE) * (box.right - box.left);
    const anchor = age === 0 ? "end" : age === 60 ? "start" : "middle";
    shown.append(svg("text", { x, y: height - 6, "text-anchor": anchor }, age === 0 ? "now" : `${age} s ago`));
  }
  for (const [name] of SERIES) {
    const values = rates.map((it) => [it.age, it[name]]);
    shown.append(svg("polyline", { class: `line ${name}`, points: points(values, top, box) }));
  }
  let at = rates.at(-1);
  if (pointer !== null && rates.length) {
    const age = (1 - (pointer - box.left) / (box.right - box.left)) * MINUTE;
    at = rates.reduce((best, it) => (Math.abs(it.age - age) < Math.abs(best.age - age) ? it : best));
    const x = box.left + (1 - at.age / MINUTE) * (box.right - box.left);
    shown.append(svg("line", { class: "cursor", x1: x, x2: x, y1: box.top, y2: box.bottom }));
  }
  const now = SERIES.map(([name, title]) => `${title.toLowerCase()} ${rate(at?.[name] ?? 0)}`);
  shown.setAttribute("aria-label", `Messages per second over the last minute; ${now.join(", ")}`);
  shown.addEventListener("pointermove", (event) => {
    pointer = event.clientX - shown.getBoundingClientRect().left;
    showPlot(rates);
  });
  shown.addEventListener("pointerleave", () => {
    pointer = null;
    showPlot(rates);
  });
  host.replaceChildren(shown);
  const when = pointer !== null && at ? el("li", {}, `${Math.round(at.age)} s ago`) : null;
  const items = SERIES.map(([name, title]) =>
    el("li", {}, el("span", { class: name }), `${title} `, el("b", {}, rate(at?.[name] ?? 0))));
  byId("legend").replaceChildren(...[when, ...items].filter(Boolean));
}

function spark(key) {
  const box = { left: 1, right: 119, top: 3, bottom: 24 };
  const series = SERIES.map(([name]) => [name, ratesOf(key, name)]);
  const top = Math.max(1, ...series.flatMap(([, values]) => values.map(([, value]) => value)));
  const lines = series.map(([name, values]) =>
    svg("polyline", { class: `line ${name}`, points: points(values, top, box), "vector-effect": "non-scaling-stroke" }));
  const label = `Rates over the last minute, at most ${rate(top)} per second`;
  return svg("svg", { class: "spark", viewBox: "0 0 120 26", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("line", { class: "grid", x1: 0, x2: 120, y1: 25.5, y2: 25.5 }), ...lines);
}

// ---- The lists

function badges(...texts) {
  return texts.filter(Boolean).flatMap((text) => [" ", el("span", { class: "badge" }, text)]);
}

function nameCell(row, shownName, ...marks) {
  const parts = [shownName, ...badges(...marks)];
  if (row.vhost && row.vhost !== "/") parts.push(el("span", { class: "sub" }, `virtual host ${row.vhost}`));
  return parts;
}

// A column: its title, its class, the value that it sorts by, and the content of a cell.
const LISTS = {
  queues: {
    title: "Queues",
    columns: [
      ["Name", "text name", (row) => row.name, (row) =>
        nameCell(row, row.name, row.durable && "durable", row.auto_delete && "auto-delete", row.owner && "exclusive")],
      ["Ready", "", (row) => row.ready, (row) => [count(row.ready)]],
      ["Unacked", "", (row) => row.unacked, (row) => [count(row.unacked)]],
      ["Consumers", "", (row) => row.consumers, (row) => [count(row.consumers)]],
      ["In/s", "", (row, key) => latest(ratesOf(key, "published")), (row, key) => [rate(latest(ratesOf(key, "published")))]],
      ["Out/s", "", (row, key) => latest(ratesOf(key, "delivered")), (row, key) => [rate(latest(ratesOf(key, "delivered")))]],
      ["Last minute", "text plot", null, (row, key) => [spark(key)]],
      ["", "text act", null, (row) =>
        [el("button", { type: "button", "aria-label": `Messages of ${row.name}`, onclick: () => openMessages(row) }, "Messages")]],
    ],
    empty: () => ["No queues yet", "Clients that connect to ", ...addresses(), " declare them."],
  },
  connections: {
    title: "Connections",
    columns: [
      ["Client", "text name", (row) => row.number, (row) => {
        const marks = row.blocked ? [" ", el("span", { class: "badge bad" }, "blocked")] : [];
        const name = row.name || row.peer || `connection ${row.number}`;
        const more = row.name && row.peer ? [el("span", { class: "sub" }, row.peer)] : [];
        return [name, ...marks, ...more];
      }],
      ["User", "text", (row) => row.user, (row) => [row.user || "–"]],
      ["Virtual host", "text wrap", (row) => row.vhost, (row) => [row.vhost || "–"]],
      ["Product", "text wrap", (row) => row.product ?? "", (row) =>
        [[row.product, row.version].filter(Boolean).join(" ") || "–", row.platform ? el("span", { class: "sub" }, row.platform) : ""]],
      ["Channels", "", (row) => row.channels, (row) => [count(row.channels)]],
      ["Unacked", "", (row) => row.unacked, (row) => [count(row.unacked)]],
      ["Received", "", (row) => row.received_bytes, (row) => [bytes(row.received_bytes)]],
      ["Sent", "", (row) => row.sent_bytes, (row) => [bytes(row.sent_bytes)]],
      ["Last minute", "text plot", null, (row, key) => [spark(key)]],
    ],
    empty: () => ["No connections", "Clients connect to ", ...addresses(), "."],
  },
  exchanges: {
    title: "Exchanges",
    columns: [
      ["Name", "text name", (row) => row.name, (row) =>
        nameCell(row, row.name || "(default)", row.durable && "durable", row.auto_delete && "auto-delete", row.internal && "internal")],
      ["Type", "text", (row) => row.type, (row) => [row.type]],
      ["Bindings", "", (row) => row.bindings, (row) => [count(row.bindings)]],
      ["", "text act", null, (row) =>
        row.bindings ? [el("button", { type: "button", "aria-label": `Bindings of ${row.name}`, onclick: () => openBindings(row) }, "Bindings")] : []],
    ],
    empty: () => ["No exchanges", ""],
  },
};

function addresses() {
  const shown = (state.overview?.listening ?? []).flatMap((it) => [" or ", el("code", {}, it)]);
  return shown.slice(1);
}

let rows = new Map();
const sorting = { queues: null, connections: null, exchanges: null };

function showHead() {
  const list = LISTS[state.tab];
  byId("caption").textContent = list.title;
  const heads = list.columns.map(([title, kind, value], index) => {
    const sorted = sorting[state.tab]?.index === index && sorting[state.tab].direction;
    const label = !value ? title : el("button", { type: "button", onclick: () => sortBy(index) }, title);
    const hint = title || el("span", { class: "unseen" }, "Actions");
    return el("th", { scope: "col", class: kind.replace("name", ""), "aria-sort": sorted || null }, value ? label : hint);
  });
  byId("table").tHead.replaceChildren(el("tr", {}, ...heads));
}

function sortBy(index) {
  const before = sorting[state.tab];
  const text = LISTS[state.tab].columns[index][1].startsWith("text");
  const [first, second] = text ? ["ascending", "descending"] : ["descending", "ascending"];
  const direction = before?.index === index && before.direction === first ? second : first;
  sorting[state.tab] = { index, direction };
  showHead();
  byId("table").tHead.querySelectorAll("th")[index].querySelector("button").focus();
  if (shownList) showList(shownList);
}

let shownList = null;

function showList(list) {
  shownList = list;
  const { columns, title, empty } = LISTS[state.tab];
  let items = list[state.tab].map((row) => [keyOf(state.tab, row), row]);
  if (state.tab === "connections" && state.filter) {
    const wanted = state.filter.toLowerCase();
    const text = (row) => [row.name, row.peer, row.user, row.product].join(" ").toLowerCase();
    items = items.filter(([, row]) => text(row).includes(wanted));
  }
  const order = sorting[state.tab];
  if (order) {
    const value = columns[order.index][2];
    const sign = order.direction === "ascending" ? 1 : -1;
    const valued = items.map(([key, row]) => [value(row, key), key, row]);
    valued.sort(([a], [b]) => sign * (typeof a === "string" ? a.localeCompare(b) : a - b));
    items = valued.map(([, key, row]) => [key, row]);
  }
  const body = byId("table").tBodies[0];
  const before = rows;
  rows = new Map();
  items.forEach(([key, row], index) => {
    const shown = before.get(key) ?? createRow(columns);
    updateRow(shown, columns, row, key);
    rows.set(key, shown);
    if (body.children[index] !== shown.element) body.insertBefore(shown.element, body.children[index] ?? null);
  });
  while (body.children.length > items.length) body.lastElementChild.remove();
  byId("table").hidden = items.length === 0;
  const none = byId("empty");
  none.hidden = items.length > 0;
  if (items.length === 0) {
    const [head, ...text] = state.filter ? ["Nothing found", `No ${title.toLowerCase()} with that name.`] : empty();
    none.replaceChildren(el("strong", {}, head), ...text);
  }
  showMore(list, title.toLowerCase());
}

function createRow(columns) {
  const cells = columns.map(([title, kind]) => el("td", { class: kind, "data-label": title || null }));
  return { element: el("tr", {}, ...cells), cells, texts: [] };
}

// Updates the cells that have changed: a button keeps the focus.
function updateRow(shown, columns, row, key) {
  columns.forEach(([, kind, value, content], index) => {
    if (kind.includes("act") && shown.texts[index] === String(row.bindings)) return;
    const children = content(row, key);
    const plain = children.every((child) => typeof child === "string");
    const text = kind.includes("act") ? String(row.bindings) : plain ? children.join("") : null;
    if (text !== null && shown.texts[index] === text) return;
    shown.texts[index] = text;
    shown.cells[index].replaceChildren(...children);
  });
}

function showMore(list, title) {
  const more = byId("more");
  more.hidden = !list.more && !state.after;
  if (more.hidden) return;
  const shown = list[state.tab];
  const text = `${count(shown.length)} of ${count(list.total)} ${title} are shown, by ${state.tab === "connections" ? "age" : "name"}.`;
  const first = state.after && el("button", { type: "button", onclick: () => go(null) }, "First");
  const next = list.more && el("button", { type: "button", onclick: () => go(placeAfter(shown.at(-1))) }, "Next");
  more.replaceChildren(text, ...[first, next].filter(Boolean));
}

function placeAfter(row) {
  return state.tab === "connections" ? { after: row.number } : { after_vhost: row.vhost, after: row.name };
}

function go(after) {
  state.after = after;
  poll();
}

function selectTab(tab) {
  state.tab = tab;
  state.after = null;
  rows = new Map();
  shownList = null;
  byId("table").tBodies[0].replaceChildren();
  byId("empty").hidden = true;
  byId("more").hidden = true;
  for (const button of byId("tabs").children) {
    const selected = button.id === `tab-${tab}`;
    button.setAttribute("aria-selected", String(selected));
    button.tabIndex = selected ? 0 : -1;
  }
  byId("panel").setAttribute("aria-labelledby", `tab-${tab}`);
  showHead();
  poll();
}

// ---- The dialog

const dialog = byId("dialog");

function openDialog(title, actions, note) {
  byId("dialog-title").textContent = title;
  byId("dialog-note").textContent = note;
  byId("dialog-actions").replaceChildren(...actions, el("button", { type: "button", onclick: () => dialog.close() }, "Close"));
  byId("dialog-body").replaceChildren();
  if (!dialog.open) dialog.showModal();
}

dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

async function fill(path, show) {
  const body = byId("dialog-body");
  try {
    body.replaceChildren(...show(await get(path)));
  } catch (error) {
    const text = error instanceof Refused ? error.message : "The broker cannot be reached.";
    body.replaceChildren(el("p", { class: "empty", role: "alert" }, text));
  }
}

function openMessages(row) {
  const path = `/api/queues/${encodeURIComponent(row.vhost)}/${encodeURIComponent(row.name)}/messages`;
  const number = el("select", { "aria-label": "Number of messages" },
    ...[10, 50, 100].map((it) => el("option", { value: it }, `First ${it}`)));
  const load = () => fill(`${path}?count=${number.value}`, showMessages);
  number.addEventListener("change", load);
  const again = el("button", { type: "button", onclick: load }, "Refresh");
  openDialog(`Messages of ${row.name}`, [number, again],
    "The ready messages from the front of the queue. Looking at them changes nothing: they stay in the queue and are not marked as redelivered.");
  load();
}

function showMessages({ messages }) {
  if (!messages.length) return [el("p", { class: "empty" }, el("strong", {}, "No ready messages"))];
  return messages.map((message, index) => {
    const from = message.exchange ? `exchange ${message.exchange}` : "default exchange";
    const fields = Object.entries(message.properties ?? {}).flatMap(([name, value]) =>
      [el("dt", {}, name), el("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))]);
    const cut = message.body_is_cut ? ", cut" : "";
    const encoding = message.body_encoding === "hex" ? ", not text: in hexadecimal" : "";
    return el("article", { class: "message" },
      el("h3", {}, `${index + 1}. ${from}, routing key ${message.routing_key || "(empty)"}`,
        ...badges(bytes(message.size) + cut + encoding, message.redelivered && "redelivered")),
      el("pre", { tabindex: 0, "aria-label": "Body" }, message.body),
      fields.length ? el("dl", {}, ...fields) : null);
  });
}

function openBindings(row) {
  const name = row.name || "(default)";
  openDialog(`Bindings of ${name}`, [], `A ${row.type} exchange.`);
  const path = `/api/exchanges/${encodeURIComponent(row.vhost)}/${encodeURIComponent(row.name)}/bindings`;
  fill(path, ({ bindings, more, limit }) => {
    const lines = bindings.map((it) => {
      const cells = [["Destination", it.destination], ["Kind", it.destination_type], ["Routing key", it.routing_key || "–"],
        ["Arguments", Object.keys(it.arguments).length ? JSON.stringify(it.arguments) : "–"]];
      return el("tr", {}, ...cells.map(([title, text], index) =>
        el("td", { class: index === 0 ? "text name" : "text wrap", "data-label": title }, text)));
    });
    const heads = ["Destination", "Kind", "Routing key", "Arguments"];
    const table = el("table", {},
      el("thead", {}, el("tr", {}, ...heads.map((it) => el("th", { scope: "col", class: "text" }, it)))),
      el("tbody", {}, ...lines));
    return more ? [table, el("p", { class: "note" }, `The first ${limit} bindings.`)] : [table];
  });
}

// ---- The start

byId("tabs").append(...Object.entries(LISTS).map(([tab, { title }]) =>
  el("button", { type: "button", role: "tab", id: `tab-${tab}`, "aria-controls": "panel", onclick: () => selectTab(tab) }, title)));
byId("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const tabs = [...byId("tabs").children];
  const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
  next.focus();
  next.click();
});
byId("filter").addEventListener("input", (event) => {
  state.filter = event.target.value.trim();
  state.after = null;
  poll();
});
addEventListener("resize", () => state.overview && showPlot(state.overview.rates));
selectTab("queues");
