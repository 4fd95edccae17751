// What every page does: pictures and their sliders, tables that sort, buttons that copy, reloading.
"use strict";

const read = (id) => {
  const script = document.getElementById(id);
  return script && JSON.parse(script.textContent);
};
const kept = (key, value) => {
  // a page on a disk may have no storage
  try {
    if (value === undefined) return sessionStorage.getItem(`${location.pathname} ${key}`);
    sessionStorage.setItem(`${location.pathname} ${key}`, value);
  } catch {}
  return null;
};
const loaded = async (uri) => {
  const image = new Image();
  image.src = uri;
  await image.decode();
  return image;
};

// draws one image of a strip, which has `columns` images in a row
const drawFrom = (canvas, strip, columns, index) => {
  const size = strip.naturalWidth / columns;
  if (canvas.width !== size) canvas.width = canvas.height = size;
  const left = (index % columns) * size;
  canvas.getContext("2d").drawImage(strip, left, Math.floor(index / columns) * size, size, size, 0, 0, size, size);
};

const startFaces = async (faces) => {
  const slider = document.getElementById("step");
  const shown = document.getElementById("step-shown");
  const play = document.getElementById("play");
  const strips = {};
  for (const direction of faces.directions) {
    const boxes = document.querySelector(`.pairs[data-direction="${direction.name}"]`);
    const inputs = await loaded(direction.inputs);
    boxes.querySelectorAll(".input").forEach((canvas, index) => drawFrom(canvas, inputs, faces.columns, index));
    strips[direction.name] = { outputs: boxes.querySelectorAll(".output"), loading: [] };
  }
  const show = async () => {
    const index = Number(slider.value);
    const step = faces.steps[index];
    const words = `step ${step.step.toLocaleString("en")}`;
    shown.textContent = words;
    slider.setAttribute("aria-valuetext", words);
    for (const [name, strip] of Object.entries(strips)) {
      strip.loading[index] ??= loaded(step.outputs[name]);
      const picture = await strip.loading[index];
      // the slider may have moved on in the meantime
      if (Number(slider.value) !== index) return;
      strip.outputs.forEach((canvas, place) => drawFrom(canvas, picture, faces.columns, place));
    }
  };
  const last = faces.steps.length - 1;
  let timer = 0;
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) === last) slider.value = 0;
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    show();
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) === last) stop();
    }, 400);
  });
  slider.addEventListener("input", () => {
    stop();
    // a page that reloads follows the newest sample, unless an earlier one was chosen
    kept("step", Number(slider.value) === last ? "" : faces.steps[slider.value].step);
    show();
  });
  const chosen = faces.steps.findIndex((step) => String(step.step) === kept("step"));
  if (chosen >= 0) slider.value = chosen;
  await show();
};

const startSorting = (table) => {
  const body = table.tBodies[0];
  const heads = [...table.querySelectorAll("th button")].map((button) => button.closest("th"));
  heads.forEach((head) => {
    head.querySelector("button").addEventListener("click", () => {
      const column = Number(head.dataset.column);
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const compare = (a, b) => {
        // cells without a value stay at the end
        if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
        const [x, y] = [Number(key(a)), Number(key(b))];
        const order = Number.isNaN(x) || Number.isNaN(y) ? key(a).localeCompare(key(b)) : x - y;
        return down ? -order : order;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
};

const startCopying = (button) => {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
};

const startReloading = (box, seconds) => {
  box.checked = kept("reload") !== "no";
  box.addEventListener("change", () => kept("reload", box.checked ? "yes" : "no"));
  setInterval(() => {
    if (box.checked && !document.hidden) location.reload();
  }, seconds * 1000);
};

const faces = read("faces");
if (faces) startFaces(faces);
document.querySelectorAll("table.sortable").forEach(startSorting);
document.querySelectorAll("button.copy").forEach(startCopying);
const box = document.getElementById("reload");
if (box) startReloading(box, Number(document.body.dataset.reload));
