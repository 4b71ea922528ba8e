// Copies text on a press of a button, puts "/" to the search, and says what happened to those who listen.
// Without script nothing is lost: the buttons are hidden, the text can be selected.
"use strict";
(() => {
  const say = (text) => {
    const toast = document.getElementById("said");
    toast.textContent = text;
    toast.classList.add("shown");
    clearTimeout(say.timer);
    say.timer = setTimeout(() => { toast.classList.remove("shown"); toast.textContent = ""; }, 2500);
  };
  const ready = (root) => root.querySelectorAll("[data-copy],[data-copy-text]").forEach((b) => { b.hidden = false; });
  const copy = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("not allowed");
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy],[data-copy-text]");
    if (!button) return;
    const from = document.getElementById(button.dataset.copy);
    try {
      await copy(from ? from.textContent : button.dataset.copyText);
      say("Copied");
    } catch {
      if (from) getSelection().selectAllChildren(from);
      say("Select and copy it by hand: the browser does not allow it here");
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input,textarea,select,[contenteditable]")) return;
    const box = document.getElementById("q");
    if (box) { event.preventDefault(); box.focus(); box.select(); }
  });
  document.addEventListener("htmx:load", (event) => ready(event.target));
  ready(document);
})();
