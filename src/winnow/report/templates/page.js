"use strict";
// The values of a line chart under the pointer, or under the arrow keys where the chart has the focus.
for (const svg of document.querySelectorAll("svg.lines")) {
  const chart = JSON.parse(svg.dataset.points);
  const readout = svg.parentElement.querySelector(".readout");
  const cursor = svg.querySelector(".cursor");
  const places = [...new Set(chart.xs.flat())].sort((a, b) => a - b);
  let at = -1;
  const show = (index) => {
    at = Math.min(places.length - 1, Math.max(0, index));
    const x = places[at];
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", "visible");
    const values = [];
    let label = null;
    chart.series.forEach((one, number) => {
      const row = chart.xs[number].indexOf(x);
      if (row < 0) return;
      label = one.x[row];
      values.push(`${one.name} ${one.y[row]}`);
    });
    readout.textContent = `${chart.x_label} ${label}: ${values.join(" · ")}`;
  };
  const hide = () => {
    cursor.setAttribute("visibility", "hidden");
    readout.textContent = "";
    at = -1;
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    let best = 0;
    places.forEach((place, index) => {
      if (Math.abs(place - x) < Math.abs(places[best] - x)) best = index;
    });
    show(best);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(at + step);
  });
}
