// The stage: gray and colour under a slider, marks that can be moved, and a brush.
const find = (selector) => element.querySelector(selector);
const german = (navigator.language || "").toLowerCase().startsWith("de");
const word = (key) => told.words[key][german ? 1 : 0];
const frame = find(".stage-frame"), canvas = find(".strokes"), cross = find(".cross");
const name = "tool-" + Math.random().toString(36).slice(2);
for (const node of element.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
for (const node of element.querySelectorAll("[data-label]")) node.setAttribute("aria-label", word(node.dataset.label));
for (const node of element.querySelectorAll(".tool")) { node.name = name; node.onchange = chooseTool; }
let tool = "point", path = null, at = null, waiting = null;
const veil = new Image();
veil.onload = draw;

function chooseTool(event) {
  tool = event.target.value;
  find(".stage-size").hidden = tool === "point";
  frame.classList.toggle("brushes", tool !== "point");
  path = null;
  draw();
}

function clamp(value, most) { return Math.min(most, Math.max(0, value)); }

function placeOf(event) {
  const box = frame.getBoundingClientRect();
  return [
    clamp((event.clientX - box.left) / box.width * props.width - 0.5, props.width - 1),
    clamp((event.clientY - box.top) / box.height * props.height - 0.5, props.height - 1),
  ].map((value) => Math.round(value * 100) / 100);
}

function put(node, x, y) {
  node.style.left = (x + 0.5) / props.width * 100 + "%";
  node.style.top = (y + 0.5) / props.height * 100 + "%";
}

function split() {
  const share = Number(find(".split").value);
  find(".before").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  frame.style.setProperty("--split", share + "%");
}

function radius() { return Number(find(".size").value) / 500 * Math.min(props.width, props.height); }

function stroke(pen, places, reach, ink) {
  const scale = canvas.width / props.width;
  pen.strokeStyle = pen.fillStyle = ink;
  pen.lineWidth = Math.max(1, 2 * reach * scale);
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  for (const [x, y] of places) pen.lineTo((x + 0.5) * scale, (y + 0.5) * scale);
  if (places.length === 1) pen.lineTo((places[0][0] + 0.5) * scale + 0.01, (places[0][1] + 0.5) * scale);
  pen.stroke();
}

function draw() {
  canvas.width = Math.min(1200, props.width || 1);
  canvas.height = Math.max(1, Math.round(canvas.width * (props.height || 1) / (props.width || 1)));
  const pen = canvas.getContext("2d");
  const sweeps = props.sweeps || [];
  // What stays as it is lies under a veil.
  const dark = pen.fillStyle = "rgba(0, 0, 0, 0.55)";
  if (props.region) { if (veil.complete) pen.drawImage(veil, 0, 0, canvas.width, canvas.height); }
  else if (sweeps.length && !sweeps[0].erases) pen.fillRect(0, 0, canvas.width, canvas.height);
  for (const sweep of sweeps) {
    pen.globalCompositeOperation = "destination-out";
    stroke(pen, sweep.path, sweep.radius, "#000");
    pen.globalCompositeOperation = "source-over";
    if (sweep.erases) stroke(pen, sweep.path, sweep.radius, dark);
  }
  if (path) {
    const inks = { brush: props.ink, only: "rgba(255, 255, 255, 0.5)", erase: "rgba(0, 0, 0, 0.6)" };
    stroke(pen, path, radius(), inks[tool]);
  }
}

function showMarks() {
  const box = find(".marks");
  const focused = document.activeElement?.dataset?.number;
  const held = focused !== undefined && box.contains(document.activeElement);
  box.replaceChildren();
  (props.marks || []).forEach((mark, number) => {
    const node = document.createElement("button");
    node.type = "button";
    node.className = "mark" + (number === props.selected ? " selected" : "");
    node.dataset.number = number;
    node.style.background = mark.color;
    node.textContent = number + 1;
    node.setAttribute("aria-label", `${word("hint")} ${number + 1}: ${mark.color}. ${word("mark_help")}`);
    put(node, mark.x, mark.y);
    carry(node, number, mark);
    box.append(node);
  });
  if (held) box.children[focused]?.focus();
}

function carry(node, number, mark) {
  let moved = false;
  node.onpointerdown = (event) => {
    moved = false;
    node.setPointerCapture(event.pointerId);
    event.stopPropagation();
  };
  node.onpointermove = (event) => {
    if (!node.hasPointerCapture(event.pointerId)) return;
    const far = Math.hypot(event.movementX, event.movementY) > 0;
    if (far) { moved = true; put(node, ...placeOf(event)); }
  };
  node.onpointerup = (event) => {
    if (moved) { const [x, y] = placeOf(event); trigger("move", { number, x, y }); }
  };
  node.onclick = (event) => {
    event.stopPropagation();
    if (!moved) trigger("take", { number });
  };
  node.onkeydown = (event) => {
    event.stopPropagation();
    if (event.key === "Delete" || event.key === "Backspace") trigger("remove", { number });
    const step = steps(event);
    if (!step) return;
    event.preventDefault();
    mark = { ...mark, x: clamp(mark.x + step[0], props.width - 1), y: clamp(mark.y + step[1], props.height - 1) };
    put(node, mark.x, mark.y);
    clearTimeout(waiting);
    waiting = setTimeout(() => trigger("move", { number, x: mark.x, y: mark.y }), 500);
  };
}

function steps(event) {
  const far = Math.max(1, Math.round(Math.max(props.width, props.height) * (event.shiftKey ? 0.05 : 0.01)));
  const ways = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
  return ways[event.key];
}

function show() {
  const there = Boolean(props.after);
  find(".stage").hidden = !there;
  if (!there) return;
  for (const which of ["before", "after", "sure"]) {
    const image = find("." + which);
    if (image.getAttribute("src") !== (props[which] || "")) image.setAttribute("src", props[which] || "");
    image.hidden = !props[which];
  }
  if (veil.getAttribute("src") !== (props.region || "")) veil.setAttribute("src", props.region || "");
  find(".after").alt = word("alt_after");
  find(".before").alt = word("alt_before");
  find(".sure").alt = word("alt_sure");
  frame.style.aspectRatio = `${props.width} / ${props.height}`;
  frame.style.setProperty("--shape", props.width / props.height);
  frame.style.width = props.large ? props.width + "px" : "";
  frame.classList.toggle("large", Boolean(props.large));
  find(".zoom").textContent = word(props.large ? "fit" : "full_size");
  // Whoever brushes by the keyboard goes on where they were.
  const stays = tool !== "point" && at && [clamp(at[0], props.width - 1), clamp(at[1], props.height - 1)];
  at = props.picked && props.picked.length ? props.picked : stays || null;
  cross.hidden = !at;
  if (at) put(cross, at[0], at[1]);
  showMarks();
  draw();
  split();
}

frame.onclick = (event) => {
  if (tool !== "point") return;
  at = placeOf(event);
  cross.hidden = false;
  put(cross, ...at);
  trigger("press", { x: at[0], y: at[1] });
};
frame.onkeydown = (event) => {
  if (event.key === "Escape" && path) { path = null; draw(); return; }
  const step = event.key === "Enter" ? [0, 0] : steps(event);
  if (!step) return;
  event.preventDefault();
  at = at || [props.width / 2, props.height / 2];
  at = [clamp(at[0] + step[0], props.width - 1), clamp(at[1] + step[1], props.height - 1)];
  cross.hidden = false;
  put(cross, ...at);
  if (path) { path.push(at); draw(); }
  if (event.key !== "Enter") return;
  if (tool === "point") trigger("press", { x: at[0], y: at[1] });
  else if (path) endStroke();
  else { path = [at]; draw(); }
};
frame.onpointerdown = (event) => {
  if (tool === "point") return;
  path = [placeOf(event)];
  frame.setPointerCapture(event.pointerId);
  draw();
};
frame.onpointermove = (event) => {
  if (!path || !frame.hasPointerCapture(event.pointerId)) return;
  path.push(placeOf(event));
  draw();
};
frame.onpointerup = (event) => { if (path && frame.hasPointerCapture(event.pointerId)) endStroke(); };
function endStroke() {
  const thin = Math.max(1, Math.ceil(path.length / 1000));
  const places = path.filter((_, number) => number % thin === 0 || number === path.length - 1);
  trigger("stroke", { places, radius: radius(), tool });  // a "path" would be taken for a file
  path = null;
}
frame.onpointercancel = () => { path = null; draw(); };
find(".split").oninput = split;
find(".zoom").onclick = () => trigger("enlarge", { large: !props.large });
watch(["before", "after", "sure", "marks", "sweeps", "region", "picked", "selected", "width", "height", "large"], show);
show();
