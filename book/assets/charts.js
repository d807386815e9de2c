// Draw each chart when it comes near the screen, and all of them before printing. Colours follow the page by themselves:
// text and lines are `currentColor`. Pages without a chart do not load the bundle.
(function () {
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

  // Each figure can be taken away: as a drawing, as an image, and its numbers as a table.
  function table(rows) {
    if (typeof rows === "string") return rows.trim();
    const columns = [...new Set(rows.flatMap(Object.keys))];
    const cell = (value) => /[",\n]/.test(value ?? "") ? `"${String(value).replaceAll('"', '""')}"` : value ?? "";
    return [columns, ...rows.map((row) => columns.map((name) => row[name]))].map((line) => line.map(cell).join(",")).join("\n");
  }

  async function image(svg) { // twice as large, on white
    const picture = new Image();
    picture.src = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
    await picture.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: 2 * picture.width, height: 2 * picture.height });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done));
  }

  function offer(box, view, spec) {
    const figure = box.closest("figure"), stem = location.pathname.split("/").pop().replace(".html", "");
    const svg = async () => (await view.toSVG()).replace("<svg", '<svg color="#222" style="background:#fff"');
    const kinds = {
      SVG: async () => new Blob([await svg()], { type: "image/svg+xml" }),
      PNG: async () => image(await svg()),
      CSV: async () => new Blob([Object.values(spec.datasets || {}).map(table).join("\n\n") + "\n"], { type: "text/csv" }),
    };
    const line = Object.assign(document.createElement("p"), { className: "take" });
    for (const [kind, made] of Object.entries(kinds)) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: kind });
      button.setAttribute("aria-label", `Save this figure as ${kind}`);
      button.onclick = async () => {
        const href = URL.createObjectURL(await made());
        Object.assign(document.createElement("a"), { href, download: `${figure?.id || stem}.${kind.toLowerCase()}` }).click();
      };
      line.append(button);
    }
    if (figure) { // where its numbers come from: the chapter's cells, and the runs behind them
      for (const [text, href] of [["cells", `../_sources/book/${stem}.md`], ["runs", "runs.html"]]) {
        line.append(Object.assign(document.createElement("a"), { href, textContent: text }));
      }
    }
    (figure?.querySelector("figcaption") || box).append(line);
  }

  function name(box) { // what assistive technology may find in a drawing has a name
    box.querySelectorAll("[role='graphics-symbol']:not([aria-label])").forEach((mark) => {
      mark.removeAttribute("role");
      mark.removeAttribute("aria-roledescription");
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
    name(box);
    offer(box, drawn.view, spec);
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
    document.querySelectorAll("nav summary:not([aria-label])").forEach((arrow) => arrow.setAttribute("aria-label", "Pages below"));
    const boxes = Array.from(document.querySelectorAll(".vl-chart"));
    if (!boxes.length) return;
    const near = new IntersectionObserver(function (entries) {
      entries.filter((entry) => entry.isIntersecting).forEach((entry) => attempt(entry.target));
    }, { rootMargin: "600px" });
    boxes.forEach((box) => near.observe(box));
    window.addEventListener("beforeprint", () => boxes.forEach(attempt));
  });
})();
