"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const digits = v => v === null || v === undefined ? "–" : Number(v.toPrecision(5)).toString();

  // Tables: a number is compared as one, wherever a cell begins with it.
  const value = cell => {
    const text = cell.textContent.trim();
    if (text.startsWith("at rounding")) return -Infinity;
    const found = parseFloat(text.replace(/^[(\[]/, ""));
    return Number.isNaN(found) ? (text === "inf" ? Infinity : text) : found;
  };
  const compared = (a, b) => typeof a === typeof b
    ? (typeof a === "number" ? a - b : a.localeCompare(b)) : (typeof a === "number" ? -1 : 1);
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th"), body = head.closest("table").tBodies[0];
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentNode.children) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const k = head.cellIndex, rows = [...body.rows];
      rows.sort((a, b) => (up ? 1 : -1) * compared(value(a.cells[k]), value(b.cells[k])));
      body.append(...rows);
    });
  }

  // Plots: the values under the pointer, or under a line that the arrow keys move.
  const place = (frame, log, v) => {
    const [start, end, low, high] = frame, f = log ? Math.log10 : x => x;
    return start + (f(v) - f(low)) / (f(high) - f(low)) * (end - start);
  };
  const nearest = (values, wanted, at) => {
    let best = 0, least = Infinity;
    values.forEach((v, i) => {
      const far = v === null ? Infinity : Math.abs(at(v) - wanted);
      if (far < least) { least = far; best = i; }
    });
    return best;
  };
  for (const figure of document.querySelectorAll("figure[data-plot]")) {
    const plot = data.plots[figure.dataset.plot], svg = figure.querySelector("svg");
    const read = figure.querySelector(".read"), cursor = figure.querySelector(".cursor");
    if (!plot || !read) continue;
    let i = -1, j = 0;
    const show = () => {
      if (plot.kind === "curve") {
        const px = place(plot.frame, plot.log, plot.x[i]);
        cursor.setAttribute("transform", `translate(${px.toFixed(1)} 0)`);
        cursor.setAttribute("visibility", "visible");
        const parts = plot.y.map((y, k) => `${plot.names[k + 1]} ${digits(y[i])}`);
        read.textContent = `${plot.names[0]} = ${digits(plot.x[i])}: ${parts.join(", ")}`;
      } else {
        cursor.setAttribute("transform", `translate(${place(plot.frame, false, plot.x[i]).toFixed(1)} 0)`);
        cursor.setAttribute("visibility", "visible");
        const [x, y, z] = plot.names;
        read.textContent = `${x} = ${digits(plot.x[i])}, ${y} = ${digits(plot.y[j])}: ${z} ${digits(plot.z[i][j])}`;
      }
    };
    svg.addEventListener("pointermove", event => {
      const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
      const px = (event.clientX - box.left) / box.width * view.width;
      const py = (event.clientY - box.top) / box.height * view.height;
      i = nearest(plot.x, px, v => place(plot.frame, plot.log, v));
      if (plot.kind === "field") j = nearest(plot.y, py, v => place(plot.upright, false, v));
      show();
    });
    svg.addEventListener("pointerleave", () => {
      cursor.setAttribute("visibility", "hidden");
      read.textContent = "";
    });
    figure.addEventListener("keydown", event => {
      const by = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!by || (by[1] && plot.kind !== "field")) return;
      event.preventDefault();
      const large = event.shiftKey ? 10 : 1;
      i = Math.min(Math.max((i < 0 ? Math.floor(plot.x.length / 2) : i) + large * by[0], 0), plot.x.length - 1);
      if (plot.kind === "field") j = Math.min(Math.max(j + large * by[1], 0), plot.y.length - 1);
      show();
    });
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy).textContent;
      try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
      catch { getSelection().selectAllChildren(document.getElementById(button.dataset.copy)); }
    });
  }
  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener("click", () => {
      const file = new Blob([JSON.stringify(data, null, 1)], { type: "application/json" });
      const link = document.createElement("a");
      link.href = URL.createObjectURL(file);
      link.download = button.dataset.download;
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }
})();
