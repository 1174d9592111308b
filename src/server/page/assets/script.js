// Live updates and the search in the browser. The page is complete without this script.
"use strict";

const list = document.getElementById("list");
const form = document.getElementById("search");
const byId = (id) => document.getElementById(id);
/// All instances are in the page, so that it can be searched and updated here.
let isWhole = list.dataset.whole === "true";
let position = list.dataset.position;

// --- Rows: texts for the search, and times.

/// What the script knows about a row: its text, and the times of its heartbeat and its expiry.
const known = new WeakMap();

function rowOf(row) {
  let facts = known.get(row);
  if (!facts) {
    const { text, status, beat, left } = row.dataset;
    facts = { text: text.toLowerCase(), status };
    setFacts(facts, beat === undefined ? null : Number(beat), Number(left));
    known.set(row, facts);
  }
  return facts;
}

/// Stores the milliseconds since the last heartbeat, or null, and those until the lease expires.
function setFacts(facts, beat, left) {
  const now = performance.now();
  facts.beatAt = beat === null ? null : now - beat;
  facts.endsAt = now + left;
  // Later heartbeats are not known here, so only the server says that a lease is expired.
  facts.isExpired = left < 0;
}

function span(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${minutes} min ${seconds % 60} s`;
  if (seconds < 86400) return `${hours} h ${minutes % 60} min`;
  return `${days} d ${hours % 24} h`;
}

function left(ms, kept) {
  if (ms >= 0) return span(ms);
  return kept ? `expired ${span(-ms)} ago, kept` : `expired ${span(-ms)} ago`;
}

function setText(cell, text) {
  if (cell.textContent !== text) cell.textContent = text;
}

/// Applications in view. Only their times are shown anew each second.
const inView = new Set();
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) inView.add(entry.target);
    else inView.delete(entry.target);
  }
}, { rootMargin: "200px" });

function showTimes() {
  const now = performance.now();
  const [top, bottom] = [-200, innerHeight + 200];
  for (const app of inView) {
    for (const row of app.rows_ ?? (app.rows_ = [...app.querySelectorAll("tbody tr")])) {
      if (row.hidden) continue;
      if (app.rows_.length > 100) {
        const box = row.getBoundingClientRect();
        if (box.bottom < top) continue;
        if (box.top > bottom) break;
      }
      const facts = rowOf(row);
      if (facts.beatAt !== null) setText(row.cells[5], span(now - facts.beatAt));
      const ms = facts.endsAt - now;
      setText(row.cells[6], left(facts.isExpired ? ms : Math.max(0, ms), app.hasAttribute("data-kept")));
    }
  }
}

// --- Search.

let filtered = "";

function filter() {
  performance.mark("filter");
  const words = form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
  const status = form.elements.status.value;
  let shown = 0;
  for (const app of list.children) {
    let here = 0;
    for (const row of app.querySelector("tbody").rows) {
      const facts = rowOf(row);
      const matches = (!status || facts.status === status) && words.every((word) => facts.text.includes(word));
      if (row.hidden === matches) row.hidden = !matches;
      if (matches) here += 1;
    }
    if (app.hidden === here > 0) app.hidden = here === 0;
    shown += here;
  }
  filtered = words.length || status ? `${shown} of them match the search.` : "";
  setText(byId("shown"), filtered);
  const empty = byId("empty");
  empty.hidden = shown > 0;
  setText(empty, filtered ? "No instance matches the search." : "No instances available");
  performance.measure("filter", "filter");
}

function search() {
  filter();
  const query = new URLSearchParams();
  if (form.elements.q.value) query.set("q", form.elements.q.value);
  if (form.elements.status.value) query.set("status", form.elements.status.value);
  const text = query.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}

/// Replaces the list by the whole one. A page that was opened with a search has only its results.
async function load() {
  const response = await fetch("./", { headers: { Accept: "text/html" }, cache: "no-store" });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.getElementById("list");
  position = fresh.dataset.position;
  isWhole = fresh.dataset.whole === "true";
  for (const id of ["status", "replicas", "totals"]) byId(id).replaceChildren(...page.getElementById(id).childNodes);
  if (!isWhole) return false;
  observer.disconnect();
  inView.clear();
  list.replaceChildren(...fresh.children);
  for (const app of list.children) observer.observe(app);
  filter();
  return true;
}

// --- Changes.

function element(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

function find(parent, key) {
  for (const child of parent.children) if (child.dataset.key === key) return child;
  return null;
}

function place(parent, child, after) {
  const old = find(parent, child.dataset.key);
  // A focused link keeps its focus.
  const focused = old?.contains(document.activeElement);
  old?.remove();
  const before = after && find(parent, after);
  if (before) before.after(child);
  else if (after) parent.append(child);
  else parent.prepend(child);
  if (focused) child.querySelector("a")?.focus();
}

/// Shows the applications whose expired leases are kept.
function showKept({ apps, marked }) {
  const names = apps === true ? null : new Set(apps);
  for (const app of list.children) {
    const kept = !names || names.has(app.dataset.key);
    app.toggleAttribute("data-kept", kept);
    app.querySelector("h3 .kept").hidden = !(kept && marked);
  }
}

function apply(data) {
  for (const id of ["status", "replicas"]) {
    const block = byId(id);
    if (data[id] && !block.contains(document.activeElement)) block.innerHTML = data[id];
  }
  if (data.totals) byId("totals").textContent = data.totals;
  if (!isWhole) return;
  for (const change of data.apps ?? []) {
    const app = find(list, change.key);
    if (change.gone) {
      if (app) inView.delete(app);
      app?.remove();
    } else if (change.html) {
      const fresh = element(change.html);
      place(list, fresh, change.after);
      observer.observe(fresh);
    } else if (app) {
      app.querySelector("h3").replaceWith(element(change.heading));
      app.rows_ = undefined;
      const body = app.querySelector("tbody");
      for (const row of change.rows) {
        if (row.gone) find(body, row.key)?.remove();
        else {
          const fresh = element(row.html);
          fresh.className = "changed";
          place(body, fresh, row.after);
        }
      }
    }
  }
  if (data.apps?.length) filter();
  if (data.kept) showKept(data.kept);
  if (data.beats) {
    for (const app of list.children) {
      const beats = data.beats[app.dataset.key];
      const rows = app.querySelector("tbody").rows;
      // Otherwise the change that explains the difference is on its way.
      if (beats?.length !== 2 * rows.length) continue;
      for (let index = 0; index < rows.length; index += 1) {
        const [beat, left] = beats.slice(2 * index, 2 * index + 2);
        if (left !== null) setFacts(rowOf(rows[index]), beat === null ? null : 1000 * beat, 1000 * left);
      }
    }
  }
}

// --- Connection. It is closed while the page is not visible.

let source = null;
let failures = 0;
let timer = 0;

function showState(text, lost) {
  const live = byId("live");
  setText(live, text);
  live.className = lost ? "lost" : "";
}

function later(ms, action) {
  clearTimeout(timer);
  timer = setTimeout(action, ms);
}

function disconnect() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

function retry() {
  failures += 1;
  disconnect();
  showState("No live updates, trying again", true);
  later(Math.min(30000, 500 * 2 ** failures) * (0.5 + Math.random()), connect);
}

function reload(within) {
  disconnect();
  later(within * Math.random(), async () => {
    try {
      const hadAll = isWhole;
      const hasAll = await load();
      if (hadAll && !hasAll) location.reload();
      else connect();
    } catch {
      retry();
    }
  });
}

function connect() {
  disconnect();
  if (document.hidden) return;
  source = new EventSource(`page/live?since=${encodeURIComponent(position)}`);
  source.addEventListener("open", () => {
    failures = 0;
    showState("Live");
  });
  source.addEventListener("change", (event) => {
    position = event.lastEventId;
    const data = JSON.parse(event.data);
    apply(data);
    if (data.reload && isWhole) reload(data.reload);
    else if (data.reload) showState("The list has changed since it was loaded");
  });
  source.addEventListener("reload", (event) => {
    // A page with a part of the list is not updated, so it follows from here.
    reload(JSON.parse(event.data).reload);
  });
  source.addEventListener("end", (event) => {
    disconnect();
    later(JSON.parse(event.data).reload * Math.random(), connect);
  });
  source.onerror = retry;
}

document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));

async function start() {
  if (!isWhole && location.search) {
    try {
      await load();
    } catch {
      // The results of the server stay.
    }
  }
  if (isWhole) {
    form.elements.q.addEventListener("input", search);
    form.elements.status.addEventListener("change", search);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      search();
    });
    for (const app of list.children) observer.observe(app);
    if (form.elements.q.value || form.elements.status.value) filter();
    setInterval(showTimes, 1000);
  }
  connect();
}

start();
