"use strict";
// The pages work without this. It renews what is marked data-live without losing focus, scroll or what is open, and
// lets a reader move with the keyboard.
(() => {
  const seconds = Number(document.body.dataset.refresh) || 0;
  const answerWithin = 8; // seconds: a node that hangs takes every request and answers none
  const away = document.body.dataset.away; // the page that says that nothing can be shown: where what was asked for is
  const typing = (element) => element && element.closest("input:not([type=checkbox]), select, textarea, [contenteditable]");

  // --- times that pass ---

  const words = (s) => {
    if (s < 90) return `${Math.max(0, Math.floor(s))} s`;
    const minutes = Math.floor(s / 60);
    if (minutes < 60) return `${minutes} min`;
    if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")}`;
    return `${Math.floor(minutes / 1440)} d`;
  };
  let skew = 0; // between this clock and the node's, in seconds
  const clockOf = (root) => {
    const asof = root.querySelector("#asof time");
    if (asof) skew = Date.parse(asof.dateTime) / 1000 - Date.now() / 1000;
  };
  const tick = () => {
    const silent = (Date.now() - Math.max(renewedAt, seenAt)) / 1000;
    if (!document.hidden && !away && silent > 3 * seconds) stale(noAnswer); // whatever became of what was asked
    if (document.body.classList.contains("stale")) return; // nothing here passes for new
    for (const time of document.querySelectorAll("time[data-since]")) {
      const said = words(Date.now() / 1000 + skew - Number(time.dataset.since));
      if (time.textContent !== said) time.textContent = said;
    }
  };

  // --- what is no longer true ---

  const noAnswer = "The node does not answer.";
  let renewedAt = Date.now(), seenAt = Date.now();
  const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const stale = (why) => {
    if (away) { say(document.getElementById("why"), why); return; }
    const banner = document.getElementById("stale");
    const since = new Date(renewedAt + skew * 1000).toTimeString().slice(0, 8);
    document.body.classList.add("stale");
    say(banner, `Not renewed since ${since}. ${why} What is shown here may be out of date.`);
    banner.hidden = false;
    if (!document.title.startsWith("Not renewed")) document.title = `Not renewed: ${document.title}`;
  };
  const fresh = () => {
    renewedAt = Date.now();
    const banner = document.getElementById("stale");
    document.body.classList.remove("stale");
    banner.hidden = true;
    banner.textContent = ""; // so that the next time is said aloud again
  };
  const reasonOf = async (answer) => {
    const text = await answer.text();
    if ((answer.headers.get("Content-Type") || "").startsWith("text/plain")) return text.trim();
    const said = new DOMParser().parseFromString(text, "text/html").getElementById("why");
    return said ? said.textContent : `The node answers with an error (${answer.status}).`;
  };

  // --- renewing ---

  const keyOf = (element) => {
    const row = element.closest("[data-key]");
    if (!row) return null;
    const same = row.querySelectorAll("a, button, input, summary");
    return [row.dataset.key, [...same].indexOf(element)];
  };
  const focusBack = (was) => {
    if (!was || document.activeElement !== document.body) return;
    const row = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === was[0]);
    const target = row && [...row.querySelectorAll("a, button, input, summary")][was[1]];
    if (target) target.focus({ preventScroll: true });
  };
  const openOnes = (root) => new Set([...root.querySelectorAll("details[data-keep][open]")].map((one) => one.dataset.keep));
  const checkedOnes = (root) => new Map([...root.querySelectorAll("input.heat")].map((one) => [one.id, one.checked]));
  const keepOpen = (root, open, checked) => {
    for (const one of root.querySelectorAll("details[data-keep]")) if (open.has(one.dataset.keep)) one.open = true;
    for (const one of root.querySelectorAll("input.heat")) if (checked.has(one.id)) one.checked = checked.get(one.id);
  };

  const renewRows = (now, next) => {
    const old = new Map([...now.children].map((row) => [row.dataset.key, row]));
    const arrived = [];
    let place = now.firstElementChild;
    for (const row of [...next.children]) {
      const was = old.get(row.dataset.key);
      let shown = was;
      if (!was) {
        row.classList.add("fresh");
        arrived.push(row);
        shown = row;
      } else if (was.dataset.mark !== row.dataset.mark) {
        keepOpen(row, openOnes(was), checkedOnes(was));
        if (was.dataset.word !== row.dataset.word) arrived.push(row);
        if (was === place) place = was.nextElementSibling;
        was.remove();
        shown = row;
      }
      old.delete(row.dataset.key);
      if (shown === place) place = place.nextElementSibling;
      else now.insertBefore(shown, place);
    }
    for (const gone of old.values()) gone.remove();
    return arrived;
  };
  const firstInSight = () => window.scrollY > 0
    && [...document.querySelectorAll("[data-key]")].find((one) => one.getBoundingClientRect().top > 0);
  const renew = (next) => {
    const was = document.activeElement && keyOf(document.activeElement);
    const anchor = (document.activeElement && document.activeElement.closest("[data-key]")) || firstInSight();
    const before = anchor && anchor.getBoundingClientRect().top;
    let arrived = [];
    for (const part of next.querySelectorAll("[data-live]")) {
      const now = document.getElementById(part.id);
      if (!now) continue;
      if (part.dataset.live === "rows") arrived = renewRows(now, part);
      else if (now.innerHTML !== part.innerHTML && !now.dataset.was) replace(now, part);
      else if (now.dataset.was !== undefined && now.dataset.was !== part.innerHTML) replace(now, part);
    }
    clockOf(next);
    document.title = next.title;
    focusBack(was);
    if (anchor) keepInPlace(anchor, before);
    announce(arrived);
  };
  const keepInPlace = (anchor, before) => {
    const again = anchor.isConnected ? anchor : [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === anchor.dataset.key);
    if (again) window.scrollBy({ top: again.getBoundingClientRect().top - before, behavior: "instant" });
  };
  const replace = (now, part) => {
    const inside = now.contains(document.activeElement) ? document.activeElement : null;
    if (inside && typing(inside)) return;
    const id = inside && inside.getAttribute("value");
    const open = openOnes(now), checked = checkedOnes(now), html = part.innerHTML;
    now.replaceChildren(...document.importNode(part, true).childNodes);
    now.dataset.was = html;
    keepOpen(now, open, checked);
    if (inside && id) {
      const again = [...now.querySelectorAll("input, button")].find((one) => one.getAttribute("value") === id);
      if (again) again.focus({ preventScroll: true });
    }
  };
  const announce = (rows) => {
    if (!rows.length) return;
    const urgent = ["HIGH", "MEDIUM", "NOT ASSESSED"].map((word) => [word, rows.filter((row) => row.dataset.word === word).length]);
    const said = urgent.filter(([, count]) => count).map(([word, count]) => `${count} ${word}`);
    const line = document.getElementById("announce");
    line.textContent = `${rows.length === 1 ? "One study is" : `${rows.length} studies are`} new or changed${said.length ? `: ${said.join(", ")}` : ""}.`;
  };

  let asked = 0;
  let searched = null; // the form, while something is searched: it goes by POST, for no address is to hold it
  const fetchPage = async (address, bySelf = false) => {
    const mine = ++asked;
    const patience = new AbortController();
    const limit = window.setTimeout(() => patience.abort(), answerWithin * 1000);
    let why = noAnswer;
    try {
      const answer = await fetch(searched ? "/search" : address, { ...(searched && { method: "POST", body: searched }), signal: patience.signal, headers: { ...(bySelf && { "X-Live": "1" }), Accept: "text/html" }, credentials: "same-origin", cache: "no-store" });
      if (mine !== asked) return;
      if (answer.ok && away) { window.location.replace(away); return; }
      if (answer.redirected) { window.location.assign(answer.url); return; }
      if (!answer.ok) why = await reasonOf(answer);
      if (!answer.ok) throw new Error(why);
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (mine !== asked) return;
      renew(next);
      fresh();
    } catch {
      if (mine === asked) stale(why); // what was asked since decides
    } finally {
      window.clearTimeout(limit);
    }
  };
  const beat = async () => {
    const began = Date.now();
    if (!document.hidden) await fetchPage(away || window.location.href, true);
    const waited = Math.min(Math.max(Date.now() - began, 0), 1000); // for others, with whom the node read it (page_together.py)
    window.setTimeout(beat, seconds * 1000 - waited);
  };
  if (seconds) {
    document.documentElement.classList.add("live"); // the scroll is kept here: the browser must not keep it too
    clockOf(document);
    window.setInterval(tick, 1000);
    window.setTimeout(beat, seconds * 1000);
    document.addEventListener("visibilitychange", () => {
      seenAt = Date.now();
      if (!document.hidden) fetchPage(away || window.location.href, true);
    });
  }
  if (away) return;

  // --- choosing without a new page ---

  const filters = document.getElementById("filters");
  const asking = (by) => new URLSearchParams([...new FormData(filters, by)].filter(([, value]) => value !== ""));
  const choose = (by = null) => {
    searched = filters.elements.q.value.trim() ? asking(by) : null;
    const kept = [...asking(null)].filter(([name, value]) => name !== "q" && name !== "csrf" && !(name === "since" && value === "24h"));
    const query = new URLSearchParams(kept).toString();
    const address = query ? `/?${query}` : "/";
    window.history.replaceState(null, "", address);
    fetchPage(address);
  };
  if (filters) {
    filters.addEventListener("change", (event) => { if (!event.target.classList.contains("heat")) choose(); });
    filters.addEventListener("submit", (event) => { event.preventDefault(); choose(event.submitter); });
    let later = 0;
    filters.elements.q.addEventListener("input", () => { window.clearTimeout(later); later = window.setTimeout(choose, 250); });
    if (window.location.pathname === "/search") searched = asking(null);
  }

  // --- keys ---

  const help = document.getElementById("help");
  const helpButton = document.getElementById("help-button");
  helpButton.hidden = false;
  helpButton.addEventListener("click", () => help.showModal());
  const rows = () => [...document.querySelectorAll("[data-row]")];
  const move = (by) => {
    const all = rows();
    if (!all.length) return;
    const row = document.activeElement.closest("[data-key], .sender, .model");
    const at = all.findIndex((one) => one === document.activeElement || (row && row.contains(one)));
    const to = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)];
    to.focus({ preventScroll: true });
    (to.closest("tr, article, details") || to).scrollIntoView({ block: "nearest" });
  };
  const peek = () => {
    const row = document.activeElement.closest("[data-key]");
    const details = row && row.querySelector("details.peek");
    if (details) details.open = !details.open;
  };
  const search = () => {
    const box = document.getElementById("q");
    if (box) { box.focus(); box.select(); } else window.location.assign("/");
  };
  const keys = {
    j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
    p: peek, "/": search, g: () => window.location.assign("/"), "?": () => help.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (typing(event.target)) {
      if (event.key === "Escape") { event.target.blur(); move(1); }
      return;
    }
    if (event.key.startsWith("Arrow") && event.target.closest(".lines, .scroll")) return;
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });
})();
