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

  // Curves: a part that is dragged over is enlarged; a double click or Escape shows the whole.
  const valueAt = ([start, end, low, high], log, px) => {
    const share = (px - start) / (end - start);
    return log ? 10 ** (Math.log10(low) + share * Math.log10(high / low)) : low + share * (high - low);
  };
  const ticks = (low, high, log) => {
    const found = [];
    if (log && high / low >= 100) {
      const a = Math.ceil(Math.log10(low)), b = Math.floor(Math.log10(high));
      for (let k = a; k <= b; k += Math.ceil((b - a + 1) / 6)) found.push(10 ** k);
      return found;
    }
    const raw = (high - low) / 5, power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find(m => m * power >= raw);
    for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(k * step);
    return found;
  };
  const element = (name, parts, parent) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in parts) made.setAttribute(key, parts[key]);
    return parent.appendChild(made);
  };
  const zooming = (figure, svg, plot) => {
    const marks = svg.querySelector(".marks"), [left, right] = plot.frame, [bottom, top] = plot.upright;
    figure.classList.add("zooms");
    for (const tick of svg.querySelectorAll(".tick, .grid")) tick.classList.add("whole");
    let shown = null, drawn = null, chosen = null, from = 0;
    const to = px => shown ? left + (px - shown[0]) / (shown[1] - shown[0]) * (right - left) : px;
    const back = px => shown ? shown[0] + (px - left) / (right - left) * (shown[1] - shown[0]) : px;
    const set = part => {
      if (drawn) drawn.remove();
      drawn = shown = null;
      figure.classList.toggle("zoomed", part !== null);
      if (!part) { marks.setAttribute("viewBox", `${left} ${top} ${right - left} ${bottom - top}`); return; }
      // A hundredth of the whole, at most, fills the frame.
      const wide = Math.max(part[1] - part[0], (right - left) / 100);
      const a = Math.min(Math.max((part[0] + part[1] - wide) / 2, left), right - wide);
      shown = [a, a + wide];
      let high = Infinity, low = -Infinity;
      plot.x.forEach((x, i) => {
        const px = place(plot.frame, plot.log, x);
        if (px < a || px > a + wide) return;
        for (const y of plot.y) {
          const py = y[i] === null || (plot.uplog && y[i] <= 0) ? NaN : place(plot.upright, plot.uplog, y[i]);
          if (py < high) high = py;
          if (py > low) low = py;
        }
      });
      if (high > low) [high, low] = [top, bottom];
      const slack = Math.max(0.08 * (low - high), (bottom - top) / 200);
      [high, low] = [Math.max(high - slack, top), Math.min(low + slack, bottom)];
      marks.setAttribute("viewBox", `${a} ${high} ${wide} ${low - high}`);
      drawn = element("g", {}, svg);
      const ends = [valueAt(plot.frame, plot.log, a), valueAt(plot.frame, plot.log, a + wide)];
      for (const v of ticks(...ends, plot.log)) {
        const at = { class: "tick", x: to(place(plot.frame, plot.log, v)), y: bottom + 16, "text-anchor": "middle" };
        element("text", at, drawn).textContent = digits(v);
      }
      const heights = [valueAt(plot.upright, plot.uplog, low), valueAt(plot.upright, plot.uplog, high)];
      for (const v of ticks(...heights, plot.uplog)) {
        const py = top + (place(plot.upright, plot.uplog, v) - high) / (low - high) * (bottom - top);
        element("text", { class: "tick", x: left - 6, y: py + 4, "text-anchor": "end" }, drawn).textContent = digits(v);
      }
    };
    const at = event => {
      const box = svg.getBoundingClientRect();
      const px = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      return Math.min(Math.max(px, left), right);
    };
    svg.addEventListener("pointerdown", event => {
      if (event.button) return;
      from = at(event);
      chosen = element("rect", { class: "chosen", x: from, y: top, width: 0, height: bottom - top }, svg);
    });
    addEventListener("pointermove", event => {
      if (!chosen) return;
      chosen.setAttribute("x", Math.min(from, at(event)));
      chosen.setAttribute("width", Math.abs(at(event) - from));
    });
    addEventListener("pointerup", event => {
      if (!chosen) return;
      chosen.remove();
      chosen = null;
      const ends = [from, at(event)].sort((a, b) => a - b);
      if (ends[1] - ends[0] > 6) set(ends.map(back));
    });
    addEventListener("pointercancel", () => { if (chosen) chosen.remove(); chosen = null; });
    svg.addEventListener("dblclick", () => set(null));
    const key = (name, middle) => {
      if (name === "Escape" && shown) { set(null); return true; }
      if (name !== "+" && name !== "-") return false;
      const [a, b] = shown || [left, right], half = (b - a) / (name === "+" ? 4 : 1);
      const c = middle === null ? (a + b) / 2 : middle;
      if (name === "-" && 2 * half >= right - left) set(null);
      else set([c - half, c + half]);
      return true;
    };
    return { to, from: back, key };
  };

  for (const figure of document.querySelectorAll("figure[data-plot]")) {
    const plot = data.plots[figure.dataset.plot], svg = figure.querySelector("svg");
    const read = figure.querySelector(".read"), cursor = figure.querySelector(".cursor");
    if (!plot || !read) continue;
    const zoom = plot.kind === "curve" ? zooming(figure, svg, plot) : null;
    const moved = px => zoom ? zoom.to(px) : px;
    let i = -1, j = 0;
    const show = () => {
      if (plot.kind === "curve") {
        const px = moved(place(plot.frame, plot.log, plot.x[i]));
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
      let px = (event.clientX - box.left) / box.width * view.width;
      if (zoom) px = zoom.from(px);
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
      if (zoom && zoom.key(event.key, i < 0 ? null : place(plot.frame, plot.log, plot.x[i]))) {
        event.preventDefault();
        if (i >= 0) show();
        return;
      }
      const by = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!by || (by[1] && plot.kind !== "field")) return;
      event.preventDefault();
      const large = event.shiftKey ? 10 : 1;
      i = Math.min(Math.max((i < 0 ? Math.floor(plot.x.length / 2) : i) + large * by[0], 0), plot.x.length - 1);
      if (plot.kind === "field") j = Math.min(Math.max(j + large * by[1], 0), plot.y.length - 1);
      show();
    });
  }

  const foot = document.querySelector("footer .soft");
  if (foot && document.querySelector(".zooms"))
    foot.append(" Drag over a curve to enlarge a part, or press + and -; a double click or Escape shows all of it.");

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
