// Keeps the page up to date: asks for its live parts every two seconds while it is looked at, draws the chart, puts
// times into the reader's zone, and says what went wrong. Everything else is the server's and htmx's.
"use strict";

const EVERY_MS = 2000;
const SLOWEST_MS = 15000;
const live = document.getElementById("live");
const said = document.getElementById("said");

document.documentElement.classList.add("scripted");

// --- Times ---
const today = () => new Date().toDateString();
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const minute = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const when = new Date(time.dateTime);
    if (Number.isNaN(when.getTime())) continue;
    time.textContent = (when.toDateString() === today() ? clock : date).format(when);
    time.title = time.dateTime;
  }
}

// --- What stays at the top of the window, so that what has focus or is linked to is not below it ---
const header = document.querySelector(".top");

new ResizeObserver(() => {
  document.documentElement.style.setProperty("--header", `${header.offsetHeight}px`);
}).observe(header);
new ResizeObserver(() => {
  document.documentElement.style.setProperty("--said", `${said.offsetHeight}px`);
  scrollable(said);
  uncover(document.activeElement);
}).observe(said, { box: "border-box" });

function uncover(focused) {
  if (said.offsetHeight === 0 || focused === document.body || header.contains(focused)) return;
  if (focused.contains(said) || said.contains(focused)) return;
  const { top, bottom } = focused.getBoundingClientRect();
  if (bottom > 0 && top < said.getBoundingClientRect().bottom) focused.scrollIntoView({ block: "nearest" });
}

// What scrolls in itself can be reached by the keyboard, also where the browser does not see to it.
function scrollable(node) {
  if (node.scrollHeight > node.clientHeight + 1) node.tabIndex = 0;
  else node.removeAttribute("tabindex");
}

function longHits() {
  for (const text of document.querySelectorAll(".hits .text")) {
    scrollable(text);
    if (text.tabIndex !== 0) continue;
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", "Text of this hit");
  }
}

// --- The chart ---
const SERIES = [
  { name: "read", label: "read", color: "--read", dash: [] },
  { name: "stored", label: "stored", color: "--stored", dash: [7, 4] },
  { name: "embedded", label: "embedded", color: "--embedded", dash: [2, 3] },
];
let chart = null;
let drawn = null;

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function drawChart(again = false) {
  const place = document.getElementById("chart");
  const source = document.getElementById("history");
  if (!place || !source || !window.uPlot) return;
  if (source.dataset.history === drawn && !again) return;
  drawn = source.dataset.history;
  const history = JSON.parse(drawn || "{}");
  if (!history.times) return;
  const values = [history.times, ...SERIES.map((series) => history[series.name])];
  if (chart && !again) {
    chart.setData(values);
    return;
  }
  if (chart) chart.destroy();
  const line = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  chart = new uPlot(
    {
      width: place.clientWidth,
      height: 220,
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_chart, _low, high) => [0, Math.max(1, high * 1.1)] } },
      axes: [
        { ...line, space: 64, values: (_chart, ticks) => ticks.map((tick) => minute.format(new Date(tick * 1000))) },
        { ...line, size: 56, values: (_chart, ticks) => ticks.map((tick) => tick.toLocaleString()) },
      ],
      series: [
        { label: "at", value: (_chart, at) => (at === null ? "–" : clock.format(new Date(at * 1000))) },
        ...SERIES.map((series) => ({
          label: series.label,
          stroke: color(series.color),
          width: 2,
          dash: series.dash,
          points: { show: false },
          value: (_chart, rate) => (rate === null ? "–" : `${rate.toLocaleString()}/s`),
        })),
      ],
    },
    values,
    place,
  );
}

if (window.uPlot) {
  const place = document.getElementById("chart");
  if (place) {
    new ResizeObserver(() => chart && chart.setSize({ width: place.clientWidth, height: 220 })).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawChart(true));
  }
}

