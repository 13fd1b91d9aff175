// Keeps the page up to date, and draws the topology. Without it the page is read as it came.
"use strict";

(() => {
  const QUIET = 300; // ms that news are gathered for
  const AT_MOST = 2000; // ms that the page waits for news to pause
  const POLL = 15000; // ms between looks at what tells no event, such as a quarantine; or at everything, if events cannot be followed

  // ------------------------------------------------------------------------------------------------------------- news

  const pulse = document.getElementById("pulse");
  let timer = 0;
  let first = 0;

  function refresh() {
    clearTimeout(timer);
    timer = first = 0;
    htmx.trigger(document.body, "ovsnet:changed");
    draw();
  }

  function heard() {
    first ||= Date.now();
    clearTimeout(timer);
    timer = setTimeout(refresh, Math.max(0, Math.min(QUIET, first + AT_MOST - Date.now())));
  }

  function say(text) {
    if (pulse.textContent !== text) pulse.textContent = text;
  }

  function follow() {
    let lost = false;
    const source = new EventSource("/v1/events");
    source.onopen = () => {
      say("Live");
      if (lost) refresh(); // a page cannot tell what it has missed
      lost = false;
    };
    source.onerror = () => {
      lost = true;
      say("Not live: asking again every few seconds");
      if (source.readyState === EventSource.CLOSED) setTimeout(follow, POLL);
    };
    for (const what of ["leased", "changed", "released"]) source.addEventListener(what, heard);
    addEventListener("pagehide", () => source.close());
  }

  addEventListener("pageshow", (event) => event.persisted && location.reload());
  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const status = event.detail.xhr.status;
    if (status >= 400) say(`Not live: ovsnetd answered ${status}`);
  });
  document.body.addEventListener("htmx:sendError", () => say("Not live: ovsnetd is not reachable"));

  // ---------------------------------------------------------------------------------------------------------- drawing

  const figure = document.getElementById("drawn");
  let graph = null;
  let drawn = "";

  function colours() {
    const style = getComputedStyle(document.documentElement);
    return (name) => style.getPropertyValue(`--${name}`).trim();
  }

  function look() {
    const colour = colours();
    const large = figure.clientWidth < 600 ? 26 : 13; // px before all is made to fit
    const kinds = ["docker", "cni", "api"].map((kind) => ({
      selector: `node[kind = "${kind}"]`,
      style: { "background-color": colour(kind) },
    }));
    return [
      {
        selector: "node",
        style: {
          "background-color": colour("faint"), label: "data(label)", color: colour("text"), "font-size": 10, width: 14, height: 14,
          "text-wrap": "wrap", "text-valign": "bottom", "text-margin-y": 3, "min-zoomed-font-size": 7, "font-family": "system-ui, DejaVu Sans",
          "text-outline-color": colour("back"), "text-outline-width": 2,
        },
      },
      { selector: 'node[kind = "bridge"]', style: { shape: "rectangle", "background-color": colour("bridge"), width: 30, height: 30, "font-size": large } },
      { selector: 'node[kind = "network"]', style: { shape: "round-rectangle", "background-color": colour("network"), width: 24, height: 24, "font-size": large } },
      ...kinds,
      { selector: 'node[kind = "crowd"]', style: { shape: "octagon", width: 36, height: 36, "font-size": large } },
      {
        selector: 'node[state = "quarantined"]',
        style: { "background-color": colour("back"), "border-color": colour("bad"), "border-width": 2, "border-style": "dashed" },
      },
      { selector: 'node[state = "not-joined"]', style: { "background-opacity": 0.4 } },
      { selector: "edge", style: { width: 1, "line-color": colour("faint"), "curve-style": "haystack" } },
    ];
  }

  async function draw() {
    if (!figure) return;
    let found;
    try {
      const answer = await fetch("/ui/topology.json", { signal: AbortSignal.timeout(POLL) });
      if (!answer.ok) return; // the page itself says what is wrong
      found = await answer.json();
    } catch {
      return;
    }
    const text = JSON.stringify(found);
    if (text === drawn) return;
    drawn = text;
    figure.hidden = false;
    const elements = [...found.nodes, ...found.edges].map((data) => ({ data }));
    graph ??= start();
    graph.json({ elements });
    graph.layout({ name: "cose", animate: false, randomize: false, padding: 24, nodeDimensionsIncludeLabels: true }).run();
    figure.dataset.nodes = String(graph.nodes().length);
  }

  function start() {
    const made = cytoscape({
      container: document.getElementById("drawing"), style: look(), minZoom: 0.1, maxZoom: 2, userZoomingEnabled: false, autoungrabify: true,
      userPanningEnabled: false, // a finger on it scrolls the page
    });
    made.on("tap", "node", (event) => location.assign(event.target.data("path")));
    made.on("mouseover", "node", () => document.body.classList.add("pointing"));
    made.on("mouseout", "node", () => document.body.classList.remove("pointing"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => made.style(look()));
    new ResizeObserver(() => {
      made.style(look()); // which gives no graph back
      made.resize().fit(undefined, 24);
    }).observe(made.container());
    return made;
  }

  follow();
  setInterval(() => document.hidden || refresh(), POLL);
  draw();
})();
