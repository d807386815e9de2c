// A table in a box `.sorts` has a field that filters its rows, and column heads that sort them.
(function () {
  const order = new Intl.Collator("en", { numeric: true });

  function equip(box) {
    const table = box.querySelector("table"), body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    const field = Object.assign(document.createElement("input"), { type: "search", placeholder: "Filter", className: "filter" });
    field.setAttribute("aria-label", "Show only rows with these words");
    field.oninput = () => {
      const words = field.value.toLowerCase().split(/\s+/);
      rows.forEach((row) => { row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word)); });
    };
    box.before(field);
    heads.forEach((head, at) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: head.textContent });
      head.replaceChildren(button);
      button.onclick = () => {
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        body.append(...rows.sort((one, two) => sign * order.compare(one.cells[at].textContent, two.cells[at].textContent)));
      };
    });
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".table-box.sorts").forEach(equip));
})();
