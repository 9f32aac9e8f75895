// Keeps pages fresh: fetches the page again when there is news and swaps the parts that changed.
"use strict";

const body = document.body;

async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (other && other.innerHTML !== part.innerHTML && !part.contains(document.activeElement)) {
      part.replaceChildren(...document.adoptNode(other).childNodes);
    }
  }
  for (const name of ["busy", "final", "lastEvent"]) {
    if (fresh.body.dataset[name] !== undefined) body.dataset[name] = fresh.body.dataset[name];
  }
}

function spoken(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function tick() {
  for (const span of document.querySelectorAll("[data-since]")) {
    span.textContent = spoken(Math.max(0, Date.now() / 1000 - Number(span.dataset.since)));
  }
}

function watchList() {
  let turns = 0;
  setInterval(() => {
    turns += 1;
    if (document.hidden || (body.dataset.busy === "no" && turns % 4)) return;
    refresh().catch(() => {});
  }, 1500);
}

function watchJob() {
  if (body.dataset.final === "yes") return;
  let due = null;
  const soon = () => {
    due ??= setTimeout(() => {
      due = null;
      refresh().catch(() => {});
    }, 300);
  };
  const events = new EventSource(`/v1/jobs/${body.dataset.job}/events`);
  const heard = (event) => {
    if (Number(event.lastEventId) <= Number(body.dataset.lastEvent)) return;
    soon();
    if (["completed", "failed", "cancelled"].includes(JSON.parse(event.data).state)) events.close();
  };
  for (const kind of ["state", "stage", "progress"]) events.addEventListener(kind, heard);
  setInterval(tick, 1000);
}

function seek(button) {
  const film = document.getElementById("film");
  if (!film) return;
  film.currentTime = Number(button.dataset.seek);
  film.play().catch(() => {});
}

function follow(film) {
  let current = null;
  for (const button of document.querySelectorAll("[data-seek]")) {
    if (Number(button.dataset.seek) <= film.currentTime + 0.05) current = button;
    else break;
  }
  for (const button of document.querySelectorAll("[data-seek][aria-current]")) {
    if (button !== current) button.removeAttribute("aria-current");
  }
  if (current && !current.hasAttribute("aria-current")) {
    current.setAttribute("aria-current", "true");
    const list = current.closest("ol");
    list.scrollTo({ top: current.offsetTop - list.clientHeight / 3, behavior: "smooth" });
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-seek]");
  if (button) seek(button);
});

document.addEventListener("timeupdate", (event) => follow(event.target), true);

document.addEventListener("submit", (event) => {
  const form = event.target;
  const dialog = document.getElementById("confirm");
  if (!form.dataset.confirm || form.dataset.sure || !dialog?.showModal) return;
  event.preventDefault();
  document.getElementById("confirm-text").textContent = form.dataset.confirm;
  dialog.onclose = () => {
    if (dialog.returnValue !== "yes") return;
    form.dataset.sure = "yes";
    form.requestSubmit();
  };
  dialog.returnValue = "";
  dialog.showModal();
});

if (body.dataset.page === "jobs") watchList();
if (body.dataset.page === "job") watchJob();
