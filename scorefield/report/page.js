"use strict";

// For each slider the names of its places, and for each panel the frame and the note at each place;
// the frame is null where the panel has no picture.
const frames = JSON.parse(document.getElementById("frames").textContent);

function show(panel, content, place, label) {
  const frame = content.at[place];
  panel.classList.toggle("absent", frame === null);
  panel.querySelector("[data-note]").textContent = content.notes[place];
  const picture = panel.querySelector("[data-alt]");
  const text = `${picture.dataset.alt}; ${frame === null ? content.notes[place] : label}`;
  if (picture.tagName === "IMG") {
    picture.alt = text;
    // the sheet has the last frame on top
    const shift = frame === null ? 0 : (content.frames - 1 - frame) / content.frames;
    picture.style.transform = `translateY(${-100 * shift}%)`;
    return;
  }
  picture.setAttribute("aria-label", text);
  picture.querySelectorAll("path").forEach((path, layer) => {
    path.setAttribute("d", frame === null ? "" : content.paths[frame][layer]);
  });
}

function attach(slider) {
  const { labels, panels } = frames[slider.id];
  const input = slider.querySelector("input");
  const output = slider.querySelector("output");
  const button = slider.querySelector("button");
  let timer = 0;

  function update() {
    const label = labels[input.valueAsNumber];
    output.textContent = label;
    input.setAttribute("aria-valuetext", label);
    for (const panel of slider.querySelectorAll("[data-panel]")) {
      show(panel, panels[panel.dataset.panel], input.valueAsNumber, label);
    }
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    if (button) button.textContent = "Play";
  }

  function play() {
    if (timer) {
      stop();
      return;
    }
    if (input.valueAsNumber === labels.length - 1) input.value = 0;
    update();
    button.textContent = "Pause";
    timer = setInterval(() => {
      input.value = input.valueAsNumber + 1;
      update();
      if (input.valueAsNumber === labels.length - 1) stop();
    }, 180);
  }

  input.addEventListener("input", () => {
    stop();
    update();
  });
  if (button) button.addEventListener("click", play);
  slider.querySelector(".control").hidden = false;
  slider.querySelector(".missing").hidden = true;
  update();
}

document.querySelectorAll(".slider").forEach(attach);
