// Draw each chart when it comes near the screen (all of them before printing), and again when the theme changes.
(function () {
  function mode() {
    return document.documentElement.dataset.theme === "dark" ? "dark" : "light";
  }
  function draw(box) {
    const spec = JSON.parse(box.querySelector("script").textContent);
    const host = box.querySelector(".vl-host");
    return vegaEmbed(host, spec, { renderer: "svg", actions: false, tooltip: { theme: mode() } }).then(
      function () { box.dataset.rendered = mode(); },
      function (error) { box.dataset.failed = String(error); console.error(error); }
    );
  }
  document.addEventListener("DOMContentLoaded", function () {
    const boxes = Array.from(document.querySelectorAll(".vl-chart"));
    const near = new IntersectionObserver(function (entries) {
      entries.filter(function (entry) { return entry.isIntersecting; }).forEach(function (entry) {
        near.unobserve(entry.target);
        draw(entry.target);
      });
    }, { rootMargin: "600px" });
    boxes.forEach(function (box) { near.observe(box); });
    window.addEventListener("beforeprint", function () {
      boxes.forEach(function (box) { if (!box.dataset.rendered) draw(box); });
    });
    new MutationObserver(function () {
      boxes.forEach(function (box) { if (box.dataset.rendered) draw(box); });
    }).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  });
})();
