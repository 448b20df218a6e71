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

  async function read() {
    const reply = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(TOO_LATE_MS) });
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
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

  function update() {
    reading ??= read()
      .catch((error) => {
        const seconds = Math.round((Date.now() - last) / 1000);
        freshness.textContent = `✗ Not updated for ${seconds} s: ${error.message}`;
        freshness.classList.add("stale");
      })
      .finally(() => { reading = null; });
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
      say(answer.changed
        ? `✓ Rolled back: ${answer.active.version} serves, generation ${answer.generation}.`
        : `– Nothing was changed: ${answer.active.version} serves already.`, answer.changed ? "passed" : "soft");
      // A reading that began before the change may not know of it.
      await reading;
      await update();
    } catch (error) {
      say(`✗ Not rolled back: ${error.message}`, "failed");
    } finally {
      button.disabled = false;
    }
  });
})();
