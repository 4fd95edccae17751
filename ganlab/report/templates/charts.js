// Draws the curves with Bokeh: a chart is built when it comes into view, and again when its colours or scale change.
"use strict";

const charts = read("charts");
const smoothing = document.getElementById("smoothing");
const scales = [...document.querySelectorAll('input[name="scale"]')];
const isLog = () => scales.some((scale) => scale.checked && scale.value === "log");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// exponential moving average, corrected for its beginning; a missing value stays one
const smoothed = (values, weight) => {
  let mean = 0;
  let total = 0;
  return values.map((value) => {
    if (value === null) return NaN;
    mean = weight * mean + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return mean / total;
  });
};

// the columns of a chart: x, and for each line y0, and low0 and high0 if it has a band
const columnsOf = (chart) => {
  const log = isLog();
  const data = { x: chart.x };
  chart.lines.forEach((line, index) => {
    for (const part of ["y", "low", "high"]) {
      if (!line[part]) continue;
      const values = smoothed(line[part], Number(smoothing.value));
      // a logarithm has no place for zero and below
      data[part + index] = log ? values.map((value) => (value > 0 ? value : NaN)) : values;
    }
  });
  return data;
};

const build = (chart, source) => {
  const figure = Bokeh.Plotting.figure({
    height: 208,
    sizing_mode: "stretch_width",
    y_axis_type: isLog() ? "log" : "linear",
    toolbar_location: null,
    tools: [],
    background_fill_color: null,
    border_fill_color: null,
    outline_line_color: null,
    min_border_left: 48,
    min_border_right: 12,
  });
  for (const axis of [figure.xaxis, figure.yaxis]) {
    axis.axis_line_color = axis.major_tick_line_color = colour("rule");
    axis.minor_tick_line_color = null;
    axis.major_label_text_color = colour("muted");
    axis.major_label_text_font_size = "11px";
  }
  figure.xaxis.formatter = new Bokeh.NumeralTickFormatter({ format: "0,0" });
  if (!isLog()) figure.yaxis.formatter = new Bokeh.BasicTickFormatter({ power_limit_low: -5 });
  figure.xaxis.ticker = new Bokeh.BasicTicker({ desired_num_ticks: 4 });
  figure.xgrid.grid_line_color = null;
  figure.ygrid.grid_line_color = colour("rule");
  const field = (name, index) => ({ field: name + index });
  const x = { field: "x" };
  const renderers = chart.lines.map((line, index) => {
    const stroke = colour(`line-${line.colour % 8}`);
    if (line.low) {
      figure.varea({ x, y1: field("low", index), y2: field("high", index), source, fill_color: stroke, fill_alpha: 0.18 });
    }
    if (chart.x.length < 40) figure.scatter({ x, y: field("y", index), source, size: 5, color: stroke });
    const line_dash = line.colour < 8 ? "solid" : "dashed";
    return figure.line({ x, y: field("y", index), source, line_color: stroke, line_width: 1.6, line_dash });
  });
  const tooltips = chart.lines.map((line, index) => [line.name, `@y${index}{%.4g}`]);
  const formatters = Object.fromEntries(chart.lines.map((line, index) => [`@y${index}`, "printf"]));
  figure.add_tools(new Bokeh.HoverTool({
    mode: "vline",
    renderers: renderers.slice(0, 1),
    tooltips: [["step", "@x{0,0}"], ...tooltips],
    formatters,
  }));
  return figure;
};

const drawn = new Map();
const draw = async (plot) => {
  const chart = charts[plot.dataset.chart];
  const source = new Bokeh.ColumnDataSource({ data: columnsOf(chart) });
  plot.replaceChildren();
  drawn.set(plot, { chart, source });
  await Bokeh.Plotting.show(build(chart, source), plot);
};

const plots = [...document.querySelectorAll(".plot")];
const watcher = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    watcher.unobserve(target);
    draw(target);
  }
}, { rootMargin: "200px" });
const redraw = () => plots.forEach((plot) => {
  drawn.delete(plot);
  watcher.observe(plot);
});
const smooth = () => {
  smoothing.parentElement.querySelector("output").textContent = Number(smoothing.value).toFixed(2);
  for (const { chart, source } of drawn.values()) source.data = columnsOf(chart);
};

smoothing.value = kept("smoothing") ?? smoothing.value;
smoothing.addEventListener("input", () => {
  kept("smoothing", smoothing.value);
  smooth();
});
for (const scale of scales) {
  if (kept("scale")) scale.checked = scale.value === kept("scale");
  scale.addEventListener("change", () => {
    kept("scale", scale.value);
    redraw();
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
Bokeh.set_log_level("warn");
smooth();
redraw();
