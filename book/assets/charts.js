// Draw each chart when it comes near the screen, and all of them before printing. Colours follow the page by themselves:
// text and lines are `currentColor`. Pages without a chart never load the bundle.
(function () {
  const bundle = new URL("vega/bundle.js", document.currentScript.src).href;
  const NARROW = 560; // CSS pixels of room below which views beside each other go below each other
  const LEAST = 0.8; // of its size, for a chart that is a little too wide
  const WIDTH = 620; // of a view that names none: the theme's

  function stack(spec) {
    const encoding = spec.encoding || {};
    if (spec.hconcat) { spec.vconcat = spec.hconcat; delete spec.hconcat; }
    if (encoding.column && !encoding.row) { encoding.facet = encoding.column; delete encoding.column; }
    if (spec.facet && spec.facet.column && !spec.facet.row) spec.facet = spec.facet.column;
    if (encoding.facet) encoding.facet.columns = 1;
    if (spec.facet && spec.facet.field) spec.columns = 1;
  }

  function narrow(spec, excess) { // false where views stand beside each other
    const encoding = spec.encoding || {}, columns = spec.columns || (encoding.facet || {}).columns;
    const wrapped = (spec.facet && spec.facet.field) || encoding.facet;
    if (spec.hconcat || spec.concat || encoding.column || (spec.facet && spec.facet.column) || (wrapped && columns !== 1)) return false;
    for (const view of spec.vconcat || [spec.spec || spec]) {
      if (typeof view.width !== "object") view.width = Math.max(120, (view.width || WIDTH) - excess);
    }
    return true;
  }

  // What a reader sets stands in the address, so that it can be kept and sent: #model=…&batch=…
  function asked(controls) {
    const said = new URLSearchParams(location.hash.slice(1));
    for (const control of controls.filter((control) => said.has(control.name))) {
      const { options, min, max } = control.bind, number = Number(said.get(control.name));
      const value = options ? options.find((option) => String(option) === said.get(control.name)) : Math.min(max, Math.max(min, number));
      if (value !== undefined && !Number.isNaN(value)) control.value = value;
    }
  }

  function remember(view, controls, first) {
    const note = () => {
      const changed = controls.map(({ name }) => [name, view.signal(name)]).filter(([name, value]) => value !== first[name]);
      history.replaceState(null, "", "#" + new URLSearchParams(changed));
    };
    controls.forEach(({ name }) => view.addSignalListener(name, note));
    window.addEventListener("hashchange", () => {
      if (location.hash && !location.hash.includes("=")) return; // a place on the page, not a setting
      controls.forEach((control) => { control.value = first[control.name]; });
      asked(controls);
      controls.forEach(({ name, value }) => view.signal(name, value));
      view.runAsync();
    });
  }

  async function draw(box) {
    if (box.dataset.asked) return;
    box.dataset.asked = "yes";
    const spec = JSON.parse(box.querySelector("script").textContent), room = box.clientWidth, small = room < NARROW;
    const caption = box.closest("figure")?.querySelector(".caption-text");
    spec.description = spec.description || (caption ? caption.textContent : document.title);
    const legend = small ? { columns: 2, layout: { top: { direction: "vertical" } } } : {};
    const config = { font: getComputedStyle(document.body).fontFamily, legend };
    const controls = (spec.params || []).filter((param) => param.bind);
    const first = Object.fromEntries(controls.map(({ name, value }) => [name, value]));
    const bind = box.querySelector(".controls") || undefined;
    const put = () => vegaEmbed(box.querySelector(".vl-host"), spec, { renderer: "svg", actions: false, config, bind });
    const width = () => box.querySelector("svg").clientWidth;
    if (small) stack(spec);
    asked(controls);
    let drawn = await put();
    if (width() > room && narrow(spec, width() - room)) {
      drawn.finalize();
      bind?.replaceChildren();
      drawn = await put();
    }
    if (controls.length) remember(drawn.view, controls, first);
    const ratio = room / width(); // a little too wide: smaller; much too wide: it scrolls
    if (ratio < 1 && ratio >= LEAST) Object.assign(box.querySelector("svg").style, { width: room + "px", height: "auto" });
    reach(box);
    box.dataset.rendered = "yes";
  }

  function attempt(box) {
    draw(box).catch(function (error) { box.dataset.failed = String(error); console.error(error); });
  }

  function reach(box) { // what scrolls sideways must scroll by the keyboard too
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll(".table-box, .equation").forEach(reach);
    const boxes = Array.from(document.querySelectorAll(".vl-chart"));
    if (!boxes.length) return;
    const script = Object.assign(document.createElement("script"), { src: bundle });
    script.onload = function () {
      const near = new IntersectionObserver(function (entries) {
        entries.filter((entry) => entry.isIntersecting).forEach((entry) => attempt(entry.target));
      }, { rootMargin: "600px" });
      boxes.forEach((box) => near.observe(box));
      window.addEventListener("beforeprint", () => boxes.forEach(attempt));
    };
    document.head.append(script);
  });
})();