// --- Asking again and again, not faster than answers come, and not for a page that nobody sees ---
let paused = false;
let waiting = false;
let pause = EVERY_MS;

function tick() {
  if (live && !paused && !waiting && !document.hidden) {
    waiting = true;
    htmx.trigger(live, "tick");
  }
  setTimeout(tick, pause);
}

const button = document.getElementById("pause");
if (button) {
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
  });
}
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && live && !paused && !waiting) {
    waiting = true;
    htmx.trigger(live, "tick");
  }
});

let revision = null;
let stale = false; // a list could not be made anew, and is asked for again from then on, ever more seldom
let staleFrom = 0;
let stalePause = 0;

function settled() {
  localTimes(document);
  drawChart();
  longHits();
  const health = document.getElementById("health");
  if (!health) return;
  if (revision !== null && health.dataset.revision !== revision) htmx.trigger(document.body, "lists-changed");
  revision = health.dataset.revision;
}

document.body.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.elt !== live) return;
  waiting = false;
  pause = event.detail.successful ? EVERY_MS : slower(pause);
  if (!event.detail.successful && event.detail.xhr.status !== 401) unreachable(event.detail.xhr.status);
  if (event.detail.successful && stale && Date.now() >= staleFrom && !document.querySelector("#problems .problem")) {
    stale = false;
    htmx.trigger(document.body, "lists-changed");
  }
});
document.body.addEventListener("htmx:oobAfterSwap", () => queueMicrotask(settled));
document.body.addEventListener("htmx:afterSettle", settled);

function unreachable(status) {
  const health = document.getElementById("health");
  if (!health) return;
  const words = status ? `This page's server answers ${status}` : "This page's server does not answer";
  health.className = "health bad";
  if (health.lastChild.textContent !== words) health.lastChild.textContent = words;
}

// A failed request says why: a search where its hits would stand, which are those of another query by now; all else
// where the buttons' own words would stand. What came of a button is asked for again (action.html), whatever happens.
const UNSURE = "it may still be done. Look at the list before you try again.";
const UNSURE_YET = `No answer yet; ${UNSURE}`;
document.body.addEventListener("htmx:responseError", (event) => {
  const { xhr, elt, requestConfig } = event.detail;
  if (xhr.status === 401) location.reload(); // the session is over: the page asks for the key
  else failed(elt, requestConfig.verb, detailOf(xhr, requestConfig.verb !== "get"), xhr.status >= 500);
});
for (const lost of ["htmx:sendError", "htmx:timeout"]) {
  document.body.addEventListener(lost, (event) => {
    const { elt, requestConfig } = event.detail;
    const text = requestConfig.verb === "get" ? "The server does not answer; try again in a moment." : UNSURE_YET;
    failed(elt, requestConfig.verb, text, true);
  });
}

function failed(elt, verb, text, passes) {
  if (elt === live || said.contains(elt)) return;
  if (elt.matches(LISTS) && passes) {
    stale = true;
    stalePause = slower(stalePause);
    staleFrom = Date.now() + stalePause;
  }
  if (!elt.matches(".search form")) {
    tell(text, verb === "get" ? elt : null);
    return;
  }
  const line = document.createElement("p");
  line.className = "problem";
  line.textContent = text;
  document.getElementById("found").textContent = "Not available right now.";
  document.getElementById("results").replaceChildren(line);
}

function detailOf(xhr, acts) {
  try {
    return JSON.parse(xhr.responseText).detail;
  } catch {
    return `The server answers ${xhr.status}${acts ? `; ${UNSURE}` : "."}`; // a proxy, which knows no more
  }
}

// An answer about an earlier button does not take the place of what a later one said.
document.body.addEventListener("htmx:beforeSwap", (event) => {
  const { elt } = event.detail;
  if (elt.matches(".action") && !said.contains(elt)) event.detail.shouldSwap = false;
});

