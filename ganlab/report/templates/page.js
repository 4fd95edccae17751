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

// a slider through steps, with a button that plays them; `show` is called with an index
const startPlayer = (show) => {
  let unit = "step";
  const slider = document.getElementById("step");
  const shown = document.getElementById("step-shown");
  const play = document.getElementById("play");
  let steps = [];
  let timer = 0;
  const last = () => steps.length - 1;
  const move = (index) => {
    slider.value = index;
    const number = steps[index].toLocaleString("en");
    const words = unit === "step" ? `step ${number}` : `${number}% of training`;
    shown.textContent = words;
    slider.setAttribute("aria-valuetext", words);
    show(index);
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    move(Number(slider.value) === last() ? 0 : Number(slider.value));
    timer = setInterval(() => {
      if (Number(slider.value) === last()) return stop();
      move(Number(slider.value) + 1);
    }, 500);
  });
  slider.addEventListener("input", () => {
    stop();
    const index = Number(slider.value);
    // a page that reloads follows the newest sample, unless an earlier one was chosen
    kept("step", index === last() ? "" : steps[index]);
    move(index);
  });
  return (seed) => {
    stop();
    ({ unit, steps } = seed);
    slider.max = last();
    slider.disabled = play.disabled = steps.length < 2;
    const chosen = steps.findIndex((step) => String(step) === kept("step"));
    move(chosen < 0 ? last() : chosen);
  };
};

const startFaces = (faces) => {
  let seed = faces.seeds[0];
  const pictures = new Map();
  const picture = (uri) => {
    if (!pictures.has(uri)) pictures.set(uri, loaded(uri));
    return pictures.get(uri);
  };
  let asked = 0;
  const show = async (index) => {
    const mine = ++asked;
    const strips = {};
    for (const direction of seed.directions) {
      const outputs = direction.outputs.map((strips) => strips[index] && picture(strips[index]));
      strips[direction.name] = { ...(await Promise.all(outputs)), input: await picture(direction.inputs) };
    }
    // the slider may have moved on in the meantime
    if (mine !== asked) return;
    for (const canvas of document.querySelectorAll("[data-direction] canvas")) {
      const strip = strips[canvas.closest("[data-direction]").dataset.direction]?.[canvas.dataset.system];
      if (strip) drawFrom(canvas, strip, faces.columns, Number(canvas.dataset.index));
      // no picture of another seed stays
      else canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    }
  };
  const showSteps = startPlayer(show);
  const seeds = document.getElementById("seed");
  seeds?.addEventListener("change", () => {
    seed = faces.seeds[seeds.value];
    showSteps(seed);
  });
  showSteps(seed);
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
