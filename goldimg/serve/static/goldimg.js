// Keeps the page true without a reload: asks for it again every two seconds, and puts what changed
// in its place. All text was escaped where it was written; nothing of it is ever run.
"use strict";

const EVERY = 2000;
const live = document.getElementById("live");
const spoken = document.getElementById("spoken");
let lost = 0;

// A piece of the page as text, but for how long ago something was: that changes all the time.
function meaning(piece) {
  const copy = piece.cloneNode(true);
  for (const time of copy.querySelectorAll("time")) time.textContent = "";
  return copy.outerHTML;
}

function say(piece, old) {
  const { name, state } = piece.dataset;
  if (state && old.dataset.state !== state) spoken.textContent = `${name}: ${state}`;
}

function put(old, fresh) {
  const held = old.contains(document.activeElement) ? document.activeElement : null;
  const log = old.querySelector(".log");
  const atEnd = !log || log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  const top = log ? log.scrollTop : 0;
  const piece = document.adoptNode(fresh);
  old.replaceWith(piece);
  const newLog = piece.querySelector(".log");
  if (newLog) newLog.scrollTop = atEnd ? newLog.scrollHeight : top;
  if (!held) return;
  // The keyboard stays where it was.
  const same = held.getAttribute("href");
  const again = same ? piece.querySelector(`[href="${CSS.escape(same)}"]`) : piece.querySelector(held.tagName);
  if (again) again.focus({ preventScroll: true });
}

function merge(old, fresh) {
  if (meaning(old) === meaning(fresh)) return;
  const rows = [...old.querySelectorAll("tr[data-live]")];
  const news = [...fresh.querySelectorAll("tr[data-live]")];
  const sameRows = rows.length && rows.length === news.length && rows.every((row, at) => row.id === news[at].id);
  for (const row of news) {
    const before = document.getElementById(row.id);
    if (before) say(row, before);
  }
  if (sameRows) {
    rows.forEach((row, at) => { if (meaning(row) !== meaning(news[at])) put(row, news[at]); });
    return;
  }
  say(fresh, old);
  put(old, fresh);
}

function span(seconds) {
  let left = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    const count = Math.floor(left / size);
    left %= size;
    if (count || (unit === "s" && !parts.length)) parts.push(`${count} ${unit}`);
    else if (parts.length) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}

// By the server's clock, whatever this machine's says.
let ahead = 0;
function tick() {
  const now = Date.now() + ahead;
  for (const time of document.querySelectorAll("time[datetime]")) {
    const seconds = (now - Date.parse(time.dateTime)) / 1000;
    const text = Math.abs(seconds) < 1 ? "now" : seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
    if (time.textContent !== text) time.textContent = text;
  }
}

function show(text, isLost) {
  live.hidden = false;
  live.classList.toggle("lost", isLost);
  if (live.textContent !== text) live.textContent = text;
}

async function refresh() {
  const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
  if (answer.redirected) { location.reload(); return; } // the session has ended
  if (answer.status === 429 || answer.status >= 500) throw new Error(String(answer.status));
  const date = Date.parse(answer.headers.get("Date") || "");
  if (date) ahead = date - Date.now();
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of document.querySelectorAll("[data-live]:not(tr)")) {
    const piece = fresh.getElementById(old.id);
    if (piece) merge(old, piece);
  }
  if (fresh.title) document.title = fresh.title;
  lost = 0;
  show("live", false);
}

async function loop() {
  if (!document.hidden) {
    try { await refresh(); } catch {
      lost = lost || Date.now();
      show(`no answer for ${span((Date.now() - lost) / 1000)}`, true);
    }
  }
  setTimeout(loop, EVERY);
}

for (const log of document.querySelectorAll(".log")) log.scrollTop = log.scrollHeight;
if (document.querySelector("[data-live]")) {
  setInterval(tick, 1000);
  setTimeout(loop, EVERY);
}
