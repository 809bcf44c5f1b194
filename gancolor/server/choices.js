// Buttons with a colour or a picture each, of which one is chosen; they can have another that removes.
const german = (navigator.language || "").toLowerCase().startsWith("de");
const word = (key) => told.words[key][german ? 1 : 0];

function button(className, label, event, number) {
  const node = document.createElement("button");
  node.type = "button";
  node.className = className;
  node.setAttribute("aria-label", label);
  node.title = label;
  node.onclick = () => trigger(event === "remove" ? "remove" : "choose", { number });
  return node;
}

function show() {
  const box = element.querySelector(".choices");
  const focused = Array.from(box.querySelectorAll("button")).indexOf(document.activeElement);
  box.replaceChildren();
  box.setAttribute("aria-label", word(told.name));
  (props.items || []).forEach((item, number) => {
    const row = document.createElement("div");
    row.className = "choice";
    const node = button("choice-button" + (item.chosen ? " chosen" : ""), item.label, "choose", number);
    node.setAttribute("aria-pressed", Boolean(item.chosen));
    if (item.color) {
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = item.color;
      node.append(swatch);
    }
    if (item.source) {
      const image = document.createElement("img");
      image.src = item.source;
      image.alt = "";
      node.append(image);
    }
    if (item.text) node.append(item.text);
    row.append(node);
    if (told.removable) {
      const remove = button("choice-remove", `${word("remove")}: ${item.label}`, "remove", number);
      remove.textContent = "×";
      row.append(remove);
    }
    box.append(row);
  });
  if (focused >= 0) box.querySelectorAll("button")[focused]?.focus();
}

watch(["items"], show);
show();
