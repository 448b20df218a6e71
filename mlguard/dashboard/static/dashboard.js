"use strict";
// Two things that a page cannot do by itself: stay up to date, and send the admin token with a
// change. Everything is readable without this file.
(() => {
  const EVERY_MS = 5000;
  const KEY = "mlguard-admin-token";
  const TOO_LATE_MS = 15000;

  // --- stay up to date -------------------------------------------------------------------

  const freshness = document.getElementById("freshness");
  let reading = null;
  let newest = 0;
  let last = Date.now();

  function swap(part, fresh) {
    // What the reader has opened stays open; what the reader is in is left alone.
    for (const one of part.querySelectorAll("details[id]")) {
      const other = fresh.querySelector(`#${CSS.escape(one.id)}`);
      if (other) other.open = one.open;
    }
    if (part.innerHTML === fresh.innerHTML) return;
    if (part.contains(document.activeElement) && part.tagName === "SELECT") return;
    const focused = part.contains(document.activeElement) ? path(part, document.activeElement) : null;
    part.replaceChildren(...fresh.childNodes);
    if (focused) follow(part, focused)?.focus({ preventScroll: true });
  }

  function path(root, node) {
    const steps = [];
    for (let at = node; at !== root; at = at.parentElement) {
      steps.unshift([...at.parentElement.children].indexOf(at));
    }
    return steps;
  }

  function follow(root, steps) {
    return steps.reduce((at, step) => at?.children[step], root);
  }

  async function read(mine) {
    const reply = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(TOO_LATE_MS) });
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
    // One that began before a change may not know of it.
    if (mine !== newest) return;
    if (!reply.ok) throw new Error(fresh.querySelector("h1")?.textContent ?? String(reply.status));
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (other) swap(part, other);
    }
    document.title = fresh.title;
    offer();
    last = Date.now();
    if (freshness.classList.contains("stale")) freshness.textContent = "Up to date again.";
    freshness.classList.remove("stale");
  }

  function update({ anew = false } = {}) {
    if (reading && !anew) return reading;
    const mine = ++newest;
    reading = read(mine)
      .catch((error) => {
        if (mine !== newest) return;
        const seconds = Math.round((Date.now() - last) / 1000);
        freshness.textContent = `✗ Not updated for ${seconds} s: ${error.message}`;
        freshness.classList.add("stale");
      })
      .finally(() => { if (mine === newest) reading = null; });
    return reading;
  }

  setInterval(() => { if (!document.hidden) update(); }, EVERY_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });

  // --- roll back -------------------------------------------------------------------------

  const form = document.getElementById("rollback");

  // The button says what it will do; there is none where there is nothing to go back to.
  function offer() {
    if (!form) return;
    const chosen = form.elements.to.selectedOptions[0];
    form.hidden = !chosen;
    const target = document.getElementById("target");
    if (chosen && target.textContent !== chosen.textContent) target.textContent = chosen.textContent;
  }

  if (!form) return;
  const { to, reason, token } = form.elements;
  const button = form.querySelector("button");
  const said = document.getElementById("said");

  function say(text, style) {
    said.className = style;
    said.textContent = text;
  }

  offer();
  token.value = sessionStorage.getItem(KEY) ?? "";
  to.addEventListener("change", offer);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const wanted = to.value;
    button.disabled = true;
    say(`Rolling back to ${wanted} …`, "soft");
    try {
      const reply = await fetch(`/api/apps/${encodeURIComponent(form.dataset.app)}/rollback`, {
        method: "POST",
        headers: { "Authorization": `Bearer ${token.value.trim()}`, "Content-Type": "application/json" },
        body: JSON.stringify({ to: wanted, reason: reason.value }),
        signal: AbortSignal.timeout(60000),
      });
      const answer = await reply.json();
      if (!reply.ok) {
        if (reply.status === 401) sessionStorage.removeItem(KEY);
        throw new Error(answer.cause ?? answer.error);
      }
      sessionStorage.setItem(KEY, token.value.trim());
      reason.value = "";
      const { active: { version }, generation } = answer;
      if (!answer.changed) say(`– Nothing was changed: ${version} serves already.`, "soft");
      else if (answer.observed_generation < generation) {
        say(`✓ Rolled back to ${version}; this server is still loading it.`, "passed");
      } else {
        say(`✓ Rolled back: ${version} serves, generation ${generation}.`, "passed");
        // The reply says it already; the rest of the page is read anew.
        document.querySelector("#head .serves").textContent = `${version} serves, generation ${generation}.`;
      }
      await update({ anew: true });
    } catch (error) {
      say(`✗ Not rolled back: ${error.message}`, "failed");
    } finally {
      button.disabled = false;
    }
  });
})();
