"use strict";
// Draws the figures, links them to one another and to the table of trials. Text is set as text, never as markup.
(() => {
  const views = new Map();
  const table = document.querySelector("#trial-table");
  const rows = new Map([...(table?.tBodies[0].rows ?? [])].map((row) => [Number(row.dataset.trial), row]));
  const NOBODY = -1;
  let focused = NOBODY;

  function element(name, text, className = "") {
    const made = document.createElement(name);
    made.textContent = text;
    made.className = className;
    return made;
  }

  // the card beside the pointer
  const card = document.body.appendChild(element("div", "", "card"));
  card.hidden = true;
  card.setAttribute("role", "status");

  function fill(title, entries) {
    const list = document.createElement("dl");
    for (const [name, value] of entries) list.append(element("dt", name), element("dd", value));
    card.replaceChildren(element("strong", title), list);
  }

  function trialEntries(trial) {
    const heads = [...table.tHead.rows[0].cells].map((head) => head.textContent.trim());
    return [...rows.get(trial).cells]
      .map((cell, place) => [heads[place], (cell.querySelector("[data-short]") ?? cell).textContent.trim()])
      .slice(1)
      .filter(([, text]) => text && text !== "–");
  }

  function showCard(event, datum, value) {
    const isTrial = datum && rows.has(datum.trial);
    if (!isTrial && (value === null || typeof value !== "object")) return hideCard();
    if (isTrial) fill(`Trial ${datum.trial}`, trialEntries(datum.trial));
    else fill("", Object.entries(value).map(([name, said]) => [name, String(said)]));
    if (datum && datum.stage) card.firstChild.textContent += `: ${datum.stage} ${datum.seconds.toPrecision(3)} s`;
    card.hidden = false;
    const { clientX: x, clientY: y } = event;
    const { width, height } = card.getBoundingClientRect();
    card.style.left = `${Math.max(4, x + 16 + width > innerWidth ? x - 16 - width : x + 16)}px`;
    card.style.top = `${Math.max(4, Math.min(y + 12, innerHeight - height - 4))}px`;
  }

  function hideCard() {
    card.hidden = true;
  }

  // one trial is in focus in every figure and in the table
  function focus(trial) {
    if (trial === focused) return;
    rows.get(focused)?.classList.remove("lit");
    rows.get(trial)?.classList.add("lit");
    focused = trial;
    for (const view of views.values()) view.signal("focus", trial).runAsync();
  }

  function listen(view) {
    view.addEventListener("pointermove", (event, item) => {
      const datum = item?.datum?.datum ?? item?.datum;
      const trial = datum && rows.has(datum.trial) ? datum.trial : NOBODY;
      focus(trial);
      if (trial !== NOBODY || item?.tooltip) showCard(event, datum, item.tooltip);
      else hideCard();
    });
    view.container().addEventListener("pointerleave", () => { focus(NOBODY); hideCard(); });
  }

  // the arrow keys step through the trials
  function listenToKeys(place) {
    const trials = [...rows.keys()].sort((a, b) => a - b);
    place.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const at = trials.indexOf(focused);
      focus(trials[at < 0 ? (step > 0 ? 0 : trials.length - 1) : (at + step + trials.length) % trials.length]);
      const { right, top } = place.getBoundingClientRect();
      showCard({ clientX: right - 20, clientY: Math.max(top, 0) }, { trial: focused }, null);
    });
    place.addEventListener("blur", () => { focus(NOBODY); hideCard(); });
  }

  // what is brushed in the parallel coordinates is what the table shows
  function listenToBrushes(view, names) {
    const said = document.querySelector("#chosen");
    const all = document.querySelector("#show-all");
    const update = () => {
      const chosen = new Set(view.data("chosen").map((datum) => datum.trial));
      const brushed = names.some((name) => view.signal(name));
      for (const [trial, row] of rows) row.hidden = brushed && !chosen.has(trial);
      const words = brushed ? `${chosen.size} of ${rows.size} trials are inside the brushes.` : "";
      for (const place of [said, document.querySelector("#chosen-in-table")]) if (place) place.textContent = words;
      all.hidden = !brushed;
    };
    const set = (last) => {
      names.forEach((name, place) => view.signal(name, place === names.length - 1 ? last : null));
      view.runAsync().then(update);
    };
    for (const name of names) view.addSignalListener(name, () => setTimeout(update));
    all.addEventListener("click", () => set(null));
    document.querySelector("#show-best").addEventListener("click", () => set(view.usermeta.best));
  }

  async function draw(source) {
    const place = document.getElementById(`plot-${source.dataset.figure}`);
    const spec = JSON.parse(source.textContent);
    try {
      const options = { mode: "vega", renderer: "svg", actions: false, defaultStyle: false, tooltip: () => {} };
      const { view } = await vegaEmbed(place, spec, options);
      views.set(source.dataset.figure, view);
      listen(view);
      if ("byTrial" in place.dataset) listenToKeys(place);
      if (spec.usermeta?.brushes) {
        view.usermeta = spec.usermeta;
        listenToBrushes(view, spec.usermeta.brushes);
      }
      place.dataset.drawn = "";
    } catch (error) {
      place.replaceChildren(element("p", `This figure could not be drawn: ${error.message}`, "empty"));
      console.error(error);
    }
  }

  // the table: sorted by its heads, lights up the figures
  function sortBy(place, head) {
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const numeric = head.classList.contains("n");
    const key = (row) => row.cells[place].dataset.key;
    const compare = (a, b) => (numeric ? Number(a) - Number(b) : a.localeCompare(b)) * (descending ? -1 : 1);
    const sorted = [...rows.values()].sort((a, b) => {
      const empty = (key(a) === "") - (key(b) === "");
      return empty || (key(a) === "" ? 0 : compare(key(a), key(b))) || a.dataset.trial - b.dataset.trial;
    });
    table.tBodies[0].append(...sorted);
  }

  if (table) {
    [...table.tHead.rows[0].cells].forEach((head, place) => {
      head.querySelector("button").addEventListener("click", () => sortBy(place, head));
    });
    const trialOf = (event) => Number(event.target.closest("tr[data-trial]")?.dataset.trial ?? NOBODY);
    for (const kind of ["pointerover", "focusin"]) table.addEventListener(kind, (event) => focus(trialOf(event)));
    for (const kind of ["pointerleave", "focusout"]) table.addEventListener(kind, () => focus(NOBODY));
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  const sources = [...document.querySelectorAll("script[data-figure]")];
  Promise.all(sources.map(draw)).then(() => { document.documentElement.dataset.ready = ""; });
})();
