// Draws the curves with Bokeh: a chart is built when it comes into view, and again when its look changes.
"use strict";

const charts = read("charts");
const smoothing = document.getElementById("smoothing");
const scales = [...document.querySelectorAll('input[name="scale"]')];

// exponential moving average, corrected for its beginning
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

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const build = (chart) => {
  const weight = Number(smoothing.value);
  const log = scales.some((scale) => scale.checked && scale.value === "log");
  const muted = colour("muted");
  const figure = Bokeh.Plotting.figure({
    height: 208,
    sizing_mode: "stretch_width",
    y_axis_type: log ? "log" : "linear",
    toolbar_location: null,
    tools: [],
    background_fill_color: null,
    border_fill_color: null,
    outline_line_color: null,
    min_border_left: 44,
    min_border_right: 12,
  });
  for (const axis of [figure.xaxis, figure.yaxis]) {
    axis.axis_line_color = axis.major_tick_line_color = colour("rule");
    axis.minor_tick_line_color = null;
    axis.major_label_text_color = muted;
    axis.major_label_text_font_size = "11px";
  }
  figure.xaxis.formatter = new Bokeh.NumeralTickFormatter({ format: "0,0" });
  figure.xgrid.grid_line_color = null;
  figure.ygrid.grid_line_color = colour("rule");
  const data = { x: chart.x };
  const columns = chart.lines.map((line, index) => {
    data[`y${index}`] = smoothed(line.y, weight);
    // a logarithm has no place for the rest
    if (log) data[`y${index}`] = data[`y${index}`].map((value) => (value > 0 ? value : NaN));
    for (const end of ["low", "high"]) if (line[end]) data[`${end}${index}`] = smoothed(line[end], weight);
    return `y${index}`;
  });
  const source = new Bokeh.ColumnDataSource({ data });
  const field = (name) => ({ field: name });
  const drawn = columns.map((column, index) => {
    const stroke = colour(`line-${index % 8}`);
    if (data[`low${index}`]) {
      figure.varea({
        x: field("x"), y1: field(`low${index}`), y2: field(`high${index}`), source,
        fill_color: stroke, fill_alpha: 0.18,
      });
    }
    // a curve of few points, or with gaps, is seen by its points
    const few = data[column].filter((value) => !Number.isNaN(value)).length < 30;
    if (few) figure.scatter({ x: field("x"), y: field(column), source, size: 5, color: stroke });
    const line = few ? connected(chart.x, data[column]) : null;
    return figure.line({
      x: field("x"), y: field(line ? "y" : column), source: line ?? source,
      line_color: stroke, line_width: 1.6, line_dash: index < 8 ? "solid" : "dashed",
    });
  });
  figure.add_tools(new Bokeh.HoverTool({
    mode: "vline",
    renderers: drawn.slice(0, 1),
    line_policy: "nearest",
    tooltips: [["step", "@x{0,0}"], ...chart.lines.map((line, index) => [line.name, `@${columns[index]}{0.[0000]}`])],
  }));
  return figure;
};

const connected = (x, y) => {
  const known = y.map((value, index) => index).filter((index) => !Number.isNaN(y[index]));
  return new Bokeh.ColumnDataSource({ data: { x: known.map((i) => x[i]), y: known.map((i) => y[i]) } });
};

const draw = async (plot) => {
  plot.replaceChildren();
  await Bokeh.Plotting.show(build(charts[plot.dataset.chart]), plot);
  plot.dataset.drawn = "yes";
};

const plots = [...document.querySelectorAll(".plot")];
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }
}, { rootMargin: "300px" });
plots.forEach((plot) => watcher.observe(plot));

const again = () => {
  smoothing.parentElement.querySelector("output").textContent = Number(smoothing.value).toFixed(2);
  kept("smoothing", smoothing.value);
  kept("scale", scales.find((scale) => scale.checked).value);
  plots.forEach((plot) => plot.dataset.drawn && watcher.observe(plot));
};
smoothing.value = kept("smoothing") ?? smoothing.value;
for (const scale of scales) {
  if (kept("scale")) scale.checked = scale.value === kept("scale");
  scale.addEventListener("change", again);
}
smoothing.addEventListener("input", again);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
again();