// `unread` could not be read: a list, or a record in one. That says nothing in the place of what came of a button.
function tell(text, unread) {
  if (unread && said.querySelector(".action:not([data-list])")) return;
  const list = unread ? (unread.closest(LISTS) || { id: "" }).id : "";
  const before = said.firstElementChild;
  if (before && before.textContent === text && before.dataset.list === list) return;
  const line = document.createElement("span");
  line.className = "action failed";
  line.dataset.list = list;
  line.dataset.address = unread ? unread.getAttribute("hx-get") : "";
  line.textContent = text;
  said.replaceChildren(line);
}

// That something could not be read holds until it is; what came of a button, until the next button.
document.body.addEventListener("htmx:afterRequest", (event) => {
  const { elt, target, successful, requestConfig } = event.detail;
  const line = said.querySelector(".action[data-list]");
  if (!successful || requestConfig.verb !== "get") return;
  if (target.matches(LISTS)) stalePause = 0;
  if (!line || !line.dataset.list) return;
  const isRead = target.matches(LISTS)
    ? line.dataset.list === target.id
    : line.dataset.address === elt.getAttribute("hx-get");
  if (isRead) line.remove();
});

// What came of a button is asked for like all else: not for a page that nobody sees, and more seldom without answers.
const LOOK_MS = 500;
let nextLook = 0;
let lookPause = 0;
document.body.addEventListener("htmx:beforeRequest", (event) => {
  if (said.contains(event.detail.elt) && (document.hidden || Date.now() < nextLook)) event.preventDefault();
});
document.body.addEventListener("htmx:afterRequest", (event) => {
  if (!said.contains(event.detail.elt)) return;
  lookPause = event.detail.successful ? 0 : slower(lookPause, LOOK_MS);
  nextLook = Date.now() + lookPause;
});

function slower(pause, first = EVERY_MS) {
  return Math.min(Math.max(2 * pause, first), SLOWEST_MS);
}

// A record is asked for when it is opened, until it is there.
document.body.addEventListener("htmx:beforeRequest", (event) => {
  const { elt } = event.detail;
  if (elt.matches("details") && (!elt.open || elt.querySelector(".whole-record"))) event.preventDefault();
});

// What somebody has opened stays open when its list is made anew, and the keyboard stays where it was.
if (window.Idiomorph) {
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => !(name === "open" && node.tagName === "DETAILS");
  Idiomorph.defaults.callbacks.beforeNodeMorphed = (old) => !(old.classList && old.classList.contains("whole"));
}
// A button is disabled while its request is under way, and has no focus then.
const LISTS = "#letters, #failed";
let focusedIn = null;
let pressed = null;
document.addEventListener("focusin", (event) => {
  focusedIn = event.target.closest(LISTS);
  if (event.target !== pressed) pressed = null;
});
document.addEventListener("click", () => {
  if (document.activeElement === document.body) focusedIn = pressed = null; // somebody has left, with the mouse
});
document.body.addEventListener("htmx:beforeRequest", (event) => {
  const focused = document.activeElement;
  if (focused.matches("button") && focused.closest(LISTS) && event.detail.elt.contains(focused)) pressed = focused;
});
document.body.addEventListener("htmx:afterSwap", keepFocus);
document.body.addEventListener("htmx:afterRequest", keepFocus);

function keepFocus() {
  if (!focusedIn || document.activeElement !== document.body) return;
  if (pressed && pressed.isConnected) {
    if (!pressed.disabled) pressed.focus({ preventScroll: true });
    return;
  }
  const list = document.getElementById(focusedIn.id);
  const heading = list && list.closest("section").querySelector("h2");
  if (heading) heading.focus({ preventScroll: true });
}

localTimes(document);
const zone = document.getElementById("zone");
if (zone) zone.textContent = "Times are in your zone.";
drawChart();
longHits();
const health = document.getElementById("health");
revision = health && health.dataset.revision;
setTimeout(tick, EVERY_MS);
